"""diff on real dumps of a real server, in a directory and on a real S3 server: what was changed is what is found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.diff import diff, last_two
from airflow_pgbackup.backup.diff.result import Diff, PropertyChange
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_evidence
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import BackupNotFound, Canceled, ManifestError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

SCHEMA = (
    "create table film (id int primary key, title text)",
    "insert into film select n, 'film ' || n from generate_series(1, 1000) n",
    "create table lost (id int)",
    "insert into lost values (1), (2), (3)",
    "create table same (id int)",
    "insert into same values (1)",
    "create table renamed_rows (id int, t text)",
    "insert into renamed_rows values (1, 'before')",
    'create table "odd ""name; --" (id int)',
    "create table emptied (id int)",
    "insert into emptied select generate_series(1, 50)",
    "create view films as select id from film",
    "create function f() returns int language sql as 'select 1'",
    "create index film_title on film (title)",
)
CHANGES = (
    "drop table lost",
    "create table come (id int)",
    "insert into come values (1), (2)",
    "delete from film where id > 900",
    "truncate emptied",
    "update renamed_rows set t = 'after!'",
    "alter table film add column length int",
    "create or replace function f() returns int language sql as 'select 2'",
    "drop index film_title",
    "alter table same owner to pg_database_owner",
)


@pytest.fixture(params=["directory", "bucket"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    if request.param == "directory":
        made = open_repository(f"file://{tmp_path / 'pg'}")
    else:
        server: S3Server = request.getfixturevalue("s3")
        made = open_repository(f"s3://{server.bucket()}/pg", s3=S3Options(client_factory=server.client))
    made.init()
    return made


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    made = open_repository(f"file://{tmp_path / 'pg'}")
    made.init()
    return made


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, *SCHEMA)


def backup(
    database: ConnectionParams, repository: Repository, *, level: str | None = "archive", **options: Any
) -> Evidence:
    reference = dump_database(connection=database, server="s", repository=repository, options=DumpOptions(**options))
    if level:
        reference = verify(reference=reference, repository=repository, level=level)
    return load_evidence(repository, reference)


def change(database: ConnectionParams, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement)


def run(repository: Repository, before: Evidence, after: Evidence, **options: Any) -> Diff:
    found = diff(repository=repository, before=before, after=after, **options)
    json.dumps(found.as_json(), allow_nan=False)
    return found


def tables(found: Diff) -> list[tuple[str, str, int | None]]:
    return [(one.change, one.name, one.rows_change) for one in found.tables]


def definitions(found: Diff) -> set[tuple[str, str, str]]:
    return {(one.change, one.kind, one.label) for one in found.definitions}


def skipped(found: Diff) -> dict[str, str]:
    return {one.what: one.reason for one in found.not_compared}


@pytest.mark.every_value
@pytest.mark.parametrize("format", ["custom", "directory", "tar"])
def test_what_was_changed_is_what_is_found(repository: Repository, database: ConnectionParams, format: str) -> None:
    before = backup(database, repository, format=format)
    change(database, *CHANGES)
    after = backup(database, repository, format=format)
    found = run(repository, before, after)
    assert tables(found) == [
        ("dropped", "lost", -3),
        ("added", "come", 2),
        ("changed", "film", -100),
        ("changed", "emptied", -50),
        ("changed", "renamed_rows", 0),
    ]
    assert found.tables[-1].content_differs is True
    assert found.tables_unchanged == 2, 'same and odd "name; --"'
    assert definitions(found) == {
        ("dropped", "TABLE", "public.lost"),
        ("dropped", "INDEX", "public.film_title"),
        ("added", "TABLE", "public.come"),
        ("changed", "TABLE", "public.film"),
        ("changed", "TABLE", "public.same"),
        ("changed", "FUNCTION", "public.f()"),
    }
    details = {one.name: one.detail for one in found.definitions}
    assert details["film"] == "+ length integer"
    assert re.fullmatch(r"- owner .*\n\+ owner pg_database_owner", details["same"] or "")
    assert details["f()"] == "1 line changed"
    assert found.definitions_unchanged is not None
    assert found.definitions_unchanged >= 5
    assert (found.properties, found.extensions) == ((), ())
    assert not found.same
    has_sizes = format == "directory"
    assert set(skipped(found)) == (set() if has_sizes else {"bytes by table"})
    assert all((one.bytes_before is None) != has_sizes or one.change == "added" for one in found.tables)
    measures = {one.name: (one.before, one.after) for one in found.measures}
    assert measures["rows"] == (1055, 904)
    assert measures["tables with rows counted"] == (6, 6)
    assert measures["artifact"] == (before.backup.size, after.backup.size)
    assert any("was not checked against a digest" in note for note in found.notes) == (format != "directory")


def test_two_equal_backups(repository: Repository, database: ConnectionParams) -> None:
    before, after = backup(database, repository), backup(database, repository)
    found = run(repository, before, after)
    assert found.same
    assert (found.tables, found.definitions, found.properties) == ((), (), ())
    assert found.tables_unchanged == 6
    assert found.as_json()["same_series"] is True
    ids = sorted([before.backup.id, after.backup.id])  # the time of day, and a random suffix in one second
    assert [evidence.backup.id for evidence in last_two(repository, before.backup.series)] == ids


def test_definitions_of_the_same_words(here: Repository, database: ConnectionParams) -> None:
    change(
        database,
        "CREATE TABLE pair (a int, b int)",
        "CREATE TABLE kept (a int, b int)",
        "CREATE FUNCTION said() RETURNS text LANGUAGE sql AS $$ SELECT 'a\n\nb' $$",
        "CREATE STATISTICS s ON (a - b), a FROM kept",
        "CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler",
    )
    before = backup(database, here)
    assert run(here, before, backup(database, here)).same
    change(
        database,
        "DROP TABLE pair",
        "CREATE TABLE pair (b int, a int)",
        "CREATE OR REPLACE FUNCTION said() RETURNS text LANGUAGE sql AS $$ SELECT 'a\nb' $$",
        "DROP STATISTICS s",
        "CREATE STATISTICS s ON (b - a), a FROM kept",
        "ALTER TABLE kept SET ACCESS METHOD heap2",
    )
    found = run(here, before, backup(database, here))
    assert {one.name: one.detail for one in found.definitions} == {
        "pair": "the order of its columns",
        "said()": "the order of its words, or white space",
        "s": "the order of its words, or white space",
        "kept": "- access method heap\n+ access method heap2",
    }


def test_data_that_is_not_in_tables(here: Repository, database: ConnectionParams) -> None:
    change(database, "CREATE SEQUENCE ticket", "CREATE MATERIALIZED VIEW shelf AS SELECT 1 AS a")
    before = backup(database, here)
    assert run(here, before, before).same
    change(database, "SELECT nextval('ticket'), setval('ticket', 1000)", "REFRESH MATERIALIZED VIEW shelf WITH NO DATA")
    change(database, "SELECT lo_from_bytea(0, 'a')")
    found = run(here, before, backup(database, here))
    assert found.sequences == (PropertyChange("public.ticket", "1, not used yet", "1000"),)
    assert ("dropped", "MATERIALIZED VIEW DATA", "public.shelf") in definitions(found)
    assert skipped(found)["content of large objects"] == "only the data of the artifact shows it"


def test_a_plain_dump_has_rows_but_no_definitions(here: Repository, database: ConnectionParams) -> None:
    before = backup(database, here, format="plain")
    change(database, *CHANGES)
    found = run(here, before, backup(database, here, format="plain", compress="gzip"))
    assert [row[:2] for row in tables(found)] == [
        ("dropped", "lost"),
        ("added", "come"),
        ("changed", "film"),
        ("changed", "emptied"),
        ("changed", "renamed_rows"),
    ]
    assert skipped(found)["definitions"] == "a plain dump has no table of contents"
    assert skipped(found)["locale"] == "a plain dump has no table of contents"
    assert (found.definitions, found.definitions_unchanged) == ((), None)
    names = {one.name for one in found.properties}
    assert {"compression", "option compress"} <= names


def test_a_cluster_s_backup(here: Repository, server18: PostgresServer, database: ConnectionParams) -> None:
    def cluster() -> Evidence:
        reference = dump_cluster(connection=database, server="s", repository=here, options=DumpAllOptions())
        return load_evidence(here, verify(reference=reference, repository=here, level="archive"))

    before = cluster()
    change(database, *CHANGES)
    found = run(here, before, cluster())
    mine = [(one.change, one.name) for one in found.tables if one.database == database.dbname]
    assert mine[:2] == [("dropped", "lost"), ("added", "come")]
    assert found.tables[0].label == f"{database.dbname}.public.lost"
    assert "recorded for backups of single databases only" in skipped(found)["extensions and their versions"]


def test_without_a_verification_tables_come_from_the_table_of_contents(
    here: Repository, database: ConnectionParams
) -> None:
    before = backup(database, here, level=None)
    change(database, *CHANGES)
    after = backup(database, here, level="integrity", compress="none")
    found = run(here, before, after)
    assert tables(found) == [("dropped", "lost", None), ("added", "come", None)]
    ids = f"{before.backup.id} and {after.backup.id}"
    assert skipped(found)["rows by table"] == (f"no verification of level archive or restore of {ids} has counted them")
    assert (found.before.rows_from, found.after.rows_from) == (None, None)
    assert run(here, after, after).same is None


def test_options_extensions_and_versions(
    here: Repository,
    server16: PostgresServer,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
) -> None:
    old = fresh_database(server16, "diffed", *SCHEMA, "create extension vector")
    new = fresh_database(server18, "diffed", *SCHEMA)
    found = run(here, backup(old, here), backup(new, here, no_owner=True))
    changed = {one.name: (one.before, one.after) for one in found.properties}
    before, after = changed["server version"]
    assert before is not None
    assert after is not None
    assert (before.partition(".")[0], after.partition(".")[0]) == ("16", "18")
    assert changed["option no_owner"] == (None, "true")
    assert [(one.name, one.after) for one in found.extensions] == [("vector", None)]
    assert "word the same definition differently" in skipped(found)["text of definitions"]
    assert ("dropped", "EXTENSION", "vector") in definitions(found)
    assert not [one for one in found.definitions if one.change == "changed"]
    assert not found.tables
    assert found.tables_unchanged == 6


def test_two_series(
    here: Repository,
    database: ConnectionParams,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
) -> None:
    other = fresh_database(server18, None, *SCHEMA)
    found = run(here, backup(database, here), backup(other, here))
    assert not found.tables
    assert not found.definitions
    assert found.as_json()["same_series"] is False
    assert found.notes[0].startswith("the backups are of two series, s/")
    assert "definition of the database itself" in skipped(found)
    assert [one.name for one in found.properties] == ["database"]


def test_a_damaged_table_of_contents_is_said(here: Repository, database: ConnectionParams) -> None:
    before, after = backup(database, here, format="directory"), backup(database, here, format="directory")
    path = here.local_path(f"{after.require_manifest().artifact_key}/toc.dat")
    assert path is not None
    data = bytearray(path.read_bytes())
    at = data.index(b"film_title")
    data[at : at + 10] = b"film_TITLE"
    path.write_bytes(data)
    found = run(here, before, after)
    assert "checksum mismatch" in skipped(found)["definitions"]
    assert found.definitions_unchanged is None
    path.write_bytes(data[:100])
    assert "toc.dat has 100 bytes" in skipped(run(here, before, after))["definitions"]
    path.unlink()
    assert skipped(run(here, before, after))["definitions"] == f"the artifact of {after.backup.id} is missing"


@pytest.mark.parametrize("format", ["custom", "tar"])
def test_an_artifact_that_is_something_else(here: Repository, database: ConnectionParams, format: str) -> None:
    before = backup(database, here, format=format)
    path = here.local_path(before.require_manifest().artifact_key)
    assert path is not None
    path.write_bytes(b"x" * path.stat().st_size)
    found = run(here, before, before)
    assert "cannot be read" in skipped(found)["definitions"]
    assert found.tables_unchanged == 6, "the rows are those of the verification"


def test_only_the_head_of_a_large_archive_is_read(
    repository: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(database, "create table large as select repeat(md5(n::text), 100) as t from generate_series(1, 20000) n")
    before = backup(database, repository, level=None, compress="none")
    assert before.backup.size > 50_000_000
    taken: list[int] = []
    open_stream = repository.read

    class Counting:
        def __init__(self, key: str, pin: Any) -> None:
            self._context = open_stream(key, pin=pin)

        def __enter__(self) -> Counting:
            self._stream: BinaryIO = self._context.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self._context.__exit__(*error)

        def read(self, size: int = -1) -> bytes:
            data = self._stream.read(size)
            taken.append(len(data))
            return data

    monkeypatch.setattr(repository, "read", lambda key, pin=None: Counting(key, pin))
    found = run(repository, before, before)
    assert found.definitions_unchanged
    assert sum(taken) < 1_000_000


def test_too_few_backups(here: Repository, database: ConnectionParams) -> None:
    series = Series("s", str(database.dbname))
    with pytest.raises(BackupNotFound, match=r"has 0 backups of .* that can be read; two are needed"):
        last_two(here, series)
    first = backup(database, here, level=None)
    with pytest.raises(BackupNotFound, match=r"has 1 backup of .* that can be read; two are needed"):
        last_two(here, series)
    ids = sorted([first.backup.id, *(backup(database, here, level=None).backup.id for _ in range(2))])
    assert [evidence.backup.id for evidence in last_two(here, series)] == ids[1:]
    assert [evidence.backup.id for evidence in last_two(here, series, before=ids[0])] == [ids[0], ids[2]]
    with pytest.raises(BackupNotFound, match=r"no backup .* before the newest"):
        last_two(here, series, before="20200101T000000Z-abcdef")


def test_a_manifest_that_cannot_be_believed(here: Repository, database: ConnectionParams) -> None:
    good, bad = backup(database, here, level=None), backup(database, here, level=None)
    path = here.local_path(f"{bad.backup.folder}/manifest.json")
    assert path is not None
    path.write_bytes(b"{")
    with pytest.raises(ManifestError):
        diff(repository=here, before=good, after=read_evidence(here, bad.backup.series, bad.backup.id))


def test_ctrl_c(here: Repository, database: ConnectionParams) -> None:
    one = backup(database, here, level=None)
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Canceled):
        diff(repository=here, before=one, after=one, context=RunContext(cancel=cancel))
