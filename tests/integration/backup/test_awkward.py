"""Databases with unusual properties: check, dump, verify and restore fail no valid backup, and pass no invalid one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from awkward import KINDS, Awkward
from builds import BUILDS, Build
from restoring import restored, script_of

from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import NotProven, PgBackupError, ToolError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository


def build_for(kind: Awkward) -> Build | None:
    """The newest build on which there is such a thing; the wheel's lack ICU and the extensions."""
    fitting = [build for build in BUILDS if kind.oldest <= build.major <= kind.newest]
    if kind.extension:
        fitting = [build for build in fitting if build.tls]
    return fitting[-1] if fitting else None


CASES = [
    (name, build, form) for name, kind in KINDS.items() if (build := build_for(kind)) for form in ("custom", "plain")
]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[Build, PostgresServer]]:
    started: dict[Build, PostgresServer] = {}
    with _started(started):
        yield started


class _started:
    def __init__(self, servers: dict[Build, PostgresServer]) -> None:
        self._servers = servers

    def __enter__(self) -> None:
        for build in {build for _, build, _ in CASES}:
            settings = {"max_locks_per_transaction": "64", "max_connections": "40"}
            if build.tls:
                settings["shared_preload_libraries"] = "pg_stat_statements"
            self._servers[build] = PostgresServer(build.bin_dir, settings=settings).__enter__()

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.stop()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = open_repository(f"file://{tmp_path_factory.mktemp('awkward')}/repository")
    made.init()
    return made


@pytest.mark.every_value
@pytest.mark.parametrize(("name", "build", "form"), CASES, ids=lambda value: str(value).replace(" ", "-"))
def test_its_verdict_and_its_restore(
    name: str, build: Build, form: str, servers: dict[Build, PostgresServer], repository: Repository
) -> None:
    kind, server = KINDS[name], servers[build]
    source = database_with(server, kind, f"{name} {form}")
    findings = check(connection=source, server="awkward", context=RunContext(settings=build.settings), scan_rows=True)
    assert tuple(sorted(finding.code for finding in findings)) == kind.found
    reference = dump_database(
        connection=source,
        server="awkward",
        repository=repository,
        options=DumpOptions(format=form, create=form == "plain" and bool(kind.zone)),  # the zone is in the dump
        context=RunContext(settings=build.settings),
    )
    verify(
        reference=reference, repository=repository, context=RunContext(settings=build.settings)
    )  # at level archive: all can be read
    time.sleep(kind.waits)
    verdict, said = rehearsed(reference, repository, build)
    assert verdict.removesuffix(", one job") == kind.verdict_of(form), said
    assert kind.says in said
    for mode, name in (("create", "made"), ("into_empty", "empty"), ("replace", "empty")):
        target = source.with_database(f"{source.dbname} {name}")
        if mode == "into_empty":
            make(server, target.dbname, kind.zone)
        if kind.restores:
            restored(reference, repository, target, mode=mode, settings=build.settings)
            if not kind.rewritten:
                assert script_of(server, target) == script_of(server, source)
        else:
            with pytest.raises(ToolError):
                restored(reference, repository, target, mode=mode, settings=build.settings)


def make(server: PostgresServer, name: str, zone: str) -> None:
    with server.params.connect() as session:
        session.execute(f'create database "{name}" template template0'.encode())
        if zone:
            session.execute(f"alter database \"{name}\" set timezone to '{zone}'".encode())


def database_with(server: PostgresServer, kind: Awkward, name: str) -> ConnectionParams:
    make(server, name, kind.zone)
    source = server.params.with_database(name)
    with source.connect() as session:
        for statement in kind.statements:
            session.execute(statement.encode())
    return source


def rehearsed(reference: dict[str, object], repository: Repository, build: Build) -> tuple[str, str]:
    """The verdict, and what was said of it."""
    log: list[str] = []
    common: dict[str, Any] = {"reference": reference, "repository": repository}
    try:
        verify(**common, level="restore", context=RunContext(settings=build.settings, log=log.append))
    except (VerificationFailed, NotProven) as error:
        return ("fail" if isinstance(error, VerificationFailed) else "notproven"), str(error)
    except PgBackupError as error:
        return type(error).__name__, str(error)
    said = "\n".join(log)
    return ("pass, one job" if "with one job" in said else "pass"), said


def test_a_restore_that_needs_the_archive_order_falls_back_to_one_job(
    servers: dict[Build, PostgresServer], repository: Repository
) -> None:
    """Of a directory pg_restore knows how large each table is, and begins with y and z, which read a."""
    build = BUILDS[-1]
    server = servers[build]
    source = database_with(server, KINDS["check that reads another table"], "in order only")
    reference = dump_database(
        connection=source,
        server="awkward",
        repository=repository,
        options=DumpOptions(format="directory"),
        context=RunContext(settings=build.settings),
    )
    verdict, said = rehearsed(reference, repository, build)
    assert verdict == "pass, one job", said
    target = source.with_database("in order only again")
    common: dict[str, Any] = {"mode": "create", "settings": build.settings}
    result = restored(reference, repository, target, options={"jobs": 2}, **common)
    assert [
        line
        for line in result["warnings"]
        if line.startswith("restoring again with one job, because several jobs failed: ")
    ]
    assert script_of(server, target) == script_of(server, source)
