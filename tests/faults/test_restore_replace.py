"""Mode replace: whatever fails, and whenever, the name refers to a complete database, and nothing else remains."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import psycopg
import pytest
from contexts import in_context
from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.databases.temporary_database import PREFIX, TemporaryDatabases
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.progress import NoProgress
from airflow_pgbackup.backup.restore import context as restore_context
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.rename import rename_databases
from airflow_pgbackup.backup.restore.request import StateText
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import Canceled, ConfigurationError, DeadlineExceeded, RestoreError, ToolError, ToolKilled
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from tests.sampling import sample

Fresh = Callable[..., ConnectionParams]

SLOW = (
    "create table restored as select generate_series(1, 30) a",
    "create function slow(int) returns int immutable language plpgsql as "
    "$$ begin if current_database() ~ '^pgbackup_tmp_' then perform pg_catalog.pg_sleep(10); end if; "
    "return $1; end $$",
)
SLOW_INDEX = "create index i on restored (slow(a))"


@dataclass
class Setting:
    """A live database, and a backup that is to take its place."""

    server: PostgresServer
    reference: dict[str, object]
    repository: Repository
    target: ConnectionParams

    def replace(self, log: Callable[[str], None] = lambda line: None, **more: Any) -> dict[str, Any]:
        target = {name: more.pop(name) for name in ("keep_old", "terminate_sessions") if name in more}
        options = RestoreOptions(**more.pop("options", {}))
        connection = more.pop("connection", self.target)
        return restore(
            reference=self.reference,
            repository=self.repository,
            target=RestoreTarget(connection=connection, mode="replace", **target),
            options=options,
            **in_context({"log": log, "progress": NoProgress(), **more}),
        )

    def content(self) -> str:
        """The table in the database under its name."""
        with self.target.connect() as connection:
            found = connection.execute("select relname from pg_class where oid >= 16384 and relkind = 'r'")
            return " ".join(name for (name,) in found)

    def databases(self, beginning: str) -> list[str]:
        with self.server.params.connect() as connection:
            query = "select datname from pg_database where starts_with(datname, %s)"
            return [name for (name,) in connection.execute(query, [beginning])]

    def temporary(self) -> list[str]:
        return self.databases(PREFIX)

    def restoring(self) -> bool:
        """Whether pg_restore has come to the index of ``slow``, which takes it minutes."""
        query = (
            "select count(*) from pg_stat_activity where starts_with(datname, %s) "
            "and state = 'active' and query like 'CREATE INDEX%%'"
        )
        with self.server.params.connect() as connection:
            return connection.execute(query, [PREFIX]).fetchone() != (0,)

    def is_as_it_was(self) -> bool:
        return self.content() == "old" and self.databases(self.target.dbname) == [self.target.dbname]

    def drop_replaced(self) -> None:
        with self.server.params.connect() as connection:
            for name in self.databases(f"{self.target.dbname}_replaced_"):
                connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def setting(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> Iterator[Setting]:
    repository = open_repository(f"file://{tmp_path / 'repository'}")
    repository.init()
    source = fresh_database(server18, None, *SLOW)
    reference = dump_database(connection=source, server="test", repository=repository, options=DumpOptions())
    target = fresh_database(server18, None, "create table old as select 1 as a")
    made = Setting(server18, reference, repository, target)
    yield made
    made.drop_replaced()


@pytest.fixture
def slow(setting: Setting, fresh_database: Fresh) -> Setting:
    """The restore takes minutes, in which things can happen to it."""
    source = fresh_database(setting.server, None, *SLOW, SLOW_INDEX)
    setting.reference = dump_database(
        connection=source, server="slow", repository=setting.repository, options=DumpOptions()
    )
    return setting


def steps_of(setting: Setting) -> list[str]:
    """The lines of a replace that succeeds; what was old is back afterwards."""
    lines: list[str] = []
    setting.replace(at(0, fail, lines), keep_old=False)
    with setting.target.connect() as connection:
        connection.execute("drop table restored; drop function slow; create table old as select 1 as a")
    return lines


def descendants(word: str) -> list[psutil.Process]:
    """Processes below this one with the word in an argument; those of other workers of pytest are not ours."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(word in argument for argument in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def guards() -> list[psutil.Process]:
    """Processes of ours that would drop temporary databases."""
    return descendants("_drop_guard.py")


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


class Injected(Exception):
    pass


def at(number: int, action: Callable[[], None], seen: list[str] | None = None) -> Callable[[str], None]:
    """A log that does something at its n-th line, of those that every replace has."""
    seen = [] if seen is None else seen

    def log(line: str) -> None:
        if line.startswith("dropped pgbackup_tmp_"):  # left by a test before
            return
        seen.append(line)
        if len(seen) == number:
            action()

    return log


def fail() -> None:
    raise Injected


def test_a_failure_at_any_step_leaves_the_old_database(setting: Setting) -> None:
    steps = steps_of(setting)
    done = next(number for number, line in enumerate(steps, 1) if line.startswith("renamed pgbackup_tmp_"))
    assert done > 10
    for number in sample(range(1, done), 3):
        with pytest.raises(Injected):
            setting.replace(at(number, fail))
        assert setting.is_as_it_was(), steps[number - 1]
        assert setting.temporary() == []
    assert wait_until(lambda: not guards())
    # From the swap on it has happened, and a log that fails is no failure of the restore.
    for number in range(done, len(steps) + 1):
        result = setting.replace(at(number, fail))
        assert setting.content() == "restored"
        assert setting.databases(f"{setting.target.dbname}_replaced_") == [result["replaced"]]
        setting.drop_replaced()
        with setting.target.connect() as connection:
            connection.execute("drop table restored; drop function slow; create table old as select 1 as a")


def test_stopped_at_any_step(setting: Setting) -> None:
    steps = steps_of(setting)
    done = next(number for number, line in enumerate(steps, 1) if line.startswith("renamed pgbackup_tmp_"))
    for number in sample(range(1, done), 3):
        cancel = Cancel()
        with pytest.raises(Canceled):
            setting.replace(at(number, cancel.set), cancel=cancel)
        assert setting.is_as_it_was(), steps[number - 1]
        assert setting.temporary() == []


KILLED = """
import json, os, signal, sys
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.progress import NoProgress
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.open import open_repository

order = json.load(sys.stdin)
lines = []

def log(line):
    if line.startswith("dropped pgbackup_tmp_"):
        return
    lines.append(line)
    print(line, flush=True)
    if len(lines) == order["number"]:
        os.kill(os.getpid(), order["signal"])

connection = ConnectionParams(keywords=order["keywords"], password=order["password"])
restore(
    reference=order["reference"],
    repository=open_repository(order["repository"]),
    target=RestoreTarget(connection=connection, mode="replace", keep_old=False),
    context=RunContext(log=log, progress=NoProgress()),
)
"""


@contextmanager
def restoring_process(
    setting: Setting, number: int, how: signal.Signals = signal.SIGKILL
) -> Iterator[subprocess.Popen[str]]:
    """Another process that replaces the database, and kills or stops itself at its n-th line; never at 0."""
    order = {
        "number": number,
        "signal": how,
        "keywords": dict(setting.target.keywords),
        "password": setting.target.get_password(),
        "reference": setting.reference,
        "repository": setting.repository.uri,
    }
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order))
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()


def test_killed_at_any_step(setting: Setting) -> None:
    steps = steps_of(setting)
    first = next(number for number, line in enumerate(steps, 1) if line.startswith("created database "))
    done = next(number for number, line in enumerate(steps, 1) if line.startswith("renamed pgbackup_tmp_"))
    for number in sample(range(first, done), 3):
        with restoring_process(setting, number) as process:
            assert process.wait(60) == -signal.SIGKILL
        assert setting.content() == "old"
        assert wait_until(lambda: not setting.temporary()), steps[number - 1]
        assert setting.is_as_it_was()
    with restoring_process(setting, done) as process:
        assert process.wait(60) == -signal.SIGKILL
    assert setting.content() == "restored"


def test_killed_while_pg_restore_runs(slow: Setting) -> None:
    with restoring_process(slow, 0) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("created database "):
                break
        assert wait_until(slow.restoring)
        assert slow.temporary()
        process.kill()
    assert slow.content() == "old"
    assert wait_until(lambda: not slow.temporary())
    assert slow.is_as_it_was()


def test_the_next_restore_drops_what_a_killed_machine_left(setting: Setting) -> None:
    steps = steps_of(setting)
    created = next(number for number, line in enumerate(steps, 1) if line.startswith("created database "))
    with restoring_process(setting, created, signal.SIGSTOP) as process:
        stopped = psutil.Process(process.pid)
        assert wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED)
        (guard,) = guards()
        guard.kill()
        process.kill()
    (left,) = setting.temporary()
    assert wait_until(lambda: not guard.is_running() or guard.status() == psutil.STATUS_ZOMBIE)
    # its sessions end when the server notices
    with setting.server.params.connect() as connection:
        query = (
            "select count(*) from pg_stat_activity "
            "where datname = %s or application_name = 'airflow-pgbackup ' || split_part(%s, '_', 3)"
        )
        assert wait_until(lambda: connection.execute(query, [left, left]).fetchone() == (0,))
    lines: list[str] = []
    setting.replace(lines.append, keep_old=False)
    assert f"dropped {left}, left by a restore that was killed" in lines
    assert setting.temporary() == []
    assert setting.content() == "restored"


def test_databases_of_a_running_restore_are_not_dropped(setting: Setting) -> None:
    lines: list[str] = []
    with TemporaryDatabases(setting.server.params) as others:
        used, _ = others.create([lambda name: f"create database {name} template template0"])
        setting.replace(lines.append, keep_old=False)
        assert setting.temporary() == [used.dbname]
    assert setting.temporary() == []


def test_pg_restore_killed_by_another_process(slow: Setting) -> None:
    def kill() -> None:
        def run() -> None:
            if not wait_until(slow.restoring):
                return  # the next test's programs are not meant
            for process in descendants("pg_restore"):
                with suppress(psutil.NoSuchProcess):
                    if Path(process.exe()).name == "pg_restore":
                        process.kill()

        threading.Thread(target=run).start()

    def log(line: str) -> None:
        if line.startswith("created database "):
            kill()

    with pytest.raises(ToolKilled, match=r"pg_restore was killed by SIGKILL.* was not changed"):
        slow.replace(log)
    assert slow.is_as_it_was()
    assert slow.temporary() == []


def test_the_server_ends_all_our_sessions(slow: Setting) -> None:
    def end() -> None:
        def run() -> None:
            if not wait_until(slow.restoring):
                return
            with slow.server.params.connect() as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
                    "and (application_name like 'airflow-pgbackup%%' or datname like 'pgbackup_tmp_%%')"
                )

        threading.Thread(target=run).start()

    def log(line: str) -> None:
        if line.startswith("created database "):
            end()

    with pytest.raises(ToolError, match=r"terminating connection due to administrator command.* was not changed"):
        slow.replace(log)
    assert slow.is_as_it_was()
    assert slow.temporary() == []


def test_a_deadline(slow: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that stands still until pg_restore runs, which has one of its own."""
    start = time.monotonic()
    monkeypatch.setattr(restore_context, "time", SimpleNamespace(monotonic=lambda: start))
    with pytest.raises(DeadlineExceeded, match=r"pg_restore was still running at its deadline .*was not changed"):
        slow.replace(deadline=2.5)
    assert slow.is_as_it_was()
    assert slow.temporary() == []


def test_stopped_while_pg_restore_runs(slow: Setting) -> None:
    cancel = Cancel()

    def log(line: str) -> None:
        if line.startswith("created database "):
            threading.Thread(target=lambda: (wait_until(slow.restoring), cancel.set())).start()

    with pytest.raises(Canceled, match=r"pg_restore was stopped.* was not changed"):
        slow.replace(log, cancel=cancel)
    assert slow.is_as_it_was()
    assert slow.temporary() == []


def test_a_client_that_comes_back_again_and_again(setting: Setting) -> None:
    over = threading.Event()
    came: list[int] = []

    def client() -> None:
        while not over.is_set():
            try:
                with setting.target.connect() as connection:
                    while not over.is_set():
                        connection.execute("select 1")
                        came.append(1)
            except (psycopg.Error, Exception):
                continue

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        assert wait_until(lambda: len(came) > 10)
        result = setting.replace()
        count = len(came)
        assert wait_until(lambda: len(came) > count + 10)  # and they find the new one
    finally:
        over.set()
        for thread in clients:
            thread.join()
    assert setting.content() == "restored"
    old = setting.target.with_database(result["replaced"])
    with old.connect() as connection:
        assert connection.execute("select a from old").fetchone() == (1,)


def test_sessions_that_may_not_be_ended_are_named_before_anything_is_changed(setting: Setting) -> None:
    lines: list[str] = []
    with setting.server.params.connect() as connection:  # the session that filled it may still be ending
        query = "select count(*) from pg_stat_activity where datname = %s"
        assert wait_until(lambda: connection.execute(query, [setting.target.dbname]).fetchone() == (0,))
    with session(setting.target, label="the shop"):
        refusal = rf'database "{setting.target.dbname}" is in use by process \d+ of \w+ \(the shop\)'
        with pytest.raises(ConfigurationError, match=refusal) as refused:
            setting.replace(lines.append, terminate_sessions=False)
    assert "terminate_sessions" in str(refused.value)
    assert not [line for line in lines if "verified the SHA-256" in line]
    assert setting.is_as_it_was()


def test_a_session_that_connects_before_the_rename_and_may_not_be_ended(setting: Setting) -> None:
    came: list[Any] = []

    def log(line: str) -> None:
        if line.startswith("restored objects and rows"):
            came.append(setting.target.connect())

    with pytest.raises(
        RestoreError, match=r"cannot rename the new database: .*is being accessed by other users; .*was not changed"
    ):
        setting.replace(log, terminate_sessions=False)
    assert came[0].execute("select a from old").fetchone() == (1,)
    came[0].close()
    assert setting.is_as_it_was()
    assert setting.temporary() == []


def test_privileges_revoked_before_the_rename(setting: Setting) -> None:
    with setting.server.params.connect() as admin:
        admin.execute("create role passing login createdb password 'passing'")
        admin.execute(sql.SQL("alter database {} owner to passing").format(sql.Identifier(setting.target.dbname)))

        def log(line: str) -> None:
            if line.startswith("renaming "):
                admin.execute("alter role passing nocreatedb")

        try:
            keywords = {**setting.target.keywords, "user": "passing"}
            connection = ConnectionParams(keywords=keywords, password="passing")
            with pytest.raises(RestoreError, match=r"permission denied to rename database.* was not changed"):
                setting.replace(log, connection=connection, options={"no_owner": True})
            assert setting.is_as_it_was()
            assert setting.temporary() == []
        finally:
            admin.execute(
                sql.SQL("alter database {} owner to {}").format(
                    sql.Identifier(setting.target.dbname), sql.Identifier(setting.server.superuser)
                )
            )
            admin.execute("drop role passing")


def test_settings_that_cannot_be_applied(setting: Setting) -> None:
    name = sql.Identifier(setting.target.dbname)
    with setting.server.params.connect() as admin:
        admin.execute("create role passing login createdb password 'passing'")
        admin.execute(sql.SQL("alter database {} owner to passing").format(name))
        admin.execute(
            sql.SQL("alter database {} set log_min_duration_statement to 0").format(name)
        )  # by superusers only
        try:
            connection = ConnectionParams(keywords={**setting.target.keywords, "user": "passing"}, password="passing")
            refusal = r"applying ALTER DATABASE to the database: permission denied to set parameter .* was not changed"
            with pytest.raises(RestoreError, match=refusal):
                setting.replace(connection=connection, options={"no_owner": True})
            assert setting.is_as_it_was()
            assert setting.temporary() == []
        finally:
            owner = sql.Identifier(setting.server.superuser)
            admin.execute(sql.SQL("alter database {} owner to {}").format(name, owner))
            admin.execute("drop role passing")


# -- a retry of what has succeeded


def insert(setting: Setting) -> None:
    """What an application has written since the swap."""
    with setting.target.connect() as connection:
        connection.execute("create table written_since (a int)")


def replaced(setting: Setting) -> list[str]:
    return setting.databases(f"{setting.target.dbname}_replaced_")


def comment(setting: Setting) -> str | None:
    with setting.target.connect() as connection:
        query = "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()"
        return connection.execute(query).fetchone()[0]  # type: ignore[index, no-any-return]


@pytest.mark.parametrize("keep_old", [True, False])
def test_a_retry_recognizes_a_completed_restore(setting: Setting, keep_old: bool) -> None:
    first = setting.replace(seed="a task", keep_old=keep_old)
    insert(setting)
    old = replaced(setting)
    assert old == ([first["replaced"]] if keep_old else [])
    lines: list[str] = []
    again = setting.replace(lines.append, seed="a task", keep_old=keep_old)
    assert {"restored", "written_since"} == set(setting.content().split())
    assert replaced(setting) == old
    same = ("backup", "reference", "database", "databases", "mode", "replaced", "dry_run")
    assert {name: again[name] for name in same} == {name: first[name] for name in same}
    assert any("an earlier attempt of this task has restored" in line for line in lines)
    # Somebody else's request is none of that.
    setting.replace(seed="another task", keep_old=False)
    assert setting.content() == "restored"


def test_a_retry_drops_the_old_database_that_the_killed_attempt_kept(setting: Setting) -> None:
    first = setting.replace(seed="a task")
    assert replaced(setting) == [first["replaced"]]
    assert setting.replace(seed="a task", keep_old=False, dry_run=True)["replaced"] is None
    assert replaced(setting) == [first["replaced"]]
    assert setting.replace(seed="a task", keep_old=False)["replaced"] is None
    assert replaced(setting) == []
    assert setting.content() == "restored"


def test_a_retry_reports_which_backup_was_restored(setting: Setting, fresh_database: Fresh) -> None:
    """``latest`` is another one by then."""
    first = setting.replace(seed="a task", keep_old=False)
    source = fresh_database(setting.server, None, "create table newer as select 1 as a")
    setting.reference = dump_database(
        connection=source, server="test", repository=setting.repository, options=DumpOptions()
    )
    again = setting.replace(seed="a task", keep_old=False)
    assert again["backup"] == first["backup"]
    assert (again["reference"]["series"], again["reference"]["id"]) == (
        first["reference"]["series"],
        first["reference"]["id"],
    )
    assert setting.content() == "restored"


def test_the_comment_is_kept_beside_the_marker(setting: Setting) -> None:
    text = "Ours: \\ 'é' %s\n{}"
    with setting.target.connect() as connection:
        connection.execute(
            sql.SQL("comment on database {} is {}").format(sql.Identifier(setting.target.dbname), sql.Literal(text))
        )
    setting.replace(keep_old=False)
    assert comment(setting) == text, "nobody retries this one"
    for request in ("a task", "another"):
        setting.replace(seed=request, keep_old=False)
        beside, _, mark = (comment(setting) or "").rpartition("\n")
        assert beside == text
        assert mark.startswith("airflow-pgbackup: {")
    setting.replace(keep_old=False)
    assert comment(setting) == text


def test_a_zombie_does_not_replace_what_its_retry_has_restored(setting: Setting) -> None:
    """The first is at its end when the second, of the same task, begins and succeeds."""
    done: list[dict[str, Any]] = []

    def meanwhile(line: str) -> None:
        if line.startswith("renaming ") and not done:
            done.append(setting.replace(seed="a task"))
            insert(setting)

    with pytest.raises(RestoreError, match="another attempt of this task has replaced"):
        setting.replace(meanwhile, seed="a task")
    assert {"restored", "written_since"} == set(setting.content().split())
    assert replaced(setting) == [done[0]["replaced"]]
    assert setting.temporary() == []


def test_a_database_replaced_by_another_is_not_replaced(setting: Setting, fresh_database: Fresh) -> None:
    """In the moment between the last look and the lock."""
    made, name = fresh_database(setting.server), setting.target.dbname
    with pytest.raises(RestoreError, match="another restore has replaced database"):
        rename_databases(
            setting.server.params,
            [(name, f"{name}_replaced_x"), (made.dbname, name)],
            end_sessions_in=[name],
            state=(state := StateText("as before")),
            after="replaced",
            warn=pytest.fail,
            expected={name: 4711},
        )
    assert state.text == "as before"
    assert setting.is_as_it_was()
    assert setting.databases(made.dbname) == [made.dbname]


def test_a_database_that_was_dropped_is_named(setting: Setting) -> None:
    name = setting.target.dbname
    for expected in ({}, {"no such database": 4711}):
        with pytest.raises(RestoreError, match='database "no such database" was dropped or renamed') as failed:
            rename_databases(
                setting.server.params,
                [("no such database", f"{name}_x")],
                end_sessions_in=["no such database"],
                state=(state := StateText("as before")),
                after="replaced",
                warn=pytest.fail,
                expected=expected,
            )
        assert state.text == "as before"
        assert "restore again" in str(failed.value.hint)


def test_the_target_is_dropped_at_the_last_moment(setting: Setting) -> None:
    def meanwhile(line: str) -> None:
        if line.startswith("renaming "):
            with setting.server.params.connect() as session:
                session.execute(f'drop database "{setting.target.dbname}" with (force)'.encode())

    with pytest.raises(RestoreError, match="was dropped or renamed during the restore"):
        setting.replace(meanwhile)
    assert setting.temporary() == []
