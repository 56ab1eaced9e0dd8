"""Two servers write the same series: the dump warns, and succeeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import MANIFEST_FILE

Dump = Callable[[ConnectionParams, Repository, RunContext], dict[str, object]]


@pytest.fixture(autouse=True)
def a_dump_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups that start in one second have no order."""
    minutes = count()

    class Clock:
        def __init__(self) -> None:
            self.started_at = datetime(2026, 11, 28, 2, tzinfo=timezone.utc) + timedelta(minutes=next(minutes))

        def stop(self) -> tuple[datetime, float]:
            return self.started_at, 1.0

    monkeypatch.setattr("airflow_pgbackup.backup.dump.Stopwatch", Clock)


@pytest.fixture(scope="module")
def other_server() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), password="secret", tcp=True) as server:
        yield server


@pytest.fixture
def one(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, "app", "create table here (a int)")


@pytest.fixture
def other(other_server: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(other_server, "app", "create table there (a int)")


def dump(connection: ConnectionParams, repository: Repository, context: RunContext) -> dict[str, object]:
    options = DumpOptions()
    return dump_database(connection=connection, server="main", repository=repository, options=options, context=context)


def dump_globals(connection: ConnectionParams, repository: Repository, context: RunContext) -> dict[str, object]:
    options = DumpAllOptions(globals_only=True)
    return dump_cluster(connection=connection, server="main", repository=repository, options=options, context=context)


class Dumps:
    """Dumps into one repository, each by a task of its own. :ivar log: of the last one."""

    def __init__(self, repository: Repository, make: Dump = dump) -> None:
        self.repository, self.make = repository, make
        self.log: list[str] = []
        self.made: list[dict[str, object]] = []

    def add(self, connection: ConnectionParams, *, seeded: bool = True) -> dict[str, object]:
        self.log.clear()
        seed = f"run {len(self.made)}" if seeded else None
        self.made.append(self.make(connection, self.repository, RunContext(seed=seed, log=self.log.append)))
        assert self.repository.stat(f"{self.folder()}/{MANIFEST_FILE}")
        return self.made[-1]

    def folder(self, number: int = -1) -> str:
        return "{series}/{id}".format(**self.made[number])

    def manifest(self, number: int = -1) -> Any:
        return json.loads(self.repository.read_bytes(f"{self.folder(number)}/{MANIFEST_FILE}"))

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.log if line.startswith("warning: ")]


def identifier(connection: ConnectionParams) -> str:
    with connection.connect() as session:
        row = session.execute("select system_identifier::text from pg_control_system()").fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.parametrize("seeded", [True, False], ids=["task", "command line"])
@pytest.mark.parametrize("make", [dump, dump_globals])
def test_another_server_s_newest_backup_is_a_warning(
    make: Dump, seeded: bool, here: Repository, one: ConnectionParams, other: ConnectionParams
) -> None:
    dumps = Dumps(here, make)
    for connection in (one, one):
        dumps.add(connection, seeded=seeded)
        assert dumps.warnings == []
        assert dumps.manifest()["source"]["system_identifier"] == identifier(connection)
    for connection, before in ((other, one), (one, other)):
        dumps.add(connection, seeded=seeded)
        (warning,) = dumps.warnings
        assert str(dumps.made[-2]["id"]) in warning
        assert f"has system identifier {identifier(before)}" in warning
        assert f"has {identifier(connection)}" in warning
        hint = dumps.log[dumps.log.index(warning) + 1]
        assert hint.startswith("hint: ")
        assert "repository, prefix or server" in hint
    dumps.add(one, seeded=seeded)
    assert dumps.warnings == [], "as after a migration: once"


def test_a_role_that_may_not_read_the_system_identifier(
    here: Repository, one: ConnectionParams, other: ConnectionParams
) -> None:
    dumps = Dumps(here)
    dumps.add(one)
    with other.connect() as session:
        session.execute("revoke execute on function pg_control_system() from public")
        session.execute("create role limited login password 'secret'")
        session.execute("grant pg_read_all_data to limited")
    limited = ConnectionParams({**other.keywords, "user": "limited", "password": "secret"})
    dumps.add(limited)
    assert dumps.warnings == []
    assert dumps.manifest()["source"]["system_identifier"] is None


def test_a_newest_backup_of_an_unknown_server(
    here: Repository, one: ConnectionParams, other: ConnectionParams, tmp_path: Path
) -> None:
    dumps = Dumps(here)
    dumps.add(one)
    path = tmp_path / "repository" / dumps.folder() / MANIFEST_FILE
    content = dumps.manifest()
    content["format_version"] = "1.4"
    del content["source"]["system_identifier"]
    path.write_text(json.dumps(content))
    dumps.add(other)
    assert dumps.warnings == []


def test_what_a_killed_dump_left_is_not_the_newest_backup(
    here: Repository, one: ConnectionParams, other: ConnectionParams, tmp_path: Path
) -> None:
    dumps = Dumps(here)
    dumps.add(one)
    (tmp_path / "repository" / "main" / "app" / "99991122T020000Z-3f9ac1" / "00c0ffee").mkdir(parents=True)
    dumps.add(other)
    assert len(dumps.warnings) == 1


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff"], ids=["empty", "schema", "bytes"])
def test_a_damaged_newest_manifest_fails_no_dump(
    data: bytes, here: Repository, one: ConnectionParams, tmp_path: Path
) -> None:
    dumps = Dumps(here)
    dumps.add(one)
    (tmp_path / "repository" / dumps.folder() / MANIFEST_FILE).write_bytes(data)
    dumps.add(one)
    assert dumps.warnings == []


def test_a_store_that_does_not_list_fails_no_dump(
    here: Repository, one: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folders(prefix: str = "") -> Any:
        raise RepositoryError("no answer")

    monkeypatch.setattr(here, "folders", folders)
    dumps = Dumps(here)
    dumps.add(one, seeded=False)
    assert dumps.warnings == []


def test_it_costs_a_task_one_read(here: Repository, one: ConnectionParams, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = Dumps(here)
    dumps.add(one)
    listed: list[str] = []
    read: list[str] = []
    folders, read_bytes = here.folders, here.read_bytes

    def counted_folders(prefix: str = "") -> Any:
        listed.append(prefix)
        return folders(prefix)

    def counted_read(key: str, **more: Any) -> bytes:
        read.append(key)
        return read_bytes(key, **more)

    monkeypatch.setattr(here, "folders", counted_folders)
    monkeypatch.setattr(here, "read_bytes", counted_read)
    dumps.add(one)
    assert listed == ["main/app"]
    assert read.count(f"{dumps.folder(0)}/{MANIFEST_FILE}") == 1
