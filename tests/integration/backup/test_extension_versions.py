"""A restore makes the extensions of its server, which may be of other versions than those that were dumped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

OLD = "0.1.0"
SOUND = (
    "create extension vector",
    "create table film (film_id int, v vector(2))",
    "insert into film values (1, '[1,2]')",
)
# A constraint whose function finds another one by search_path only, which a restore empties.
UNSOUND = (
    *SOUND,
    "create function one(int) returns int language sql immutable as 'select $1'",
    "create function two(int) returns int language plpgsql immutable as 'begin return one($1); end'",
    "alter table film add check (two(film_id) > 0)",
)

Made = Callable[..., ConnectionParams]


def dumped(connection: ConnectionParams, repository: Repository, format: str = "custom") -> dict[str, object]:
    options = DumpOptions(format=format)
    return dump_database(connection=connection, server="s", repository=repository, options=options)


def manifest_file(repository: Repository) -> Path:
    (key,) = [entry.key for entry in repository.list() if entry.key.endswith("/manifest.json")]
    path = repository.local_path(key)
    assert path is not None
    return path


def recorded(repository: Repository) -> Any:
    return json.loads(manifest_file(repository).read_text())["source"]["extensions"]


def made_old(repository: Repository) -> str:
    """As if the source had had an old version; the line that says so."""
    content = json.loads(manifest_file(repository).read_text())
    version = content["source"]["extensions"]["vector"]
    content["source"]["extensions"]["vector"] = OLD
    manifest_file(repository).write_text(json.dumps(content))
    return f"extension vector: version {OLD} in the backup, {version} on the server"


def notes(repository: Repository) -> list[str]:
    (key,) = [entry.key for entry in repository.list() if "-restore-pass" in entry.key]
    return [check["detail"] for check in json.loads(repository.read_bytes(key))["checks"] if check["name"] == "note"]


def test_the_manifest_has_the_versions(server18: PostgresServer, fresh_database: Made, here: Repository) -> None:
    database = fresh_database(server18, None, *SOUND)
    dumped(database, here)
    with database.connect() as session:
        installed: dict[Any, Any] = dict(session.execute("select extname, extversion from pg_extension").fetchall())
    assert recorded(here) == installed
    assert set(installed) == {"plpgsql", "vector"}


def test_a_cluster_has_none(server18: PostgresServer, here: Repository) -> None:
    options = DumpAllOptions(globals_only=True)
    dump_cluster(connection=server18.params, server="s", repository=here, options=options)
    assert recorded(here) is None


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_another_version_is_reported(
    server18: PostgresServer, fresh_database: Made, here: Repository, format: str
) -> None:
    reference = dumped(fresh_database(server18, None, *SOUND), here, format)
    target = RestoreTarget(connection=fresh_database(server18, None), mode="into_empty")
    plan: Any = restore(reference=reference, repository=here, target=target, dry_run=True)["plan"]
    assert not [line for line in plan if line.startswith("extension ")]
    line = made_old(here)
    done = restore(reference=reference, repository=here, target=target)
    assert line in done["plan"]  # type: ignore[operator]
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
    assert line in notes(here)


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_what_is_undefined_may_be_of_another_version(
    server18: PostgresServer, fresh_database: Made, here: Repository, format: str
) -> None:
    reference = dumped(fresh_database(server18, None, *UNSOUND), here, format)
    with pytest.raises(VerificationFailed, match=r"function one\(integer\) does not exist"):
        verify(reference=reference, repository=here, level="restore")
    line = made_old(here)
    with pytest.raises(NotProven) as caught:
        verify(reference=reference, repository=here, level="restore")
    assert line in caught.value.message
    assert "function one(integer) does not exist" in caught.value.message
    assert "scratch" in (caught.value.hint or "")
