"""restore_set: the databases of a set come back with their roles, beside nothing they could harm, and resumably."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from nights import fail, night
from psycopg import sql
from restoring import fresh_server, script_of
from sets import back_up_set

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.removal import remove_backup
from airflow_pgbackup.backup.sets.choose_set import choose_set
from airflow_pgbackup.backup.sets.restore_set import restore_set
from airflow_pgbackup.backup.sets.restore_set_plan import SetTarget
from airflow_pgbackup.errors import BackupNotFound, Canceled, ConfigurationError, RestoreError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.backup_set import Absent, BackupSet
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.set_files import write_set

DATABASES = ["app", 'Odd "Näme"', "billing"]
PASSWORD = "a login's secret"


def run(params: ConnectionParams, *statements: str | sql.Composed) -> None:
    with closing(params.connect()) as session:
        for statement in statements:
            session.execute(statement)  # type: ignore[arg-type]


def rows(params: ConnectionParams, statement: str) -> list[Any]:
    with closing(params.connect()) as session:
        return [row[0] for row in session.execute(statement)]  # type: ignore[arg-type]


def names(server: PostgresServer) -> set[str]:
    return set(rows(server.params, "select datname from pg_database where not datistemplate"))


@pytest.fixture(scope="module")
def source() -> Iterator[PostgresServer]:
    with fresh_server(18, password="secret", tcp=True) as server:
        run(server.params, f"create role keeper login password '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
        for number, name in enumerate(DATABASES):
            run(server.params, sql.SQL("create database {} owner keeper").format(sql.Identifier(name)))
            run(
                server.params.with_database(name),
                "create table t (id int primary key, text text)",
                f"insert into t select n, 'row ' || n from generate_series(1, {100 + number}) n",
                "alter table t owner to keeper",
                sql.SQL("alter database {} set work_mem = '7MB'").format(sql.Identifier(name)),
                sql.SQL("comment on database {} is 'of the fleet'").format(sql.Identifier(name)),
            )
        run(
            server.params,
            "alter database postgres set work_mem = '9MB'",
            "alter role keeper in database postgres set work_mem = '8MB'",
            "comment on database postgres is 'of all'",
        )
        yield server


@pytest.fixture(scope="module")
def other_server() -> Iterator[PostgresServer]:
    with fresh_server(18, password="secret", tcp=True) as server:
        yield server


@pytest.fixture
def target(other_server: PostgresServer, source: PostgresServer) -> Iterator[PostgresServer]:
    """An empty server; its superuser has a name of its own."""
    yield other_server
    for name in names(other_server) - {"postgres"}:
        run(other_server.params, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    run(
        other_server.params,
        "comment on database postgres is null",
        "alter database postgres owner to current_user",
        "alter database postgres reset work_mem",
    )
    for role in ("keeper", source.superuser):
        run(other_server.params, sql.SQL("drop role if exists {}").format(sql.Identifier(role)))


@pytest.fixture
def make_set(source: PostgresServer, here: Repository) -> Callable[..., BackupSet]:
    """``make_set()``: dump all databases of the source, and write their set."""

    def make(databases: Sequence[str] = DATABASES, missing: Sequence[Absent] = ()) -> BackupSet:
        return back_up_set(source, here, databases, missing)

    return make


def restored(here: Repository, server: PostgresServer, **more: Any) -> dict[str, Any]:
    context = more.pop("context", None)
    selector = more.pop("selector", "latest")
    dry_run = more.pop("dry_run", False)
    return restore_set(
        repository=here,
        server="prod",
        selector=selector,
        target=SetTarget(connection=server.params, **more),
        dry_run=dry_run,
        context=context,
    )


def definition(server: PostgresServer, database: str) -> str:
    """Return what pg_dump writes of a database, without what names the server or the restore."""
    return re.sub(
        r"\n?airflow-pgbackup: \{.*\}", "", script_of(server, server.params.with_database(database), "--create")
    )


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_empty_server_gets_everything(
    jobs: int, source: PostgresServer, target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    written = make_set([*DATABASES, "postgres"])
    outcome = restored(here, target, jobs=jobs)
    assert (outcome["set"], outcome["status"], outcome["missing"]) == (written.location, "complete", [])
    assert outcome["roles_created"] == ["keeper", source.superuser]
    assert [(one["database"], one["outcome"]) for one in outcome["databases"]] == [
        (name, "restored") for name in [*DATABASES, "postgres"]
    ]
    assert [one["rows"] for one in outcome["databases"]] == [100, 101, 102, 0]
    for name in [*DATABASES, "postgres"]:
        assert definition(target, name) == definition(source, name)
    login = ConnectionParams({**target.params.keywords, "user": "keeper", "dbname": "app"}, password=PASSWORD)
    assert rows(login, "select count(*) from t") == [100]


def test_jobs_never_replace_the_database_postgres(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set(["app", "postgres"])
    query = "select oid::text from pg_database where datname = 'postgres'"
    before = rows(target.params, query)
    outcome = restored(here, target, jobs_per_database=2)
    assert [one["outcome"] for one in outcome["databases"]] == ["restored"] * 2
    assert rows(target.params, query) == before


def test_a_second_call_restores_nothing_again(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set([*DATABASES, "postgres"])
    restored(here, target)
    run(target.params.with_database("app"), "insert into t values (0, 'written since')")
    outcome = restored(here, target)
    assert [one["outcome"] for one in outcome["databases"]] == ["earlier"] * 4
    assert rows(target.params.with_database("app"), "select text from t where id = 0") == ["written since"]
    assert outcome["roles_created"] == []


def test_a_restore_into_an_existing_database_that_was_killed_at_its_end_is_complete(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set(["app", "postgres"])
    restored(here, target)
    comment = "select shobj_description(oid, 'pg_database') from pg_database where datname = 'postgres'"
    written = rows(target.params, comment)[0]
    committed = rows(target.params, "select txid_current()")[0]
    begun = written.replace("}", f', "begun": true, "transaction": {committed}}}')
    run(target.params, sql.SQL("comment on database postgres is {}").format(begun))
    outcome = restored(here, target)
    assert [(one["database"], one["outcome"]) for one in outcome["databases"]] == [
        ("app", "earlier"),
        ("postgres", "restored"),
    ]
    assert "begun" not in rows(target.params, comment)[0]


def test_a_restore_into_an_existing_database_that_only_began_is_not_complete(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set(["app", "postgres"])
    restored(here, target)
    run(target.params, "drop database app")
    comment = "select shobj_description(oid, 'pg_database') from pg_database where datname = 'postgres'"
    begun = rows(target.params, comment)[0].replace("}", ', "begun": true}')
    run(target.params, sql.SQL("comment on database postgres is {}").format(begun), "create table others (a int)")
    try:
        with pytest.raises(ConfigurationError, match=r"already has database postgres\. "):
            restored(here, target)
        assert names(target) == {"postgres"}, "nothing was restored"
    finally:
        run(target.params, "drop table others")


def test_beside_what_the_server_has(
    source: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set()
    before = names(source)
    try:
        outcome = restored(here, source, prefix="old_", databases=["billing", "app"])
        assert names(source) - before == {"old_app", "old_billing"}
        assert outcome["roles_existing"] == ["keeper", source.superuser]
        assert rows(source.params.with_database("old_billing"), "select count(*) from t") == [102]
    finally:
        for name in ("old_app", "old_billing"):
            run(source.params, sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def test_a_database_of_the_same_name_stops_it_before_anything_is_changed(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set()
    run(target.params, "create database app")
    with pytest.raises(ConfigurationError, match=r"already has database app\.") as error:
        restored(here, target)
    assert "prefix" in (error.value.hint or "")
    assert names(target) == {"postgres", "app"}
    assert rows(target.params, "select rolname from pg_roles where rolname = 'keeper'") == []


def test_the_plan_changes_nothing_and_names_everything(
    source: PostgresServer, target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    written = make_set(["app"], missing=[Absent("crm", "its dump failed")])
    with pytest.raises(BackupNotFound, match="no backup set of prod is complete"):
        restored(here, target, dry_run=True)
    day = f"{written.started_at:%Y-%m-%d}"
    plan = "\n".join(restored(here, target, selector=day, dry_run=True)["plan"])
    assert f"roles to create: keeper, {source.superuser}" in plan
    assert f"superusers among the new roles: {source.superuser}" in plan
    assert "database app, new: " in plan
    assert "missing from the set: crm (its dump failed)" in plan
    assert "not one snapshot" in plan
    assert names(target) == {"postgres"}


def test_a_failure_holds_up_none_and_a_second_call_goes_on(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    written = make_set()
    lost = here.folders("prod")
    assert "billing" in lost
    key = next(each.key for each in written.databases if each.database == "app")
    with here.read(key) as stream:
        data = stream.read(-1)
    here.delete([key])
    here.write_bytes(key, bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(
        RestoreError, match=r"1 database could not be restored: app; 2 of 3 databases are restored"
    ) as raised:
        restored(here, target)
    assert "Nothing was changed" not in str(raised.value.hint), "hint of the first database"
    assert names(target) == {"postgres", 'Odd "Näme"', "billing"}
    here.delete([key])
    here.write_bytes(key, data)
    outcome = restored(here, target)
    assert {one["database"]: one["outcome"] for one in outcome["databases"]} == {
        "app": "restored",
        'Odd "Näme"': "earlier",
        "billing": "earlier",
    }


def test_canceled_half_way_it_goes_on_later(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set()
    cancel = Cancel()

    def stop(line: str) -> None:
        if line.startswith("app: renamed "):
            cancel.set()

    with pytest.raises(Canceled, match="of 3 databases are restored; a second call restores the rest"):
        restored(here, target, jobs=1, context=RunContext(cancel=cancel, log=stop))
    assert "app" in names(target)
    assert not names(target) & {"billing"}
    outcome = restored(here, target)
    assert outcome["databases"][0]["outcome"] == "earlier"
    assert names(target) == {"postgres", *DATABASES}


def test_existing_roles_keep_their_passwords_unless_asked(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set(["app"])
    run(target.params, "create role keeper login password 'their own' connection limit 3")
    login = {**target.params.keywords, "user": "keeper"}
    outcome = restored(here, target)
    assert "keeper" in outcome["roles_existing"]
    assert rows(ConnectionParams(login, password="their own"), "select 1") == [1]
    restored(here, target, update_passwords=True)
    assert rows(ConnectionParams(login, password=PASSWORD), "select 1") == [1]
    assert rows(target.params, "select rolconnlimit from pg_roles where rolname = 'keeper'") == [3]


def test_a_backup_that_was_removed_or_exchanged_is_noticed_first(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    written = make_set()
    first = written.databases[0]
    forged = replace(first, sha256="0" * 64)
    write_set(here, replace(written, databases=(forged, *written.databases[1:])))
    with pytest.raises(ConfigurationError, match=r"is not the one that set \S+ names"):
        restored(here, target)
    write_set(here, written)
    remove_backup(here, read_evidence(here, first.parsed_series, first.id).backup)
    with pytest.raises(BackupNotFound, match=r"1 backup of set prod/@sets/\S+ does not exist: prod/app/"):
        restored(here, target)
    assert "Select others with --database, or" in pgbackup(target, "restore-set", here.uri, "prod").stderr
    assert names(target) == {"postgres"}
    restored(here, target, databases=["billing"])
    assert names(target) == {"postgres", "billing"}


def test_a_database_that_was_restored_and_renamed_is_not_taken_for_another(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set(["app", "billing"])
    restored(here, target, databases=["billing"])
    run(target.params, "alter database billing rename to app")
    with pytest.raises(ConfigurationError, match=r"already has database app\."):
        restored(here, target)


@pytest.mark.parametrize(
    "comment", ["[" * 100_000 + "]" * 100_000, "airflow-pgbackup: {" * 40_000, '"request": 1', '{"x": ' + "9" * 5000]
)
def test_a_comment_of_a_database_is_not_trusted(
    comment: str, target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set(["app"])
    run(target.params, "create database app")
    text = sql.Literal(f'text\nairflow-pgbackup: {{"request": {comment}}}')
    run(target.params, sql.SQL("comment on database app is {}").format(text))
    with pytest.raises(ConfigurationError, match=r"already has database app\."):
        restored(here, target)


@pytest.mark.parametrize("version", ["18beta1", "18devel", "9" * 5000, "no version"])
def test_the_version_in_a_set_is_a_text(
    version: str, target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    write_set(here, replace(make_set(["app"]), server_version=version))
    outcome = restored(here, target, dry_run=True, allow_older_server=True)
    assert any(line.startswith("database app, new: ") for line in outcome["plan"])


def test_a_timeout_ends_the_restores_that_are_running(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    """Airflow's ``execution_timeout`` is an exception in the main thread, in a signal handler."""
    make_set()
    cancel, stopped = Cancel(), threading.Event()
    cancel.on_set(stopped.set)
    main = threading.main_thread().ident
    assert main is not None

    def expire(*_: object) -> None:
        raise TimeoutError("execution_timeout")

    def log(line: str) -> None:
        if "created database" in line:
            signal.pthread_kill(main, signal.SIGUSR1)
            assert stopped.wait(60), "the restore was left running"

    before = signal.signal(signal.SIGUSR1, expire)
    try:
        with pytest.raises(TimeoutError, match="execution_timeout"):
            restored(here, target, jobs=1, context=RunContext(cancel=cancel, log=log))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stopped.is_set()
    assert names(target) == {"postgres"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"jobs": 0}, "invalid jobs 0"),
        ({"databases": ["nosuch"]}, "has no database nosuch"),
        ({"databases": "app"}, "databases is the string 'app'"),
        ({"prefix": "x" * 62}, "is too long"),
        ({"selector": "yesterday"}, "does not select a backup set"),
    ],
)
def test_invalid_requests(
    more: dict[str, Any], message: str, target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    make_set(["app"])
    with pytest.raises(ConfigurationError, match=message):
        restored(here, target, **more)
    assert names(target) == {"postgres"}


def test_databases_are_restored_side_by_side(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet]
) -> None:
    """Each database waits, once it is created, until all are: with fewer than three jobs none would go on."""
    make_set()
    together = threading.Barrier(3, timeout=60)

    def meet(line: str) -> None:
        if "created database" in line:
            together.wait()

    outcome = restored(here, target, jobs=3, context=RunContext(log=meet))
    assert [one["outcome"] for one in outcome["databases"]] == ["restored"] * 3


def pgbackup(server: PostgresServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    params = server.params
    program = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PGPASSWORD": str(params.password)}
    env |= {"PGHOST": params.host, "PGPORT": params.port, "PGUSER": params.user}
    return subprocess.run([*program, *arguments], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_the_command(
    target: PostgresServer, here: Repository, make_set: Callable[..., BackupSet], assert_no_canary: Callable[..., None]
) -> None:
    location = make_set().location
    done = pgbackup(target, "restore-set", here.uri, "prod", "--dry-run")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "this would be done:")
    assert 'database Odd "Näme", new: ' in done.stdout
    assert names(target) == {"postgres"}
    done = pgbackup(target, "restore-set", here.uri, "prod", "--database", "app", "--json")
    assert [one["name"] for one in json.loads(done.stdout)["databases"]] == ["app"]
    done = pgbackup(target, "restore-set", here.uri, "prod", "--jobs", "3")
    assert done.returncode == 0
    assert re.match(
        rf"restored {re.escape(location)} into \S+ in [\d.]+ s: 2 databases, 1 by an earlier call\n", done.stdout
    )
    assert names(target) == {"postgres", *DATABASES}
    run(target.params, "comment on database app is null")
    done = pgbackup(target, "restore-set", here.uri, "prod")
    assert done.returncode == 2
    assert "already has database app\nhint: Give --prefix to restore beside them, " in done.stderr
    done = pgbackup(target, "restore-set", here.uri, "other")
    assert done.returncode == 1
    assert "has no backup set of other\nhint: It has sets of prod." in done.stderr
    assert_no_canary(done.stderr)


def test_a_set_of_which_a_backup_failed_is_not_restored(here: Repository, target: PostgresServer) -> None:
    older, newest = night(here, 1, "app", "crm"), night(here, 0, "app", "crm")
    fail(here, newest.databases[1])
    before = names(target)
    lines: list[str] = []
    assert choose_set(here, "prod", log=lines.append).id == older.id
    assert lines == [
        f"warning: newer backup set {newest.location} has a backup that cannot be used: crm failed verification; "
        f"using {older.id}"
    ]
    with pytest.raises(VerificationFailed, match=r"1 backup of set .* cannot be used: prod/crm/.* failed") as raised:
        restored(here, target, selector=newest.id, dry_run=True, with_globals=False)
    assert f"Restore set {older.id}" in str(raised.value.hint)
    assert names(target) == before
    fail(here, older.databases[0])
    with pytest.raises(BackupNotFound, match="no complete backup set of prod can be used"):
        choose_set(here, "prod")
