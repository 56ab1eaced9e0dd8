"""A restore computes days in the time zone of its target, as pg_restore does, and a rehearsal in that of the source."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from awkward import KINDS
from psycopg import sql
from rehearsals import rehearse_on
from restoring import backup, backup_cluster, fresh_server, restored, script_of, value

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.new_database import warn_of_time_zone
from airflow_pgbackup.backup.source import describe_source
from airflow_pgbackup.backup.sql_checks import SqlCheck
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.settings import Settings

TO_DAY = "create function to_day(timestamptz) returns date immutable language sql return $1::date"
# Midnight of January 1 in Berlin is December 31 in UTC.
GENERATED = (
    TO_DAY,
    "create table visit (at timestamptz, day date generated always as (to_day(at)) stored)",
    "insert into visit values ('2024-01-01 00:00+01')",
    "create materialized view days as select at::date as day from visit",
)
CHECKED = (
    *GENERATED,
    "create table midnight (d timestamptz check (d = date_trunc('day', d)))",
    "insert into midnight values ('2024-01-01 00:00+01')",
    "create table once (at timestamptz)",
    "create unique index on once (to_day(at))",
    "insert into once values ('2024-01-01 00:30+01'), ('2023-12-31 12:00+01')",
)
DAYS = "select array[(select day from visit), (select day from days)]::text"
BERLIN = "{2024-01-01,2024-01-01}"
IN_BERLIN = SqlCheck("the zone", "select current_setting('TimeZone') = 'Europe/Berlin'")


@pytest.fixture(scope="module")
def berlin() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), settings={"timezone": "Europe/Berlin"}) as server:
        yield server


@pytest.fixture
def source(berlin: PostgresServer) -> Iterator[ConnectionParams]:
    with database(berlin, "source", *CHECKED) as made:
        yield made


@contextmanager
def database(server: PostgresServer, name: str, *statements: str, zone: str = "") -> Iterator[ConnectionParams]:
    made, quoted = server.params.with_database(name), sql.Identifier(name)
    with server.params.connect() as session:
        session.execute(sql.SQL("create database {} template template0").format(quoted))
        if zone:
            session.execute(sql.SQL("alter database {} set timezone to {}").format(quoted, sql.Literal(zone)))
    with made.connect() as session:
        for statement in statements:
            session.execute(statement.encode())
    try:
        yield made
    finally:
        with server.params.connect() as session:
            for each in (name, "target"):
                session.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(each)))


@pytest.mark.parametrize("mode", ["create", "into_empty", "into_existing"])
@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_restore_computes_in_the_zone_of_the_server(
    form: str, mode: str, berlin: PostgresServer, source: ConnectionParams, here: Repository
) -> None:
    reference, target = backup(source, here, format=form), source.with_database("target")
    if mode != "create":
        with berlin.params.connect() as session:
            session.execute("create database target template template0")
    restored(reference, here, target, mode=mode)
    assert value(target, DAYS) == BERLIN
    assert script_of(berlin, target) == script_of(berlin, source)


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_restore_computes_in_the_zone_of_the_database(form: str, server18: PostgresServer, here: Repository) -> None:
    with database(server18, "zoned", *CHECKED, zone="Europe/Berlin") as source:
        target = source.with_database("target")
        reference = backup(source, here, format=form, create=form == "plain")
        assert load_manifest(here, reference).source.time_zone == "Europe/Berlin"
        run = restored(reference, here, target, mode="create")
        assert not [line for line in run["warnings"] if "time zone" in line]
        assert value(target, DAYS) == BERLIN
        restored(reference, here, target, mode="replace", target={"keep_old": False})
        assert value(target, DAYS) == BERLIN


@pytest.mark.parametrize(
    ("zone", "source", "warned"),
    [
        ("UTC", "Europe/Berlin", True),
        ("Europe/Oslo", "Europe/Berlin", False),
        ("Etc/GMT-1", "CET", True),  # which is the name of a zone, and an abbreviation
        ("UTC", "Moon/Tycho", True),
    ],
)
def test_a_restore_into_another_zone_warns(
    zone: str, source: str, warned: bool, server18: PostgresServer, here: Repository
) -> None:
    with database(server18, "target", *GENERATED, zone=zone) as target:
        run = RestoreContext(Settings(), print, Cancel())
        warn_of_time_zone(run, target, source)
        assert [f"the time zone here is {zone}, but {source} in the source" in line for line in run.warnings] == (
            [True] * warned
        )


def test_an_existing_database_gets_its_settings_before_its_rows(server18: PostgresServer, here: Repository) -> None:
    """As restore_set does with a database that every server has."""
    with database(server18, "zoned", *CHECKED, zone="Europe/Berlin") as source:
        reference = backup(source, here)
        with database(server18, "target") as target:
            restored(reference, here, target, target={"with_properties": True})
            assert value(target, DAYS) == BERLIN


def test_restored_tables_pass_their_checks_in_the_zone_of_the_target(
    server18: PostgresServer, here: Repository
) -> None:
    with database(server18, "live", *CHECKED, zone="Europe/Berlin") as source:
        reference = backup(source, here, format="plain")
        tables = {"tables": ["midnight", "visit"], "schemas": ["public"]}
        restored(reference, here, source, mode="into_existing", options=tables, target={"into_schema": "old"})
        assert value(source, "select day::text from old.visit") == "2024-01-01"
        with source.connect() as session:
            session.execute("alter database live set timezone to 'Europe/Paris'")  # another one until 1980
        tables["tables"] = ["visit"]
        run = restored(reference, here, source, mode="into_existing", options=tables, target={"into_schema": "paris"})
        assert any("time zone here is Europe/Paris, but Europe/Berlin in" in line for line in run["warnings"])


def test_a_refresh_computes_in_the_zone_of_its_target(
    server18: PostgresServer, source: ConnectionParams, here: Repository
) -> None:
    reference = backup(source, here)
    verify(reference=reference, repository=here, level="archive")
    with database(server18, "staging", zone="Europe/Berlin") as staging:
        refresh(reference=reference, repository=here, target=staging, keep=0)
        assert value(staging, DAYS) == BERLIN


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_rehearsal_computes_in_the_zone_of_the_source(form: str, source: ConnectionParams, here: Repository) -> None:
    reference = backup(source, here, format=form)
    verify(reference=reference, repository=here, level="restore", checks=[IN_BERLIN])


def test_a_rehearsal_on_a_scratch_server_does_too(
    source: ConnectionParams, server18: PostgresServer, here: Repository
) -> None:
    reference = backup(source, here)
    verify(reference=reference, repository=here, level="restore", scratch=server18.params, checks=[IN_BERLIN])
    assert value(server18.params, "select current_setting('TimeZone')") == "UTC"


def test_a_cluster_comes_back_in_the_zones_of_its_databases(berlin: PostgresServer, here: Repository) -> None:
    with fresh_server(18, settings={"timezone": "Europe/Paris"}, superuser=berlin.superuser) as server:
        midnight = "2024-01-01 00:00+14"
        far = [each.replace("2024-01-01 00:00+01", midnight) for each in GENERATED]
        with (
            database(berlin, "target", *CHECKED) as source,
            database(berlin, "far", *far, zone="Pacific/Kiritimati") as other,
        ):
            reference = backup_cluster(berlin.params, here)
            assert load_manifest(here, reference).source.time_zone == "Europe/Berlin"
            verify(reference=reference, repository=here, level="restore")
            run = restored(reference, here, server.params)
            assert sum("time zone here is Europe/Paris, but Europe/Berlin" in line for line in run["warnings"]) == 1
            for name in (source.dbname, other.dbname):
                assert value(server.params.with_database(name), DAYS) == BERLIN


def test_the_zone_of_a_role_or_a_client_is_not_that_of_the_database(
    berlin: PostgresServer, source: ConnectionParams
) -> None:
    assert describe_source(source).time_zone == "Europe/Berlin"
    keywords = {**source.keywords, "options": "-c TimeZone=Asia/Tokyo"}
    assert describe_source(replace(source, keywords=keywords)).time_zone is None
    with berlin.params.connect() as session:
        session.execute("alter database source set timezone to 'Asia/Kathmandu'")
        session.execute("create role tokyo login superuser")
        session.execute("alter role tokyo set timezone to 'Asia/Tokyo'")
    assert describe_source(replace(source, keywords={**keywords, "user": "tokyo"})).time_zone == "Asia/Kathmandu"


@pytest.mark.parametrize(
    ("zone", "says", "table", "other"),
    [
        (None, "the time zone of the source is unknown", "midnight", "once"),
        ("Moon/Tycho", "lacks the source's time zone Moon/Tycho", "once", "midnight"),
    ],
)
def test_a_rehearsal_in_another_zone_fails_no_backup(
    zone: str | None, says: str, table: str, other: str, source: ConnectionParams, here: Repository
) -> None:
    manifest = load_manifest(here, backup(source, here, exclude_tables=[other]))
    manifest = replace(manifest, source=replace(manifest.source, time_zone=zone))
    with pytest.raises(NotProven, match=f"{says}, so a function may .*{table}"):
        rehearse_on(None, manifest, here)


def adopted(source: ConnectionParams, form: str, server: PostgresServer, here: Repository, directory: Path) -> Any:
    """Adopt a dump that was made in the server's time zone, and return its reference."""
    made = directory / "made.dump"
    with client_environment(source, restoring=True) as env:
        subprocess.run([server.bin_dir / "pg_dump", f"--format={form}", f"--file={made}"], env=env, check=True)
    done: Any = adopt(repository=here, sources=[made], server="old", database="made")
    return done["adopted"][0]


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_an_adopted_dump_that_wrote_another_zone_is_not_proven(
    form: str, berlin: PostgresServer, fresh_database: Any, here: Repository, tmp_path: Path
) -> None:
    source = fresh_database(
        berlin,
        None,
        "create table event (at tstzrange[])",
        "insert into event values (array[tstzrange('2024-01-01 00:00+01', null)])",
    )
    reference = adopted(source, form, berlin, here, tmp_path)
    with pytest.raises(NotProven, match=r"event: 1 row, some of which differ, perhaps because of .* time zone"):
        verify(reference=reference, repository=here, level="restore")


def test_the_bounds_of_partitions_by_time_in_an_adopted_dump_are_not_proven(
    berlin: PostgresServer, fresh_database: Any, here: Repository, tmp_path: Path
) -> None:
    source = fresh_database(
        berlin,
        None,
        "create table event (at timestamptz default '2024-01-01 00:00+01') partition by range (at)",
        "create table event_1 partition of event for values from ('2024-01-01 00:00+01') to ('2025-01-01 00:00+01')",
    )
    reference = adopted(source, "custom", berlin, here, tmp_path)
    with pytest.raises(NotProven, match=r"perhaps because of .* time zone"):
        verify(reference=reference, repository=here, level="restore")


def test_a_duplicate_that_no_zone_explains_still_fails(
    berlin: PostgresServer, fresh_database: Any, here: Repository
) -> None:
    statements = next(kind for kind in KINDS.values() if kind.what == "duplicates in a corrupt unique index").statements
    manifest = load_manifest(here, backup(fresh_database(berlin, None, *statements), here))
    with pytest.raises(VerificationFailed, match=r"duplicated|unique"):
        rehearse_on(None, replace(manifest, source=replace(manifest.source, time_zone=None)), here)
