"""Managed services: a real PostgreSQL with the names and the restrictions of one. The services were not tried."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import sql

from airflow_pgbackup.backup.check.run import check
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.managed_service import SERVICES, ManagedService, recognize_service
from airflow_pgbackup.backup.databases.server_limits import read_limits
from airflow_pgbackup.backup.dump import dump_cluster
from airflow_pgbackup.backup.sets.discover import discover
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.backup_set import Absent
from airflow_pgbackup.repository.base import Repository


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), settings={"allow_system_table_mods": "on"}) as server:
        yield server


def disguise(server: PostgresServer, service: ManagedService, *kinds: str) -> ConnectionParams:
    """Make a server look like one of a service. :return: the connection of a user as the service gives it."""
    with server.params.connect() as session:
        for mark in sorted(service.marks):
            kind, _, name = mark.partition(" ")
            if kinds and kind not in kinds:
                continue
            if kind == "role":
                session.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
            elif kind == "database":
                session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
                session.execute(sql.SQL("revoke connect on database {} from public").format(sql.Identifier(name)))
            elif kind == "function":
                session.execute(
                    sql.SQL("create function pg_catalog.{}() returns text return '1'").format(sql.Identifier(name))
                )
            else:
                session.execute(sql.SQL("alter database postgres set {} to 'x'").format(sql.SQL(name)))
        session.execute("create role customer login createrole createdb")
        session.execute("create database app owner customer")
    return ConnectionParams({**server.params.keywords, "user": "customer"})


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_each_service_is_recognized(server: PostgresServer, service: ManagedService) -> None:
    with disguise(server, service).connect() as session:
        assert recognize_service(session) == service
        limits = read_limits(session)
    assert sorted(limits.service_databases) == sorted(service.databases)
    assert sorted(limits.service_roles) == sorted(service.roles)
    assert not limits.role_passwords


def test_a_set_is_complete_though_the_service_lets_everybody_connect_to_its_own_database(
    server: PostgresServer,
) -> None:
    (service,) = [one for one in SERVICES if one.name == "Google Cloud SQL for PostgreSQL"]
    customer = disguise(server, service)
    with server.params.connect() as session:
        session.execute("grant connect on database cloudsqladmin to public")
    found = discover(connection=customer)
    assert {each.name for each in found.databases} == {"app", "postgres"}
    assert found.missing == ()
    assert Absent("cloudsqladmin", f"it is internal to {service.name}") in found.left_out
    found = discover(connection=customer, databases=["cloudsqladmin"])
    assert [each.name for each in found.databases] == ["cloudsqladmin"]


def test_one_name_makes_no_service(server: PostgresServer) -> None:
    with server.params.connect() as session:
        assert recognize_service(session) is None
        session.execute("create role rds_superuser")
        assert recognize_service(session) is None
        assert read_limits(session).left_out() == []


@pytest.mark.parametrize("name", ["Amazon RDS for PostgreSQL", "Azure Database for PostgreSQL"])
def test_a_cluster_dump_lists_what_the_service_keeps(server: PostgresServer, here: Repository, name: str) -> None:
    (service,) = [one for one in SERVICES if one.name == name]
    customer = disguise(server, service)
    found = {one.code: one for one in check(connection=customer, server="db", options=DumpAllOptions())}
    assert found["managed_service"].severity == "warning"
    assert {"role_passwords", "database_connect", "superuser_only"}.isdisjoint(found)
    for database in service.databases:
        assert f"database {database} (belongs to {name})" in found["managed_service"].objects

    lines: list[str] = []
    reference = dump_cluster(
        connection=customer,
        server="db",
        repository=here,
        options=DumpAllOptions(),
        context=RunContext(log=lines.append),
    )
    manifest: Any = json.loads(here.read_bytes(f"db/@cluster/{reference['id']}/manifest.json"))
    kept = [f"database {database} (belongs to {name})" for database in sorted(service.databases)]
    kept.append(f"role passwords ({name} lets no user read them)")
    assert manifest["left_out"] == [*kept, "settings of database postgres"]  # which the disguise has made
    assert [line.removeprefix("left out: ") for line in lines if line.startswith("left out: ")] == kept
    assert manifest["source"]["service"] == name
    (roles,) = [line for line in lines if line.startswith("roles of the service are in the dump; drop them after")]
    assert roles.endswith(", ".join(sorted(service.roles)))
    assert manifest["options"]["no_role_passwords"] is True
    assert verify(reference=reference, repository=here, level="archive")["verified"] == "archive"
    script = here.read_bytes(str(reference["key"])).decode()
    assert "CREATE DATABASE app" in script
    assert "CREATE ROLE customer" in script
    assert not any(f"CREATE DATABASE {database}" in script for database in service.databases)


def test_globals_and_tablespaces_of_a_service(server: PostgresServer, here: Repository) -> None:
    (service,) = [one for one in SERVICES if one.name == "Amazon RDS for PostgreSQL"]
    customer = disguise(server, service)
    for options, kept in (
        (DumpAllOptions(roles_only=True), ["role passwords (Amazon RDS for PostgreSQL lets no user read them)"]),
        (DumpAllOptions(tablespaces_only=True), []),
    ):
        reference = dump_cluster(connection=customer, server="db", repository=here, options=options)
        manifest: Any = json.loads(here.read_bytes(f"{reference['series']}/{reference['id']}/manifest.json"))
        assert (manifest["left_out"] or []) == kept


def test_an_ordinary_server_is_dumped_as_before(
    server18: PostgresServer, here: Repository, fresh_database: Callable[..., ConnectionParams]
) -> None:
    fresh_database(server18)
    options = DumpAllOptions(globals_only=True)
    reference = dump_cluster(connection=server18.params, server="db", repository=here, options=options)
    manifest: Any = json.loads(here.read_bytes(f"{reference['series']}/{reference['id']}/manifest.json"))
    assert (manifest["left_out"], manifest["source"]["service"]) == (None, None)
    assert manifest["options"] == {"globals_only": True}


def test_extensions_that_exist_on_one_service_only() -> None:
    (service,) = [one for one in SERVICES if one.name == "Amazon Aurora PostgreSQL"]
    assert service.only_there({"plpgsql": "1.0", "aws_s3": "1.2", "apg_plan_mgmt": "2"}) == ["apg_plan_mgmt", "aws_s3"]
