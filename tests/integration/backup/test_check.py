"""check: real problems, one by one, each with its finding; and what check calls an error does fail the dump."""

from __future__ import annotations

import contextlib
import importlib.util
import resource
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from contexts import in_context
from pooler import Pooler

from airflow_pgbackup.backup.check.run import Finding, check
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.masking.leak_queries import STATISTICS, definitions
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.errors import Canceled, PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools import clients
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

FILL = (
    "create schema sales",
    "create table sales.orders (id serial primary key, note text)",
    "insert into sales.orders (note) select 'order ' || n from generate_series(1, 100) n",
    "create table film (id int primary key)",
    'create table "Odd ""name" (a int)',
)
Fresh = Callable[..., ConnectionParams]


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """A server whose socket is trusted, with the settings that some findings need. Its roles go with it."""
    settings = {"wal_level": "replica", "max_prepared_transactions": "4"}
    with PostgresServer(postgres_bin_dir(18), settings=settings) as server:
        yield server


def person(database: ConnectionParams, attributes: str = "", *grants: str) -> ConnectionParams:
    """A new role that may log in, and nothing else but what is granted; ``{}`` is its name."""
    name = f"reader_{secrets.token_hex(4)}"
    run(database, f"create role {name} login {attributes}", *(grant.format(name) for grant in grants))
    return ConnectionParams({**database.keywords, "user": name})


def run(database: ConnectionParams, *statements: str) -> None:
    with database.connect() as session:
        for statement in statements:
            session.execute(statement)


def checked(connection: ConnectionParams, repository: Repository | None = None, **more: object) -> dict[str, Finding]:
    """The findings by their code, of which there is one each."""
    findings = check(connection=connection, server="main", repository=repository, **in_context(more))  # type: ignore[arg-type]
    for finding in findings:
        assert finding.severity in ("error", "warning")
        assert finding.message == " ".join(finding.message.split()) != ""
        assert finding.message[-1] not in ".!"
        assert finding.hint
        print(finding)
    assert [finding.severity for finding in findings] == sorted(finding.severity for finding in findings)
    by_code = {finding.code: finding for finding in findings}
    assert len(by_code) == len(findings), findings
    return by_code


def errors(found: dict[str, Finding]) -> list[str]:
    return [code for code, finding in found.items() if finding.severity == "error"]


def dump_fails(connection: ConnectionParams, repository: Repository, options: DumpOptions | DumpAllOptions) -> str:
    """What the dump says which check has foretold; '' where it succeeds."""
    try:
        if isinstance(options, DumpAllOptions):
            dump_cluster(connection=connection, server="main", repository=repository, options=options)
        else:
            dump_database(connection=connection, server="main", repository=repository, options=options)
    except PgBackupError as error:
        return str(error)
    return ""


def test_no_problems_found(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    assert checked(fresh_database(own, None, *FILL), here) == {}
    assert checked(own.params, here, options=DumpAllOptions()) == {}
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_a_connection_over_a_network(server18: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    """0.0.0.0 is no loopback address, but leads here."""
    database = fresh_database(server18, None, *FILL)
    near = ConnectionParams({**database.keywords, "host": "localhost"}, password=database.password)
    assert not {"tls_verification", "require_auth"} & set(checked(near))
    far = ConnectionParams({**database.keywords, "host": "0.0.0.0"}, password=database.password)
    found = checked(far)
    assert "sslmode=prefer" in found["tls_verification"].message
    assert "sslmode=verify-full" in found["tls_verification"].hint
    assert "require_auth=scram-sha-256" in found["require_auth"].hint
    careful = ConnectionParams({**far.keywords, "require_auth": "scram-sha-256"}, password=far.password)
    assert "require_auth" not in checked(careful)


def test_a_user_who_may_only_read(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    reader = person(fresh_database(own, None, *FILL), "", "grant pg_read_all_data to {}")
    assert checked(reader, here) == {}
    assert dump_fails(reader, here, DumpOptions()) == ""


# -- getting in


def test_all_at_once(own: PostgresServer, tmp_path: Path) -> None:
    nowhere = own.params.with_database("no_such")
    repository = open_repository(f"file://{tmp_path / 'nowhere'}")
    found = checked(nowhere, repository, options=DumpOptions(jobs=2))
    assert errors(found) == ["options", "repository", "connect"]
    assert "Use format='directory' with jobs" in found["options"].hint
    assert "init" in found["repository"].hint
    assert 'database "no_such" does not exist' in found["connect"].message


def test_no_server_answers(own: PostgresServer) -> None:
    found = checked(ConnectionParams({**own.params.keywords, "host": "127.0.0.1", "port": "1"}))
    assert list(found) == ["connect"]
    assert "refused" in found["connect"].message


def test_wrong_password(server18: PostgresServer) -> None:
    found = checked(ConnectionParams(server18.params.keywords, password="not the password"))
    assert list(found) == ["connect"]
    assert "password authentication failed" in found["connect"].message


def test_no_database_given(own: PostgresServer, here: Repository) -> None:
    nameless = ConnectionParams({name: value for name, value in own.params.keywords.items() if name != "dbname"})
    assert "database" in errors(checked(nameless, here))


def test_pg_dump_cannot_connect_although_psycopg_can(own: PostgresServer, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, *FILL, "revoke select on pg_catalog.pg_proc from public")
    reader = person(database, "", "grant usage on schema sales to {}",
                    "grant select on all tables in schema public, sales to {}",
                    "grant select on all sequences in schema sales to {}")  # fmt: skip
    found = checked(reader)
    assert list(found) == ["tool"]
    assert "permission denied for table pg_proc" in found["tool"].message
    # and one that we read, too
    run(database, "grant select on pg_catalog.pg_proc to public", "revoke select on pg_foreign_server from public")
    found = checked(reader)
    assert list(found) == ["tool", "catalog"]
    assert "cannot read the system catalogs: permission denied for table pg_foreign_server" in found["catalog"].message


@pytest.fixture
def only_client(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Settings]:
    """A worker that has the programs of one version and no other."""

    def make(major: int) -> Settings:
        folder = str(postgres_bin_dir(major))
        monkeypatch.setattr(clients, "WELL_KNOWN", ())
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setenv("PATH", "/nonexistent")
        return Settings(client_dirs=(folder,))

    return make


def test_a_client_that_is_too_old(
    own: PostgresServer, here: Repository, fresh_database: Fresh, only_client: Callable[[int], Settings]
) -> None:
    database = fresh_database(own)
    settings = only_client(16)
    found = checked(database, here, settings=settings)
    assert found["client"].severity == "error"
    assert "no pg_dump here fits PostgreSQL 18: found 16." in found["client"].message
    assert "postgresql-client-18" in found["client"].hint
    assert "no server programs of PostgreSQL 18" in found["rehearsal"].message
    with pytest.raises(PgBackupError, match="no pg_dump here fits PostgreSQL 18"):
        dump_database(
            connection=database,
            server="s",
            repository=here,
            options=DumpOptions(),
            context=RunContext(settings=settings),
        )


def test_a_client_that_is_too_old_for_an_option(server16: PostgresServer, fresh_database: Fresh) -> None:
    found = checked(fresh_database(server16), options=DumpOptions(exclude_extensions=["vector"]))
    assert errors(found) == ["options"]
    assert "--exclude-extension needs pg_dump 17 or newer" in found["options"].message


def test_a_plain_dump_by_a_newer_client(
    server16: PostgresServer, fresh_database: Fresh, only_client: Callable[[int], Settings]
) -> None:
    database = fresh_database(server16)
    settings = only_client(18)
    found = checked(database, settings=settings, options=DumpOptions(format="plain"))
    assert found["newer_client"].severity == "warning"
    assert "cannot be restored into PostgreSQL 16" in found["newer_client"].message
    assert "newer_client" not in checked(database, settings=settings)


# -- the server


def test_a_pooler_in_transaction_mode(own: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    found = behind_pooler(fresh_database(own, None, *FILL), own, tmp_path, "transaction")
    assert found["pooler_transactions"].severity == "error"
    assert "Connect to PostgreSQL directly" in found["pooler_transactions"].hint


def test_a_pooler_in_session_mode(own: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    found = behind_pooler(fresh_database(own, None, *FILL), own, tmp_path, "session")
    assert list(found) == ["pooler"]
    assert found["pooler"].severity == "warning"
    assert "ignore_startup_parameters = options" in found["pooler"].hint


def behind_pooler(database: ConnectionParams, server: PostgresServer, folder: Path, mode: str) -> dict[str, Finding]:
    with Pooler(server.socket_dir, database.user, database.dbname, folder=folder, mode=mode) as pooler:
        return checked(
            ConnectionParams({**database.keywords, "host": pooler.host, "port": str(pooler.port)}),
        )


def in_recovery(server: PostgresServer) -> bool:
    """False, too, while it crashes or begins again."""
    try:
        with server.params.connect() as session:
            return session.execute("select pg_is_in_recovery()").fetchone() == (True,)
    except (PgBackupError, psycopg.OperationalError):
        return False


@pytest.fixture
def standby() -> Iterator[PostgresServer]:
    """A server in recovery, which answers queries."""
    settings = {"wal_level": "replica", "hot_standby": "on", "restart_after_crash": "on"}
    with PostgresServer(postgres_bin_dir(18), settings=settings) as server:
        run(server.params, "create unlogged table cache (a int)", "insert into cache values (1)", "checkpoint")
        with pytest.raises(psycopg.OperationalError):
            # its own child processes lie in the data folder; after a crash it looks for standby.signal anew
            run(server.params, "copy (select 1) to program 'touch standby.signal; kill -9 $PPID'")
        deadline = time.monotonic() + 60
        while not in_recovery(server):
            assert time.monotonic() < deadline, server.log_path.read_text()
            time.sleep(0.1)
        yield server


def set_parameter(server: PostgresServer, name: str, value: str) -> None:
    """Set it, and wait for new sessions to have it: a server reads its configuration some time after it is asked to."""
    run(server.params, f"alter system set {name} = {value}", "select pg_reload_conf()")
    deadline = time.monotonic() + 60
    while True:
        with server.params.connect() as session:
            if session.execute(f"show {name}").fetchone() == (value,):
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_standby(standby: PostgresServer, here: Repository) -> None:
    found = checked(standby.params, here)
    assert list(found) == ["standby", "standby_unlogged"]
    assert "max_standby_streaming_delay = 30s" in found["standby"].message
    assert found["standby_unlogged"].objects == ("public.cache",)
    assert dump_fails(standby.params, here, DumpOptions()) == ""

    options = DumpOptions(serializable_deferrable=True)
    assert errors(checked(standby.params, here, options=options)) == ["standby_serializable"]
    assert "serializable" in dump_fails(standby.params, here, options)

    set_parameter(standby, "hot_standby_feedback", "on")
    assert "a lock of the primary, as of ALTER TABLE or TRUNCATE, cancels" in checked(standby.params)["standby"].message
    set_parameter(standby, "max_standby_streaming_delay", "-1")
    assert list(checked(standby.params, here)) == ["standby_unlogged"]


def test_a_role_that_the_user_cannot_switch_to(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    reader = person(fresh_database(own, None, *FILL), "", "grant pg_read_all_data to {}")
    options = DumpOptions(role="postgres_no_such")
    found = checked(reader, here, options=options)
    assert 'cannot switch to role "postgres_no_such"' in found["role"].message
    assert dump_fails(reader, here, options)


def test_privileges_are_those_of_the_role(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, *FILL)
    role = person(database, "", "grant select on film to {}").user
    options = DumpOptions(role=role)
    assert "table_select" in checked(database, here, options=options)
    assert "permission denied" in dump_fails(database, here, options)


def test_too_few_connections(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    reader = person(fresh_database(own, None, *FILL), "connection limit 2", "grant pg_read_all_data to {}")
    options = DumpOptions(format="directory", jobs=4)
    found = checked(reader, here, options=options)
    assert errors(found) == ["connection_limit"]
    assert "limited to 2 connections, but this dump needs 5" in found["connection_limit"].message
    assert "too many connections" in dump_fails(reader, here, options)
    assert checked(reader, here) == {}
    run(own.params, f"alter role {reader.user} connection limit -1")
    run(own.params, f'alter database "{reader.dbname}" connection limit 2')
    assert "is limited to 2 connections" in checked(reader, here, options=options)["connection_limit"].message
    assert "too many connections for database" in dump_fails(reader, here, options)


def test_one_connection_is_enough(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    reader = person(fresh_database(own, None, *FILL), "connection limit 1", "grant pg_read_all_data to {}")
    assert checked(reader, here) == {}
    assert dump_fails(reader, here, DumpOptions()) == ""


def test_a_session_that_is_about_to_end_is_waited_for(own: PostgresServer, fresh_database: Fresh) -> None:
    reader = person(fresh_database(own, None, *FILL), "connection limit 1", "grant pg_read_all_data to {}")
    held = reader.connect()
    threading.Timer(0.3, held.close).start()
    with reader.connect() as session:
        assert session.execute("select 1").fetchone() == (1,)


def test_stopped(own: PostgresServer, fresh_database: Fresh) -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Canceled):
        check(connection=fresh_database(own), server="main", context=RunContext(cancel=cancel))


def test_a_password_that_is_about_to_expire(own: PostgresServer, fresh_database: Fresh) -> None:
    soon = "valid until '{}'".format(time.strftime("%Y-%m-%d", time.gmtime(time.time() + 3 * 86400)))
    reader = person(fresh_database(own), soon, "grant pg_read_all_data to {}")
    with_password = ConnectionParams(reader.keywords, password="something")
    assert list(checked(with_password)) == ["password_expires"]
    assert checked(reader) == {}


def test_time_limits(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    reader = person(fresh_database(own, None, *FILL), "", "grant pg_read_all_data to {}",
                    "alter role {} set statement_timeout = '5s'", "alter role {} set lock_timeout = '1s'")  # fmt: skip
    found = checked(reader, here)
    assert list(found) == ["timeouts"]
    assert found["timeouts"].objects == ("lock_timeout = 1000 ms", "statement_timeout = 5000 ms")
    assert dump_fails(reader, here, DumpOptions()) == ""


def test_another_client_encoding(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, *FILL, "insert into sales.orders (note) values ('\N{EURO SIGN}')")
    reader = person(database, "", "grant pg_read_all_data to {}", "alter role {} set client_encoding = 'LATIN1'")
    assert list(checked(reader, here)) == ["client_encoding"]
    assert "has no equivalent in encoding" in dump_fails(reader, here, DumpOptions())
    options = DumpOptions(encoding="UTF8")
    assert checked(reader, here, options=options) == {}
    assert dump_fails(reader, here, options) == ""


def test_an_old_prepared_transaction(
    own: PostgresServer, fresh_database: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = fresh_database(own, None, *FILL, "begin", "insert into film values (1)", "prepare transaction 'left'")
    try:
        assert checked(database) == {}
        monkeypatch.setattr("airflow_pgbackup.backup.check.database.OLD_TRANSACTION", "0 seconds")
        found = checked(database)
        assert list(found) == ["prepared_transactions"]
        assert found["prepared_transactions"].objects == ("'left'",)
    finally:
        run(database, "rollback prepared 'left'")


def test_the_lock_of_a_prepared_transaction(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, *FILL, "begin", "lock table film", "prepare transaction 'it''s mine'")
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith("waiting for a lock"):
            run(database, "rollback prepared 'it''s mine'")

    try:
        message = checked(database)["locked"].message
        dump_database(
            connection=database, server="main", repository=here, options=DumpOptions(), context=RunContext(log=log)
        )
    finally:
        with contextlib.suppress(psycopg.Error):
            run(database, "rollback prepared 'it''s mine'")
    assert "prepared transaction 'it''s mine' holds or waits for an ACCESS EXCLUSIVE lock on public.film" in message
    (line,) = [line for line in lines if line.startswith("waiting for a lock")]
    held = "waiting for a lock on public.film held by the prepared transaction 'it''s mine' of user"
    assert line.startswith(f"{held} {database.user}, prepared 20")


def test_an_exclusive_lock(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, *FILL)
    with database.connect(autocommit=False) as ddl:
        ddl.execute("alter table sales.orders add column more int")
        found = checked(database, here, settings=Settings(lock_wait_timeout=0.5))
        assert list(found) == ["locked"]
        assert found["locked"].objects == ("sales.orders",)
        assert "fail after 0.5 s" in found["locked"].message
        assert checked(database, here, options=DumpOptions(exclude_schemas=["sales"])) == {}
        assert "timeout" in dump_fails(database, here, DumpOptions(lock_wait_timeout=500))
    assert checked(database, here) == {}


def test_casts_as_before_8_3(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    """With implicit casts to text, as some applications still create them, ``text || int`` is ambiguous."""
    casts = [
        statement
        for kind in ("int2", "int4", "int8", "oid", "regclass", "regtype", "regprocedure", "regdictionary")
        for statement in (
            f"create function {kind}_text({kind}) returns text strict immutable language sql"
            f" as 'select pg_catalog.textin(pg_catalog.{kind}out($1))'",
            f"create cast ({kind} as text) with function {kind}_text({kind}) as implicit",
        )
    ]
    database = fresh_database(own, None, *FILL, *casts)
    assert list(checked(database, here, scan_rows=True)) == ["superuser_only"]
    run(database, STATISTICS, definitions(180000))


# -- rights


def test_missing_grants_by_object(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, *FILL, "create table film_2 (a int)")
    reader = person(database)
    found = checked(reader, here)
    assert errors(found) == ["schema_usage", "table_select", "sequence_select"]
    assert found["schema_usage"].objects == ("sales",)
    assert found["table_select"].objects == ('public."Odd ""name"', "public.film", "public.film_2", "sales.orders")
    assert found["sequence_select"].objects == ("sales.orders_id_seq",)
    assert "permission denied" in dump_fails(reader, here, DumpOptions())
    # what the hints say, word for word
    for code in ("schema_usage", "table_select", "sequence_select"):
        run(database, found[code].hint.removeprefix("Run ").split(", or GRANT")[0])
    assert checked(reader, here) == {}
    assert dump_fails(reader, here, DumpOptions()) == ""


@pytest.mark.parametrize("code", ["schema_usage", "table_select", "sequence_select"])
def test_each_missing_grant_alone_ends_a_dump(
    code: str, own: PostgresServer, here: Repository, fresh_database: Fresh
) -> None:
    database = fresh_database(own, None, *FILL)
    grants = {
        "schema_usage": "grant usage on schema sales to {}",
        "table_select": "grant select on all tables in schema public, sales to {}",
        "sequence_select": "grant select on all sequences in schema sales to {}",
    }
    reader = person(database, "", *(grant for name, grant in grants.items() if name != code))
    assert errors(checked(reader, here)) == [code]
    assert dump_fails(reader, here, DumpOptions())


@pytest.mark.parametrize(
    "options",
    [
        DumpOptions(exclude_schemas=["sales"], exclude_tables=['"Odd "*']),
        DumpOptions(tables=["film"]),
        DumpOptions(schemas=["public"], exclude_tables=['public."Odd ""name"']),
    ],
)
def test_privileges_on_excluded_objects_are_not_needed(
    options: DumpOptions, own: PostgresServer, here: Repository, fresh_database: Fresh
) -> None:
    reader = person(fresh_database(own, None, *FILL), "", "grant select on film to {}")
    assert checked(reader, here, options=options) == {}
    assert dump_fails(reader, here, options) == ""


@pytest.mark.parametrize("major", [16, 18])
def test_privileges_for_definitions_only(
    major: int, server16: PostgresServer, own: PostgresServer, here: Repository, fresh_database: Fresh
) -> None:
    server = server16 if major == 16 else own
    database = fresh_database(server, None, "create table t (a serial)", "create table u (a int)")
    name = f"writer_{secrets.token_hex(4)}"
    run(database, f"create role {name} login password 'x'", f"grant update on t to {name}")
    try:
        writer = ConnectionParams({**database.keywords, "user": name}, password="x")
        options = DumpOptions(schema_only=True)
        found = checked(writer, here, options=options)
        assert errors(found) == ["table_select"]
        assert found["table_select"].objects == ("public.u",)
        assert "permission denied for table u" in dump_fails(writer, here, options)
        only_t = DumpOptions(schema_only=True, tables=["t"])
        assert errors(checked(writer, here, options=only_t)) == []
        assert dump_fails(writer, here, only_t) == ""
    finally:
        run(database, f"drop owned by {name}", f"drop role {name}")


def test_large_objects(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, "select lo_from_bytea(4711, 'a')", "select lo_from_bytea(4712, 'b')")
    reader = person(database, "", "grant pg_read_all_data to {}", "grant select on large object 4712 to {}")
    found = checked(reader, here)
    assert errors(found) == ["large_objects"]
    assert found["large_objects"].objects == ("4711",)
    assert "permission denied for large object 4711" in dump_fails(reader, here, DumpOptions())
    without = DumpOptions(large_objects=False)
    assert checked(reader, here, options=without) == {}
    assert dump_fails(reader, here, without) == ""


def test_row_level_security(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, *FILL, "alter table film enable row level security")
    reader = person(database, "", "grant pg_read_all_data to {}")
    found = checked(reader, here)
    assert errors(found) == ["row_security"]
    assert found["row_security"].objects == ("public.film",)
    assert "row-level security" in dump_fails(reader, here, DumpOptions())
    # it would end well, and have none of the rows
    options = DumpOptions(enable_row_security=True)
    assert checked(reader, here, options=options)["row_security"].severity == "warning"
    assert dump_fails(reader, here, options) == ""
    assert checked(database, here) == {}


def test_role_passwords_of_a_cluster(own: PostgresServer, here: Repository) -> None:
    reader = person(own.params)
    found = checked(reader, here, options=DumpAllOptions())
    assert errors(found) == ["role_passwords"]
    assert "no_role_passwords" in found["role_passwords"].hint
    assert "pg_authid" in dump_fails(reader, here, DumpAllOptions())
    without = DumpAllOptions(no_role_passwords=True)
    assert checked(reader, here, options=without) == {}
    assert dump_fails(reader, here, without) == ""


def test_every_database_of_a_cluster(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    one, two = fresh_database(own, None, *FILL), fresh_database(own, None, "create table t (a int)")
    shut = fresh_database(own)
    reader = person(own.params)
    run(shut, f'revoke connect on database "{shut.dbname}" from public')
    findings = check(connection=reader, server="main", repository=here, options=DumpAllOptions(no_role_passwords=True))
    found = {(finding.code, finding.database): finding.objects for finding in findings if finding.severity == "error"}
    assert found[("database_connect", None)] == (shut.dbname,)
    assert found[("table_select", two.dbname)] == ("public.t",)
    assert ("schema_usage", one.dbname) in found
    excluding = DumpAllOptions(
        no_role_passwords=True, exclude_databases=[f'"{one.dbname}"', two.dbname[:-3] + "*", shut.dbname]
    )
    found_now = checked(reader, here, options=excluding)
    assert list(found_now) == ["not_covered"]
    assert set(found_now["not_covered"].objects) == {one.dbname, two.dbname, shut.dbname}
    assert dump_fails(reader, here, excluding) == ""


def test_user_mappings_and_foreign_tables(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(
        own, None,
        "create foreign data wrapper w", "create server far foreign data wrapper w",
        "create user mapping for public server far options (password 'secret of the far server')",
        "create foreign table far_away (a int) server far",
    )  # fmt: skip
    reader = person(database, "", "grant pg_read_all_data to {}")
    found = checked(reader, here)
    assert list(found) == ["user_mappings", "foreign_tables", "superuser_only"]
    assert found["user_mappings"].objects == ("public on far",)
    assert found["foreign_tables"].objects == ("public.far_away",)
    assert list(checked(database, here)) == ["foreign_tables", "superuser_only"]
    assert list(checked(database, here, options=DumpOptions(schema_only=True))) == ["superuser_only"]
    for options in (DumpOptions(schemas=["public"]), DumpOptions(extensions=["plpgsql"])):
        assert list(checked(reader, here, options=options)) == ["foreign_tables"]
    run(database, "create server near foreign data wrapper w", "create foreign table nearby (a int) server near")
    found = checked(person(database), here, options=DumpOptions(include_foreign_data=["f*"]))
    assert found["table_select"].objects == ("public.far_away",)
    assert found["foreign_tables"].objects == ("public.nearby",)


def test_subscriptions(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, "create subscription s connection 'dbname=x' publication p"
                              " with (connect = false, slot_name = none)")  # fmt: skip
    try:
        reader = person(database, "", "grant pg_read_all_data to {}")
        found = checked(reader, here)
        assert list(found) == ["subscriptions"]
        assert found["subscriptions"].objects == ("s",)
        assert checked(reader, here, options=DumpOptions(no_subscriptions=True)) == {}
        assert checked(database, here) == {}
    finally:
        run(database, "drop subscription s")


# -- what is selected


def test_patterns_that_match_nothing(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own, None, *FILL)
    found = checked(database, here, options=DumpOptions(tables=["film", "Odd*"]))
    assert errors(found) == ["pattern"]
    assert found["pattern"].objects == ("Odd*",)
    found = checked(database, here, options=DumpOptions(exclude_tables=["fild"]))
    assert found["pattern"].severity == "warning"
    assert checked(database, here, options=DumpOptions(schemas=["sal?s"], extensions=["plpgsql"])) == {}


def test_filter_files_are_reported_as_not_read(own: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    (tmp_path / "filter").write_text("exclude table film\n")
    found = checked(fresh_database(own, None, *FILL), options=DumpOptions(filters=[tmp_path / "filter"]))
    assert list(found) == ["filters"]


def test_properties_that_a_plain_dump_lacks(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own)
    run(database, f"alter database \"{database.dbname}\" set work_mem = '8MB'")
    assert checked(database, here) == {}
    found = checked(database, here, options=DumpOptions(format="plain"))
    assert list(found) == ["database_properties"]
    assert checked(database, here, options=DumpOptions(format="plain", create=True)) == {}


def test_extensions_that_a_rehearsal_would_lack(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    share = own.bin_dir.parent / "share" / "postgresql" / "extension"
    name = f"gone_{secrets.token_hex(4)}"
    control, script = share / f"{name}.control", share / f"{name}--1.sql"
    control.write_text("default_version = '1'\ntrusted = true\n")
    script.write_text("create function f() returns int language sql as 'select 1';\n")
    try:
        database = fresh_database(own, None, f"create extension {name}", "create extension vector")
        assert list(checked(database, here)) == ["superuser_only"]
    finally:
        control.unlink()
        script.unlink()
    found = checked(database, here)
    assert list(found) == ["extensions", "superuser_only"]
    assert found["extensions"].objects == (name,)
    assert found["superuser_only"].objects == ("untrusted extension vector",)


# -- the repository


def test_a_folder_that_cannot_be_written(own: PostgresServer, here: Repository, fresh_database: Fresh) -> None:
    database = fresh_database(own)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    # the tool's trial writes no file, the probe does
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, was[1]))
    try:
        findings = check(connection=database, server="main", repository=here)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert [finding.code for finding in findings if "write" in finding.code] == ["repository_write"]


def test_a_bucket_that_does_not_exist(s3: S3Server, own: PostgresServer, fresh_database: Fresh) -> None:
    database = fresh_database(own)
    missing = open_repository("s3://no-such-bucket-here/x", s3=S3Options(client_factory=s3.client))
    found = checked(database, missing)
    assert errors(found) == ["repository"]
    assert "no-such-bucket-here" in found["repository"].message
    empty = open_repository(f"s3://{s3.bucket()}/x", s3=S3Options(client_factory=s3.client))
    found = checked(database, empty)
    assert list(found) == ["repository"]
    assert "init" in found["repository"].hint
    empty.init()
    assert checked(database, empty) == {}
    assert [entry.key for entry in empty.list()] == ["repository.json"]


class SmallDisk(LocalRepository):
    """The disk behind it is said to have little room left."""

    room = 1000

    def free_bytes(self, prefix: str = "") -> int:
        return self.room


def test_too_little_space(own: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    database = fresh_database(own, None, *FILL)
    disk = SmallDisk(tmp_path)
    disk.init()
    found = checked(database, disk)
    assert list(found) == ["repository_full"]
    assert found["repository_full"].severity == "warning"
    # once there is a backup its size is known
    dump_database(connection=database, server="main", repository=disk, options=DumpOptions())
    assert checked(database, disk)["repository_full"].severity == "error"
    disk.room = 100_000
    assert checked(database, disk) == {}


def test_databases_without_a_backup(
    own: PostgresServer, here: Repository, fresh_database: Fresh, tmp_path: Path
) -> None:
    one, two, three = (fresh_database(own) for _ in range(3))
    dump_database(connection=two, server="main", repository=here, options=DumpOptions())
    dump_database(connection=three, server="another", repository=here, options=DumpOptions())
    found = checked(one, here)
    assert list(found) == ["not_covered"]
    assert found["not_covered"].objects == (three.dbname,)
    # roles alone are no backup of a database
    dump_cluster(connection=own.params, server="main", repository=here, options=DumpAllOptions(roles_only=True))
    assert list(checked(one, here)) == ["not_covered"]
    # nor is a dump that leaves it out
    options = DumpAllOptions(exclude_databases=[three.dbname])
    dump_cluster(connection=own.params, server="main", repository=here, options=options)
    assert checked(one, here)["not_covered"].objects == (three.dbname,)
    for manifest in tmp_path.rglob("manifest.json"):  # forged, with what no server can read
        manifest.write_text(manifest.read_text().replace(f'"{three.dbname}"', r'"\ud800"'))
    assert set(checked(one, here)) <= {"not_covered"}
    time.sleep(1.1)  # the id of a backup has seconds
    dump_cluster(connection=own.params, server="main", repository=here, options=DumpAllOptions())
    assert checked(one, here) == {}
    # a name that no folder can have
    assert errors({f.code: f for f in check(connection=one, server="", repository=here)}) == ["repository"]
