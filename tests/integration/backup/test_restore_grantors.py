"""restore: grants that a role with the grant option made have that role as their grantor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import BUILDS, Build, each
from restoring import local, restored

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.restore.run import GlobalsBackup
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

MAJORS = each([build for build in BUILDS if build.major in (15, 17, 18)])
DATABASE = (
    'create database "an app"',
    'revoke temporary on database "an app" from public',
    'grant connect, create on database "an app" to weak with grant option',
    "set session authorization weak",
    'grant connect on database "an app" to "a ""grantee""" with grant option',
    'grant create on database "an app" to "a ""grantee"""',
    'set session authorization "a ""grantee"""',
    'grant connect on database "an app" to public',
    "reset session authorization",
)
PARAMETER = (
    "grant set, alter system on parameter work_mem to weak with grant option",
    "set session authorization weak",
    'grant set on parameter work_mem to "a ""grantee"""',
)
TABLESPACE = (
    "set allow_in_place_tablespaces = on",
    "create tablespace fast location ''",
    "grant create on tablespace fast to weak with grant option",
    "set session authorization weak",
    'grant create on tablespace fast to "a ""grantee"""',
)
PRIVILEGES = """
select name, pg_get_userbyid(grantor), case when grantee <> 0 then pg_get_userbyid(grantee) end,
       privilege_type, is_grantable
  from (select datname, datacl from pg_database where datname = %s
        union all select spcname, spcacl from pg_tablespace where spcname = 'fast'
        union all select parname, paracl from pg_parameter_acl) as acls (name, acl), aclexplode(acl)
 where pg_get_userbyid(grantor) in ('weak', 'a "grantee"')
"""


def run(connection: ConnectionParams, *statements: str) -> None:
    with connection.connect() as session:
        for statement in statements:
            session.execute(statement)  # type: ignore[call-overload]


def passed_on(connection: ConnectionParams, database: str = "an app") -> set[Any]:
    """Return the privileges that another role than the owner granted."""
    with connection.connect() as session:
        return {row[1:] if row[0] == database else row for row in session.execute(PRIVILEGES, [database])}


@pytest.fixture
def servers() -> Iterator[Callable[[Build], tuple[PostgresServer, PostgresServer]]]:
    """Two servers of a build; the first has roles."""
    running: list[PostgresServer] = []

    def start(build: Build) -> tuple[PostgresServer, PostgresServer]:
        running.extend(PostgresServer(build.bin_dir, superuser="postgres").__enter__() for _ in range(2))
        run(running[0].params, "create role weak", 'create role "a ""grantee"""')
        run(running[1].params, "alter system set allow_in_place_tablespaces = on", "select pg_reload_conf()")
        return running[0], running[1]

    yield start
    for server in running:
        server.__exit__(None, None, None)


Servers = Callable[[Build], tuple[PostgresServer, PostgresServer]]


def dumped(build: Build, server: PostgresServer, repository: Repository, **options: Any) -> dict[str, object]:
    return dump_database(
        connection=server.params.with_database("an app"),
        server="test",
        repository=repository,
        options=DumpOptions(**options),
        context=RunContext(settings=build.settings),
    )


def dumped_cluster(build: Build, server: PostgresServer, repository: Repository, **options: Any) -> dict[str, object]:
    return dump_cluster(
        connection=server.params,
        server="test",
        repository=repository,
        options=DumpAllOptions(**options),
        context=RunContext(settings=build.settings),
    )


def lost(result: dict[str, Any]) -> list[str]:
    return [line for line in result["warnings"] if "is not the grantor of" in line]


@MAJORS
def test_of_a_cluster(build: Build, servers: Servers, tmp_path: Path) -> None:
    """And a rehearsal of it passes."""
    source, target = servers(build)
    run(source.params, *DATABASE, *PARAMETER)
    if build.major > 15:  # pg_dumpall 15 writes a relative path for one that is in place, and CREATE refuses that
        run(source.params, *TABLESPACE)
    repository = local(tmp_path)
    reference = dumped_cluster(build, source, repository)
    expected = passed_on(source.params)
    assert len(expected) == (5 if build.major > 15 else 4)
    result = restored(reference, repository, target.params, settings=build.settings)
    assert passed_on(target.params) == expected
    assert not lost(result)
    checked = verify(
        reference=reference, repository=repository, level="restore", context=RunContext(settings=build.settings)
    )
    assert checked["verified"] == "restore"


@pytest.mark.every_value
@MAJORS
@pytest.mark.parametrize(
    "options", [{"format": "custom"}, {"format": "plain", "create": True}], ids=["custom", "plain"]
)
def test_of_a_new_and_a_replaced_database(
    build: Build, options: dict[str, Any], servers: Servers, tmp_path: Path
) -> None:
    source, target = servers(build)
    run(source.params, *DATABASE)
    repository = local(tmp_path)
    reference = dumped(build, source, repository, **options)
    roles = GlobalsBackup(dumped_cluster(build, source, repository, globals_only=True), repository)
    expected = passed_on(source.params)
    assert len(expected) == 3
    new = target.params.with_database("new")
    result = restored(reference, repository, new, mode="create", globals_from=roles, settings=build.settings)
    assert passed_on(target.params, "new") == expected
    assert not lost(result)
    result = restored(reference, repository, new, mode="replace", settings=build.settings)
    assert passed_on(target.params, "new") == expected
    assert not lost(result)


@each(BUILDS[-1:])
def test_a_grantor_without_the_grant_option_here(build: Build, servers: Servers, tmp_path: Path) -> None:
    """An existing role is not changed, so it lacks that of a parameter; a superuser's grants are the owner's."""
    source, target = servers(build)
    run(source.params, *DATABASE, *PARAMETER, "reset session authorization", *TABLESPACE)
    repository = local(tmp_path)
    reference = dumped_cluster(build, source, repository)
    run(target.params, "create role weak")
    result = restored(reference, repository, target.params, settings=build.settings)
    (line,) = lost(result)
    assert line == (
        'role "weak" is not the grantor of GRANT SET ON PARAMETER "work_mem" TO "a ""grantee""": '
        "the role has no grant option for it; the owner is recorded instead"
    )
    assert len(passed_on(target.params)) == 4
    with target.params.connect() as session:
        held = """select has_parameter_privilege('a "grantee"', 'work_mem', 'SET'), current_user, session_user"""
        assert session.execute(held).fetchone() == (True, "postgres", "postgres")  # type: ignore[arg-type]


@each(BUILDS[-1:])
def test_part_of_a_grant_option(build: Build, servers: Servers, tmp_path: Path) -> None:
    """PostgreSQL grants that part with a warning; the restore grants everything, as the owner."""
    source, target = servers(build)
    run(source.params, *PARAMETER, 'grant alter system on parameter work_mem to "a ""grantee"""')
    repository = local(tmp_path)
    reference = dumped_cluster(build, source, repository, globals_only=True)
    run(
        target.params,
        "create role weak",
        "grant alter system on parameter work_mem to weak with grant option",
        "grant set on parameter work_mem to weak",
    )
    assert len(lost(restored(reference, repository, target.params, settings=build.settings))) == 1
    with target.params.connect() as session:
        held = """select has_parameter_privilege('a "grantee"', 'work_mem', 'SET, ALTER SYSTEM')"""
        assert session.execute(held).fetchone() == (True,)  # type: ignore[arg-type]


@each(BUILDS[-1:])
@pytest.mark.parametrize(
    ("attributes", "user", "reason"),
    [
        ("superuser", "postgres", "the role is a superuser, whose grants are the owner's"),
        ("", "maker", "the user of the connection is not a superuser"),
    ],
    ids=["grantor", "user"],
)
def test_by_rights(attributes: str, user: str, reason: str, build: Build, servers: Servers, tmp_path: Path) -> None:
    source, target = servers(build)
    maker = "create role maker login createdb"
    run(source.params, maker, *DATABASE, 'alter database "an app" owner to maker')
    repository = local(tmp_path)
    reference = dumped(build, source, repository, format="custom")
    run(target.params, maker, f"create role weak {attributes}", 'create role "a ""grantee"""')
    new = ConnectionParams({**target.params.keywords, "user": user, "dbname": "an app"})
    result = restored(reference, repository, new, mode="create", settings=build.settings)
    assert lost(result)
    assert all(line.endswith(f": {reason}; the owner is recorded instead") for line in lost(result))
