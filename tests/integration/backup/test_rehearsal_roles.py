"""The stand-ins of a rehearsal have no more rights than the roles of the dump need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builds import BUILDS, Build, each

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import NotProven, ToolError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.source_roles import RecordedMembership, SourceRoles

MakeDatabase = Callable[..., ConnectionParams]

FUNCTION = "create function f(int) returns int immutable language sql as"
READS_CFG = f"{FUNCTION} 'select $1 + (select max(x) from public.cfg)'"
TABLE = ("create table t (x int)", "insert into t values (1), (2)")
VIEW = (
    "grant select on t to weak",
    "create materialized view m as select * from t",
    "alter materialized view m owner to weak",
)
INDEX = ("create table cfg as select 1 as x", READS_CFG, *TABLE, "grant select on cfg to weak")

WEAK = {
    "lost SELECT": (*TABLE, *VIEW, "revoke select on t from weak"),
    "row security": (*TABLE, *VIEW, "alter table t enable row level security", "create policy p on t using (x = 1)"),
    "function": (
        f"{FUNCTION} 'select $1'",
        "create materialized view m as select f(1)",
        "alter materialized view m owner to weak",
        "revoke execute on function f from public",
    ),
    "index": (*INDEX, "alter table t owner to weak", "create index on t (f(x))"),
}
UNNAMED = "inherited of a role that the dump does not name"
# Owners with rights that are not in a dump of their database.
RIGHTS = {
    "superuser": tuple(statement.replace("weak", "strong") for statement in WEAK["lost SELECT"]),
    "BYPASSRLS": tuple(statement.replace("weak", "bypassing") for statement in WEAK["row security"]),
    "inherited, in an index": (
        *INDEX,
        "alter table cfg owner to readers",  # privileges that are granted are restored after indexes
        "alter table t owner to reader",
        "create index on t (f(x))",
    ),
    UNNAMED: (
        *TABLE,
        "grant select on t to readers",
        "create materialized view m as select * from t",
        "alter materialized view m owner to indirect",
    ),
    "inherited of a predefined role": (
        *TABLE,
        "create materialized view m as select * from t",
        "alter materialized view m owner to all_reader",
    ),
}
PASSED_ON = {
    "table": ("create table t ()", "select on t"),
    "column": ("create table t (x int)", "select (x) on t"),
    "schema": ("create schema s", "usage on schema s"),
    "function": (f"{FUNCTION} 'select $1'", "execute on function f"),
    "large object": ("select lo_create(77)", "select on large object 77"),
    "database": ("select", 'connect on database "passed on"'),
}
SUPERUSER = {
    "event trigger": (
        "create function noticed() returns event_trigger language plpgsql as 'begin end'",
        "create event trigger noticed on ddl_command_end execute function noticed()",
        "alter event trigger noticed owner to strong",
    ),
    "foreign-data wrapper": ("create foreign data wrapper w", "alter foreign data wrapper w owner to strong"),
    "postgres": (*TABLE, *(statement.replace("weak", "postgres") for statement in VIEW)),
}


@pytest.fixture(scope="module")
def source() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), password="x", tcp=True) as server:
        with server.params.connect() as session:
            for role in (
                *("weak", "grantee", "strong superuser", "postgres superuser", "bypassing bypassrls", "readers"),
                *("reader in role readers", "unnamed in role readers", "indirect in role unnamed"),
                *("all_reader in role pg_read_all_data", "heir"),
            ):
                session.execute(f"create role {role}".encode())
            session.execute("grant readers to heir with inherit false")
        yield server


def dump(database: ConnectionParams, repository: Repository, format: str) -> dict[str, object]:
    options = DumpOptions(format=format)
    return dump_database(connection=database, server="test", repository=repository, options=options)


@pytest.mark.every_value
@pytest.mark.parametrize("format", ["custom", "plain"])
@pytest.mark.parametrize("case", WEAK)
def test_an_owner_without_a_privilege(
    case: str, format: str, source: PostgresServer, fresh_database: MakeDatabase, here: Repository
) -> None:
    """A restore fails as well, with a hint about restores."""
    reference = dump(fresh_database(source, None, *WEAK[case]), here, format)
    with pytest.raises(NotProven, match=r"it restores only if a role .*(permission denied|row-level security)"):
        verify(reference=reference, repository=here, level="restore")
    target = RestoreTarget(connection=source.params.with_database("restored"), mode="create")
    with pytest.raises(ToolError) as caught:
        restore(reference=reference, repository=here, target=target, options=RestoreOptions())
    assert "attributes and memberships of the source" in str(caught.value.hint)


@pytest.mark.every_value
@pytest.mark.parametrize("format", ["custom", "plain"])
@pytest.mark.parametrize("case", RIGHTS)
def test_an_owner_with_the_rights_of_the_source(
    case: str, format: str, source: PostgresServer, fresh_database: MakeDatabase, here: Repository
) -> None:
    reference = dump(fresh_database(source, None, *RIGHTS[case]), here, format)
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"


def test_a_membership_that_is_not_inherited(
    source: PostgresServer, fresh_database: MakeDatabase, here: Repository
) -> None:
    statements = (statement.replace("indirect", "heir") for statement in RIGHTS[UNNAMED])
    reference = dump(fresh_database(source, None, *statements), here, "custom")
    with pytest.raises(NotProven, match=r"it restores only if a role .*permission denied"):
        verify(reference=reference, repository=here, level="restore")


@each(BUILDS[-1:])
def test_a_role_named_postgres_that_is_no_superuser(
    server: PostgresServer, fresh_database: MakeDatabase, here: Repository
) -> None:
    """Its backup restores no better than that of another role."""
    statements = ("create role postgres", *WEAK["lost SELECT"])
    database = fresh_database(server, None, *(statement.replace("weak", "postgres") for statement in statements))
    with pytest.raises(NotProven, match=r"it restores only if a role .*permission denied"):
        verify(reference=dump(database, here, "custom"), repository=here, level="restore")


def recorded(repository: Repository, reference: dict[str, object]) -> SourceRoles:
    roles = load_manifest(repository, reference).source.roles
    assert roles is not None
    return roles


def test_the_manifest_has_the_roles_of_its_database_only(
    source: PostgresServer, fresh_database: MakeDatabase, here: Repository
) -> None:
    fresh_database(source, None, *RIGHTS["BYPASSRLS"])
    roles = recorded(here, dump(fresh_database(source, None, *RIGHTS[UNNAMED]), here, "custom"))
    assert roles.superusers == (source.params.user,)  # the bootstrap superuser
    assert roles.bypass_rls == ()
    assert set(roles.memberships) == {
        RecordedMembership("unnamed", "indirect"),
        RecordedMembership("readers", "unnamed"),
    }


@pytest.fixture
def server(build: Build) -> Iterator[PostgresServer]:
    with PostgresServer(build.bin_dir, password="x", tcp=True) as server:
        yield server


@each(BUILDS)
def test_roles_that_do_not_inherit(server: PostgresServer, fresh_database: MakeDatabase, here: Repository) -> None:
    """That was an attribute of the role before PostgreSQL 16; since then it is an option of the membership."""
    roles = ("create role readers", "create role reader in role readers", "create role heir noinherit in role readers")
    tables = ("create table a ()", "alter table a owner to reader", "create table b ()", "alter table b owner to heir")
    reference = dump(fresh_database(server, None, *roles, *tables), here, "custom")
    assert recorded(here, reference).memberships == (RecordedMembership("readers", "reader"),)


def test_roles_that_cannot_be_read(source: PostgresServer, fresh_database: MakeDatabase, here: Repository) -> None:
    """The manifest does not have them, and the dump succeeds."""
    database = fresh_database(source, None, *TABLE, "revoke select on pg_catalog.pg_auth_members from public")
    with database.connect() as session:
        session.execute("create role dumper login password 'dumper' in role pg_read_all_data")
        try:
            session.execute("grant pg_read_all_data to dumper with inherit false")
            session.execute("grant select on t to dumper")
            dumper = replace(database, keywords={**database.keywords, "user": "dumper"}, password="dumper")
            reference = dump(dumper, here, "custom")
        finally:
            session.execute("drop owned by dumper")
            session.execute("drop role dumper")
    assert load_manifest(here, reference).source.roles is None
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"


def forged(repository: Repository, reference: dict[str, object], roles: SourceRoles) -> None:
    manifest = load_manifest(repository, reference)
    key = f"{manifest.series.path}/{manifest.id}/manifest.json"
    (Path(repository.uri.removeprefix("file://")) / key).write_bytes(
        replace(manifest, source=replace(manifest.source, roles=roles)).to_json()
    )


def test_memberships_that_no_server_has(source: PostgresServer, fresh_database: MakeDatabase, here: Repository) -> None:
    reference = dump(fresh_database(source, None, *TABLE, "alter table t owner to weak"), here, "custom")
    pairs = ("a", "weak"), ("weak", "a"), ("weak", "weak"), ("pg_database_owner", "weak"), ("pg_none", "a")
    others = ("weak", "pg_read_all_data"), (source.params.user, "weak")
    forged(here, reference, SourceRoles(memberships=tuple(RecordedMembership(*pair) for pair in (*pairs, *others))))
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"


def test_a_predefined_role_that_the_server_lacks(
    source: PostgresServer, fresh_database: MakeDatabase, here: Repository
) -> None:
    database = fresh_database(source, None, *TABLE)
    with database.connect() as session:
        session.execute("create role of_a_fork")
        session.execute("set allow_system_table_mods = on")
        try:
            session.execute("update pg_authid set rolname = 'pg_of_a_fork' where rolname = 'of_a_fork'")
            session.execute("grant select on t to pg_of_a_fork")
            reference = dump(database, here, "custom")
        finally:
            session.execute("update pg_authid set rolname = 'of_a_fork' where rolname = 'pg_of_a_fork'")
            session.execute("drop owned by of_a_fork")
            session.execute("drop role of_a_fork")
    with pytest.raises(NotProven, match="lacks predefined roles that the dump refers to: pg_of_a_fork"):
        verify(reference=reference, repository=here, level="restore")


def test_another_fault_beside_it(source: PostgresServer, fresh_database: MakeDatabase, here: Repository) -> None:
    """What no privilege can restore has failed."""
    broken = ("create materialized view z as select 1 / x from t", "update t set x = 0")
    database = fresh_database(source, None, *WEAK["lost SELECT"], *broken)
    with pytest.raises(VerificationFailed, match="division by zero"):
        verify(reference=dump(database, here, "custom"), repository=here, level="restore")


@pytest.mark.every_value
@pytest.mark.parametrize("format", ["custom", "plain"])
@pytest.mark.parametrize("case", PASSED_ON)
def test_a_privilege_that_was_passed_on(
    case: str, format: str, source: PostgresServer, fresh_database: MakeDatabase, here: Repository
) -> None:
    """Its grantor is the one of the dump."""
    create, privilege = PASSED_ON[case]
    database = fresh_database(
        source,
        "passed on",
        create,
        f"grant {privilege} to weak with grant option",
        "set session authorization weak",
        f"grant {privilege} to grantee",
    )
    assert verify(reference=dump(database, here, format), repository=here, level="restore")["verified"] == "restore"


@pytest.mark.every_value
@pytest.mark.parametrize("format", ["custom", "plain"])
@pytest.mark.parametrize("case", SUPERUSER)
def test_an_owner_who_must_be_a_superuser(
    case: str, format: str, source: PostgresServer, fresh_database: MakeDatabase, here: Repository
) -> None:
    reference = dump(fresh_database(source, None, *SUPERUSER[case]), here, format)
    assert verify(reference=reference, repository=here, level="restore")["verified"] == "restore"
