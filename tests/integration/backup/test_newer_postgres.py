"""A client of an unknown, newer PostgreSQL: its version and archive version are faked, its work is done by 18."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from newer_client import NEWER, newer_client

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ArchiveVersionError, OptionError, VerificationFailed
from airflow_pgbackup.postgres.archive.reader import ArchiveReader
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools import clients
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.settings import Settings


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(
        server18,
        None,
        "create table film (id int primary key, note text)",
        "insert into film select n, E'line\\nbreak ' || n from generate_series(1, 1000) n",
        "create function f() returns text language sql as $$ select 'COPY x FROM stdin;' $$",
        "select lo_from_bytea(0, 'x')",
    )


@pytest.fixture
def only_newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., RunContext]:
    """A worker with the faked client only. Returns a context whose log is ``lines``."""
    bin_dir = postgres_bin_dir(18)
    monkeypatch.setattr(clients, "WELL_KNOWN", ())

    def make(lines: list[str], **more: Any) -> RunContext:
        directory = newer_client(tmp_path / "newer", bin_dir, **more)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        return RunContext(log=lines.append, settings=Settings(client_dirs=(str(directory),)))

    return make


def dump(database: ConnectionParams, here: Repository, context: RunContext, **options: Any) -> dict[str, object]:
    return dump_database(
        connection=database, server="db", repository=here, options=DumpOptions(**options), context=context
    )


def test_a_newer_client_compresses_itself_and_its_options_are_asked_for(
    database: ConnectionParams, here: Repository, only_newer: Callable[..., RunContext]
) -> None:
    context = only_newer([], without=["--no-comments"])
    reference = dump(database, here, context)
    manifest: Any = json.loads(here.read_bytes(f"{reference['series']}/{reference['id']}/manifest.json"))
    assert manifest["client"]["version"] == "19.1"
    assert manifest["artifact"]["compression"]["by"] == "pg_dump"
    assert verify(reference=reference, repository=here, level="archive", context=context)["verified"] == "archive"

    with pytest.raises(OptionError, match=r"pg_dump 19\.1 \(.*\) has no option --no-comments, by its --help") as error:
        dump(database, here, context, no_comments=True)
    assert "versions 15 to 18" in (error.value.hint or "")


@pytest.mark.parametrize("format", ["custom", "tar"])
def test_an_unknown_archive_version_is_left_to_pg_restore(
    database: ConnectionParams, here: Repository, only_newer: Callable[..., RunContext], format: str
) -> None:
    lines: list[str] = []
    context = only_newer(lines, archive_version=NEWER if format == "custom" else 0)
    reference = dump(database, here, context, format=format)
    if format == "custom":
        assert here.read_bytes(str(reference["key"]))[:7] == b"PGDMP\x01" + bytes([NEWER])
    assert verify(reference=reference, repository=here, level="archive", context=context)["verified"] == "archive"
    (result,) = [json.loads(here.read_bytes(e.key)) for e in here.list("db") if "/verification-" in e.key]
    assert [(table["name"], table["rows"]) for table in result["tables"]] == [("film", 1000)]
    said = "warning: the archive has archive version 1.17, supported are 1.10 to 1.16: only pg_restore 19.1 reads it"
    assert (said in lines) == (format == "custom")


def test_a_truncated_archive_of_an_unknown_version_fails(
    database: ConnectionParams, here: Repository, only_newer: Callable[..., RunContext]
) -> None:
    context = only_newer([], archive_version=NEWER)
    whole = here.read_bytes(str(dump(database, here, context)["key"]))
    client = clients.find_clients(context.settings.client_dirs)[0]
    assert client.major == 19
    for size in (len(whole) - 1, len(whole) // 2, 100):
        reader = ArchiveReader(io.BytesIO(whole[:size]), format="custom", client=client, deadline=600)
        with pytest.raises(VerificationFailed):
            reader.digest()


def test_a_directory_of_an_unknown_version_is_dumped_and_not_verified(
    database: ConnectionParams, here: Repository, only_newer: Callable[..., RunContext]
) -> None:
    lines: list[str] = []
    context = only_newer(lines, archive_version=NEWER)
    reference = dump(database, here, context, format="directory")
    said = "warning: toc.dat has archive version 1.17, supported are 1.10 to 1.16: only pg_dump 19.1 has checked it"
    assert said in lines
    with pytest.raises(ArchiveVersionError, match=r"archive version 1\.17, supported are") as error:
        verify(reference=reference, repository=here, level="archive", context=context)
    assert "'pgbackup show'" in (error.value.hint or "")
    assert not [entry for entry in here.list("db") if "/verification-" in entry.key], "nothing is known, so no verdict"


def test_a_pg_restore_that_is_too_old_for_the_archive_condemns_nothing(
    database: ConnectionParams, here: Repository, only_newer: Callable[..., RunContext]
) -> None:
    context = only_newer([], archive_version=NEWER, old_pg_restore=True)
    reference = dump(database, here, context)
    with pytest.raises(ArchiveVersionError, match=r"pg_restore 19\.1 \(.*\) does not know archive version 1\.17"):
        verify(reference=reference, repository=here, level="archive", context=context)
    assert not [entry for entry in here.list("db") if "/verification-" in entry.key]
