"""A role without privileges never gets into a database that a restore or rehearsal fills, nor into the final one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from rehearsals import rehearse_on
from restoring import backup, backup_cluster, databases_of, fresh_server, local, make_roles, restored, value

from airflow_pgbackup.backup.databases.temporary_database import PREFIX, TemporaryDatabases
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

Fresh = Callable[..., ConnectionParams]

PATIENTS = (
    "create table patients as select 'Meier' as name",
    "grant select on patients to public",
    "create materialized view counted as select count(*) from patients",
)
FENCE = 'revoke connect on database {name} from public; grant connect on database {name} to "app_owner"'
PRIVILEGES = (
    "select pg_get_userbyid(datdba), array(select (pg_get_userbyid(grantor), grantee::regrole::text, privilege_type, "
    "is_grantable)::text from aclexplode(coalesce(datacl, acldefault('d', datdba))) order by 1)::text, datconnlimit "
    "from pg_database where datname = %s"
)


class Snoop:
    """A role without privileges that connects to databases."""

    def __init__(self, server: ConnectionParams) -> None:
        self._server = server
        self.attempts = 0
        self.entered: list[str] = []

    def __call__(self, _: object = None) -> None:
        """Try every database that is being filled."""
        with self._server.connect() as session:
            query = "select datname from pg_database where datname like %s"
            names = [name for (name,) in session.execute(query, [f"{PREFIX}%"])]
        for name in names:
            self.attempts += 1
            if self.enters(name):
                self.entered.append(name)

    def enters(self, database: str) -> bool:
        keywords = {**self._server.keywords, "user": "snoop", "dbname": database}
        try:
            ConnectionParams(keywords=keywords, password="snoop").connect().close()
        except ConnectError:
            return False
        return True

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Try again and again, in a thread."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.01):
                self()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def require_kept_out(self) -> None:
        assert self.attempts
        assert self.entered == []


@contextmanager
def snooping(server: ConnectionParams) -> Iterator[Snoop]:
    with server.connect() as session:
        session.execute("create role snoop login password 'snoop'")
    snoop = Snoop(server)
    try:
        with snoop.looking():
            yield snoop
    finally:
        with server.connect() as session:
            session.execute("drop role snoop")


@pytest.fixture
def snoop(server18: PostgresServer) -> Iterator[Snoop]:
    make_roles(server18)
    with snooping(server18.params) as made:
        yield made


def run_on(server: ConnectionParams, statements: str, name: str) -> None:
    with server.connect() as session:
        for statement in statements.split("; "):
            session.execute(sql.SQL(statement).format(name=sql.Identifier(name)))


def privileges(server: ConnectionParams, name: str) -> Any:
    """The owner, privileges and limit of a database."""
    with server.connect() as session:
        return session.execute(PRIVILEGES, [name]).fetchone()


EVERY_WAY = pytest.mark.parametrize(
    ("dumped", "options"),
    [({"format": "custom"}, {}), ({"format": "custom"}, {"jobs": 2}), ({"format": "plain", "create": True}, {})],
    ids=["transaction", "jobs", "plain"],
)
OWN = pytest.mark.parametrize(
    ("own", "admits"),
    [
        (FENCE, False),
        ('revoke all on database {name} from public; alter database {name} owner to "app_owner"', False),
        ("alter database {name} connection limit 3", True),
        ("revoke temporary on database {name} from public; grant create on database {name} to public", True),
    ],
    ids=["fence", "owner", "default", "other"],
)


@pytest.mark.every_value
@OWN
@EVERY_WAY
def test_restored_into_a_new_database(
    dumped: dict[str, Any],
    options: dict[str, Any],
    own: str,
    admits: bool,
    server18: PostgresServer,
    fresh_database: Fresh,
    tmp_path: Path,
    snoop: Snoop,
) -> None:
    source, repository = fresh_database(server18, None, *PATIENTS), local(tmp_path)
    run_on(server18.params, own, source.dbname)
    reference = backup(source, repository, **dumped)
    target = fresh_database(server18)
    run_on(server18.params, "drop database {name}", target.dbname)
    restored(reference, repository, target, mode="create", options=options, log=snoop)
    snoop.require_kept_out()
    assert privileges(server18.params, target.dbname) == privileges(server18.params, source.dbname)
    assert snoop.enters(target.dbname) == admits
    assert value(target, "select name from patients") == "Meier"


@pytest.mark.every_value
@OWN
@EVERY_WAY
def test_replaced(
    dumped: dict[str, Any],
    options: dict[str, Any],
    own: str,
    admits: bool,
    server18: PostgresServer,
    fresh_database: Fresh,
    tmp_path: Path,
    snoop: Snoop,
) -> None:
    """The privileges are those of the old database."""
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, *PATIENTS), repository, **dumped)
    target = fresh_database(server18)
    run_on(server18.params, own, target.dbname)
    before = privileges(server18.params, target.dbname)
    restored(reference, repository, target, mode="replace", options=options, target={"keep_old": False}, log=snoop)
    snoop.require_kept_out()
    assert privileges(server18.params, target.dbname) == before
    assert snoop.enters(target.dbname) == admits


def test_into_an_empty_database_by_several_jobs(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path, snoop: Snoop
) -> None:
    repository = local(tmp_path)
    reference = backup(fresh_database(server18, None, *PATIENTS), repository)
    target = fresh_database(server18)
    run_on(server18.params, FENCE, target.dbname)
    before = privileges(server18.params, target.dbname)
    restored(reference, repository, target, options={"jobs": 2}, log=snoop)
    snoop.require_kept_out()
    assert privileges(server18.params, target.dbname) == before


def test_by_a_role_that_is_only_a_member_of_the_owner(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path, snoop: Snoop
) -> None:
    source, repository = fresh_database(server18, None, *PATIENTS), local(tmp_path)
    run_on(server18.params, f'{FENCE}; alter database {{name}} owner to "app_owner"', source.dbname)
    with source.connect() as session:
        session.execute('alter table patients owner to "app_owner"')
        session.execute('alter materialized view counted owner to "app_owner"')
    reference = backup(source, repository)
    target = fresh_database(server18)
    run_on(server18.params, "drop database {name}", target.dbname)
    run_on(server18.params, "create role passing login createdb password 'passing'; grant \"app_owner\" to passing", "")
    as_member = ConnectionParams(keywords={**target.keywords, "user": "passing"}, password="passing")
    try:
        for mode in ("create", "replace"):
            restored(
                reference, repository, as_member, mode=mode, options={"jobs": 2}, target={"keep_old": False}, log=snoop
            )
            assert privileges(server18.params, target.dbname) == privileges(server18.params, source.dbname)
    finally:
        run_on(server18.params, "drop role passing", "")
    snoop.require_kept_out()


def test_tables_restored_beside_live_ones(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path, snoop: Snoop
) -> None:
    repository = local(tmp_path)
    source = fresh_database(server18, None, *PATIENTS)
    for format in ("custom", "plain"):
        reference = backup(source, repository, format=format)
        restored(
            reference,
            repository,
            fresh_database(server18),
            mode="into_existing",
            target={"into_schema": "recovered"},
            options={"tables": ["patients"]},
            log=snoop,
        )
    snoop.require_kept_out()


def test_the_databases_of_a_cluster(tmp_path: Path) -> None:
    repository = local(tmp_path)
    with fresh_server(18) as source, fresh_server(18) as target:
        make_roles(source)
        for name, own in (("fenced", FENCE), ("open", "alter database {name} connection limit 3")):
            run_on(source.params, f"create database {{name}}; {own}", name)
            with source.params.with_database(name).connect() as session:
                for statement in PATIENTS:
                    session.execute(statement)
        reference = backup_cluster(source.params, repository)
        with snooping(target.params) as snoop:
            restored(reference, repository, target.params, log=snoop)
            snoop.require_kept_out()
            assert [snoop.enters(name) for name in ("fenced", "open")] == [False, True]
        for name in ("fenced", "open"):
            owner, acl, limit = privileges(source.params, name)
            found = privileges(target.params, name)
            assert (found[0], found[2]) == (owner, limit)
            assert found[1] == acl


@pytest.mark.parametrize("format", ["custom", "plain"])
def test_rehearsed_on_a_scratch_server(
    format: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """Nor does a role of that server to which the dump grants CONNECT."""
    make_roles(server18)
    source, repository = fresh_database(server18, None, *PATIENTS), local(tmp_path)
    with fresh_server(18, password="scratch", tcp=True) as scratch, snooping(scratch.params) as snoop:
        run_on(server18.params, "create role snoop", "")
        try:
            run_on(server18.params, "grant connect on database {name} to snoop", source.dbname)
            with source.connect() as session:
                session.execute("grant select on patients to snoop")
            reference = backup(source, repository, format=format)
            manifest = load_manifest(repository, reference)
            rehearsal = rehearse_on(scratch.params, manifest, repository, on_restored=snoop, log=snoop)
        finally:
            run_on(server18.params, "drop database {name}", source.dbname)
            run_on(server18.params, "drop role snoop", "")
        assert rehearsal.differences == []
        snoop.require_kept_out()
        assert databases_of(scratch) == set()


def test_who_may_connect_to_a_temporary_database(server18: PostgresServer, snoop: Snoop) -> None:
    statement = 'CREATE DATABASE {} TEMPLATE template0 OWNER "app_owner";\n'
    with TemporaryDatabases(server18.params) as temporary:
        made, _ = temporary.create([lambda name: statement.format(name)])
        snoop()
        snoop.require_kept_out()
        assert value(made, "select datallowconn from pg_database where datname = current_database()") is True
        assert value(made, "select has_database_privilege('app_owner', current_database(), 'connect')") is True
        assert value(made, "select has_database_privilege('snoop', current_database(), 'connect')") is False
