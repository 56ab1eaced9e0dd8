"""``count_rows``: the source is counted in the dump's own snapshot, so a verification proves source = archive."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from airflow_pgbackup.backup import source_rows
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.dump_output import DumpOutput
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import Canceled, ConnectError, OptionError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.manifest import Manifest, RowCount
from airflow_pgbackup.settings import Settings

SCHEMA = (
    "create table film (id int)",
    "insert into film select generate_series(1, 1000)",
    "create schema other",
    "create table other.film (id int)",
    "insert into other.film values (1), (2)",
    "create table parent (a int)",
    "create table child () inherits (parent)",
    "insert into parent values (1)",
    "insert into child values (2), (3)",
    "create table split (a int) partition by range (a)",
    "create table split_1 partition of split for values from (0) to (10)",
    "create table split_2 partition of split for values from (10) to (20)",
    "insert into split select generate_series(5, 14)",
    "create unlogged table passing (a int)",
    "insert into passing values (1)",
    "create table empty ()",
    "create materialized view counts as select count(*) from film",
)
ALL = {
    "public.film": 1000,
    "other.film": 2,
    "public.parent": 1,
    "public.child": 2,
    "public.split_1": 5,
    "public.split_2": 5,
    "public.passing": 1,
    "public.empty": 0,
}


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, *SCHEMA)


def counted(manifest: Manifest) -> dict[str, int]:
    assert manifest.source_rows is not None
    return {f"{count.schema}.{count.name}": count.rows for count in manifest.source_rows}


def dump(database: ConnectionParams, here: Repository, **options: Any) -> tuple[dict[str, object], Manifest]:
    reference = dump_database(
        connection=database, server="s", repository=here, options=DumpOptions(**options), count_rows=True
    )
    return reference, load_manifest(here, reference)


@pytest.mark.parametrize(
    ("options", "rows", "left_out"),
    [
        ({}, ALL, []),
        ({"format": "directory", "jobs": 2}, ALL, []),
        ({"format": "plain"}, ALL, []),
        ({"schemas": ["other"]}, {"other.film": 2}, sorted(set(ALL) - {"other.film"})),
        ({"exclude_tables": ["public.s*"]}, None, ["public.split_1", "public.split_2"]),
        ({"exclude_table_data": ["*.film"]}, None, ["other.film", "public.film"]),
        ({"no_unlogged_table_data": True}, None, ["public.passing"]),
        ({"schema_only": True}, {}, sorted(ALL)),
        ({"tables": ["film"]}, {"public.film": 1000}, sorted(set(ALL) - {"public.film"})),
    ],
)
def test_the_manifest_says_what_the_source_had(
    options: dict[str, Any],
    rows: dict[str, int] | None,
    left_out: list[str],
    database: ConnectionParams,
    here: Repository,
) -> None:
    reference, manifest = dump(database, here, **options)
    assert counted(manifest) == ({k: v for k, v in ALL.items() if k not in left_out} if rows is None else rows)
    assert sorted(manifest.left_out or ()) == left_out
    assert "snapshot" not in manifest.options
    assert verify(reference=reference, repository=here)["verified"] == "archive"
    tables = verification(here)["tables"]
    assert {f"{table['schema']}.{table['name']}": table["rows"] for table in tables} == counted(manifest)
    number = "1 table" if len(tables) == 1 else f"{len(tables)} tables"
    assert {"name": "source", "result": "pass", "detail": f"{number} with the source's rows"} in (
        verification(here)["checks"]
    )


def test_partitions_that_are_dumped_as_one(database: ConnectionParams, here: Repository) -> None:
    reference, manifest = dump(database, here, load_via_partition_root=True)
    assert counted(manifest)["public.split"] == 10
    assert "public.split_1" not in counted(manifest)
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"


def test_only_compared_tables_are_reported(database: ConnectionParams, here: Repository, tmp_path: Path) -> None:
    """Filter files are not read, so the tables that they leave out are counted in the source, too."""
    filters = tmp_path / "filters"
    filters.write_text("exclude table_data public.film\nexclude table other.film\n")
    reference, manifest = dump(database, here, filters=[str(filters)])
    assert counted(manifest) == ALL
    verify(reference=reference, repository=here)
    detail = f"{len(ALL) - 2} tables with the source's rows; 2 not in the archive: "
    detail += "filters, extra_args or the encoding may be why"
    assert {"name": "source", "result": "pass", "detail": detail} in verification(here)["checks"]


def test_a_damaged_index_does_not_change_the_count(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(
        server18,
        None,
        "set synchronous_commit = on",  # VACUUM marks only rows as visible whose commit is on disk
        "create table wide (a int, b text)",
        "alter table wide alter b set storage plain",
        "insert into wide select a, repeat('x', 1000) from generate_series(1, 2000) a",
        "create index lacks_rows on wide (a) where a > 100",
        "set allow_system_table_mods = on",
        "update pg_index set indpred = null where indexrelid = 'lacks_rows'::regclass",
        "vacuum analyze wide",
    )
    with database.connect() as session:
        assert session.execute("select count(*) from wide").fetchone() == (1900,)
    _, manifest = dump(database, here)
    assert counted(manifest) == {"public.wide": 2000}


def verification(repository: Repository) -> dict[str, Any]:
    key = [entry.key for entry in repository.list() if "verification-" in entry.key][-1]
    found: dict[str, Any] = json.loads(repository.read_bytes(key))
    return found


def test_rows_that_come_while_it_runs_are_in_neither(database: ConnectionParams, here: Repository) -> None:
    """One snapshot for both: somebody writes all the time."""
    begun, stop = threading.Event(), threading.Event()

    def write() -> None:
        with database.connect() as session:
            while not stop.is_set():
                session.execute("insert into film values (0)")
                session.execute("insert into other.film values (0)")
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(60)
        reference, manifest = dump(database, here)
    finally:
        stop.set()
        writer.join()
    assert counted(manifest)["public.film"] > 1000
    assert verify(reference=reference, repository=here)["verified"] == "archive"


@pytest.mark.parametrize("level", ["archive", "restore"])
def test_an_archive_with_other_rows_than_its_source_fails(
    level: str, database: ConnectionParams, here: Repository
) -> None:
    reference, manifest = dump(database, here)
    assert manifest.source_rows is not None
    forged = tuple(
        RowCount(count.schema, count.name, count.rows + 1) if count.schema == "other" else count
        for count in manifest.source_rows
    )
    key = layout.manifest_key(manifest.series, manifest.id)
    here.delete([key])
    here.write_bytes(key, replace(manifest, source_rows=forged).to_json())
    said = r"source: table other\.film: row count mismatch: expected 3 as in the source, found 2"
    with pytest.raises(VerificationFailed, match=said):
        verify(reference=reference, repository=here, level=level)
    assert verification(here)["result"] == "fail"


# Counted in a different way from other tables, or dumped under another name.
UNUSUAL = (
    "create type mood as enum ('sad', 'ok', 'happy')",
    "create table moods (m mood, n int) partition by hash (m)",
    "create table moods_1 partition of moods for values with (modulus 2, remainder 0) partition by range (n)",
    "create table moods_1_a partition of moods_1 for values from (0) to (50)",
    "create table moods_1_b partition of moods_1 for values from (50) to (100)",
    "create table moods_2 partition of moods for values with (modulus 2, remainder 1)",
    "insert into moods select m, n from unnest(enum_range(null::mood)) m, generate_series(0, 99) n",
    "create table plain_hash (a int) partition by hash (a)",
    "create table plain_hash_1 partition of plain_hash for values with (modulus 1, remainder 0)",
    "insert into plain_hash values (1), (2)",
    "create table no_columns ()",
    "insert into no_columns default values",
    "create table generated_only (a int generated always as (7) stored)",
    "insert into generated_only default values",
    'create table "größe\n€" (a int)',
    'insert into "größe\n€" values (1), (2)',
    "create schema other",
    "create table other.moods (a int)",
    "insert into other.moods values (1)",
    "create table of_extension (a int)",
    "insert into of_extension values (1)",
    "alter extension plpgsql add table of_extension",
)
UNUSUAL_ROWS = {
    "public.moods": 300,
    "public.plain_hash_1": 2,
    "public.no_columns": 1,
    "public.generated_only": 1,
    "public.größe\n€": 2,
    "other.moods": 1,
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"format": "plain"},
        {"format": "plain", "column_inserts": True},
        {"inserts": True},
        {"inserts": True, "rows_per_insert": 2},
        {"data_only": True},
        {"sections": ["data"]},
        {"encoding": "WIN1252"},
        {"encoding": "LATIN9", "format": "plain"},
        {"load_via_partition_root": True},
        {"format": "directory", "jobs": 2, "inserts": True},
    ],
    ids=str,
)
def test_no_unusual_table_of_a_sound_dump_is_taken_for_lost(
    options: dict[str, Any],
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
) -> None:
    reference, manifest = dump(fresh_database(server18, None, *UNUSUAL), here, **options)
    rows = dict(UNUSUAL_ROWS)
    if options.get("load_via_partition_root"):
        rows["public.plain_hash"] = rows.pop("public.plain_hash_1")
    assert counted(manifest) == rows
    verify(reference=reference, repository=here)
    detail = f"{len(rows)} tables with the source's rows"
    assert {"name": "source", "result": "pass", "detail": detail} in verification(here)["checks"]


@pytest.mark.parametrize("level", ["archive", "restore"])
def test_an_archive_that_lacks_a_table_of_its_source_fails(
    level: str, database: ConnectionParams, here: Repository
) -> None:
    """As after the loss of an entry of its table of contents."""
    reference, manifest = dump(database, here, exclude_tables=["other.film", "public.empty"])
    assert manifest.source_rows is not None
    whole = (*manifest.source_rows, RowCount("public", "empty", 0), RowCount("other", "film", 2))
    key = layout.manifest_key(manifest.series, manifest.id)
    here.delete([key])
    here.write_bytes(key, replace(manifest, source_rows=whole).to_json())
    said = r"source: table other\.film: row count mismatch: expected 2 as in the source, found no data of the table"
    with pytest.raises(VerificationFailed, match=said):
        verify(reference=reference, repository=here, level=level)
    failed = [check for check in verification(here)["checks"] if check["result"] == "fail"]
    assert len(failed) == 1


@pytest.mark.parametrize("options", [{"snapshot": "00000003-1"}, {"serializable_deferrable": True}])
def test_a_snapshot_of_another(options: dict[str, Any], database: ConnectionParams, here: Repository) -> None:
    with pytest.raises(OptionError, match="count_rows cannot be combined with snapshot"):
        dump(database, here, **options)
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_what_the_selection_shows_is_logged(database: ConnectionParams, here: Repository) -> None:
    lines: list[str] = []
    dump_database(
        connection=database,
        server="s",
        repository=here,
        options=DumpOptions(exclude_tables=["nosuch*"]),
        count_rows=True,
        context=RunContext(log=lines.append),
    )
    (line,) = [line for line in lines if line.startswith("warning: ")]
    assert "nosuch*" in line


def test_a_table_that_stays_locked(database: ConnectionParams, here: Repository) -> None:
    """pg_dump itself fails by then too; which of the two is heard first does not matter."""
    with database.connect(autocommit=False) as session:
        session.execute("lock table film in access exclusive mode")
        with pytest.raises(Exception, match="lock") as caught:
            dump_database(
                connection=database,
                server="s",
                repository=here,
                options=DumpOptions(),
                context=RunContext(settings=Settings(lock_wait_timeout=0.3)),
                count_rows=True,
            )
    assert "\n" not in str(caught.value)
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_a_count_that_fails_first_is_the_cause(
    database: ConnectionParams, here: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its snapshot ends with it, before pg_dump can use it."""
    failed = threading.Event()

    def count(session: psycopg.Connection[Any], *_: object) -> None:
        session.rollback()
        failed.set()
        raise ConnectError("counting rows: canceling statement due to lock timeout")

    with_snapshot = DumpOutput.with_snapshot

    def later(output: DumpOutput, snapshot: str) -> DumpOutput:
        assert failed.wait(120)
        return with_snapshot(output, snapshot)

    monkeypatch.setattr(source_rows, "_count", count)
    monkeypatch.setattr(DumpOutput, "with_snapshot", later)
    with pytest.raises(ConnectError, match="counting rows: canceling statement due to lock timeout"):
        dump(database, here)
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_stopped_while_it_counts(database: ConnectionParams, here: Repository) -> None:
    cancel = Cancel()
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

    def stop() -> None:
        with database.connect() as session:
            while session.execute(waiting).fetchone() == (0,):
                time.sleep(0.05)
        cancel.set()

    with database.connect(autocommit=False) as session, ThreadPoolExecutor(1) as pool:
        session.execute("lock table film in access exclusive mode")
        stopped = pool.submit(stop)
        with pytest.raises((Canceled, ConnectError)):
            dump_database(
                connection=database,
                server="s",
                repository=here,
                options=DumpOptions(),
                context=RunContext(cancel=cancel, settings=Settings(lock_wait_timeout=3600)),
                count_rows=True,
            )
        stopped.result()
    assert [entry.key for entry in here.list()] == ["repository.json"]
