"""Mode into_empty: a retry of a restore that was killed knows whether it is complete, and believes nothing else."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from contexts import in_context

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.progress import NoProgress
from airflow_pgbackup.backup.restore import database, noted_transaction, restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import ConfigurationError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository

Fresh = Callable[..., ConnectionParams]

GATE = 4711
CONTENTS = (
    "create table restored as select generate_series(1, 3) a",
    # The last statement of a restore waits until the test lets it end.
    "create function gate(int) returns int immutable language plpgsql as $$ begin "
    f"perform pg_catalog.pg_advisory_lock_shared({GATE}); return $1; end $$",
    "create index on restored (gate(a))",
    "select lo_from_bytea(4711, 'large')",
)


class Killed(BaseException):
    """As SIGKILL: nothing of ours runs after it."""


@dataclass
class Setting:
    """A backup, and the empty database that it is restored into."""

    repository: Repository
    reference: dict[str, object]
    target: ConnectionParams

    def restore(self, log: Callable[[str], None] = lambda line: None, **more: Any) -> dict[str, Any]:
        return restore(
            reference=self.reference,
            repository=self.repository,
            target=RestoreTarget(connection=self.target, mode="into_empty"),
            **in_context({"log": log, "progress": NoProgress(), **more}),
        )

    def kill(self, at: str, seed: str = "a task") -> None:
        """Begin a restore that ends at a line of its log."""

        def log(line: str) -> None:
            if line.startswith(at):
                raise Killed

        with pytest.raises(Killed):
            self.restore(log, seed=seed)

    def execute(self, *statements: str) -> None:
        with self.target.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def value(self, query: str) -> Any:
        with self.target.connect() as connection:
            row = connection.execute(query).fetchone()
            return row and row[0]

    def comment(self) -> str:
        query = "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()"
        return str(self.value(query))


@pytest.fixture
def make(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> Callable[..., Setting]:
    repository = open_repository(f"file://{tmp_path / 'repository'}")
    repository.init()

    def setting(*statements: str, **options: Any) -> Setting:
        source = fresh_database(server18, None, *statements)
        reference = dump_database(
            connection=source, server="test", repository=repository, options=DumpOptions(**options)
        )
        return Setting(repository, reference, fresh_database(server18))

    return setting


@contextmanager
def gate(setting: Setting) -> Iterator[None]:
    """Hold the restore up until its transaction is noted."""

    def hold() -> None:
        with setting.target.connect() as connection:
            connection.execute(f"select pg_advisory_lock({GATE})")
            held.set()
            limit = time.monotonic() + 60
            while time.monotonic() < limit and not re.search(r'"transaction": [1-9]', setting.comment()):
                time.sleep(0.01)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    yield
    thread.join()


@pytest.mark.parametrize("format", ["custom", "directory", "plain"])
def test_what_a_killed_attempt_has_committed_is_found(make: Callable[..., Setting], format: str) -> None:
    """It was killed between the commit and the mark that says so."""
    setting = make(*CONTENTS, format=format)
    with gate(setting):
        setting.kill("restored objects and rows")
    setting.execute("insert into restored values (4)", "create table written_since (a int)")
    lines: list[str] = []
    assert setting.restore(lines.append, seed="a task", dry_run=True)["dry_run"]
    assert '"begun": true' in setting.comment(), "a dry run changes nothing"
    setting.restore(lines.append, seed="a task")
    assert sum("an earlier attempt of this task has restored" in line for line in lines) == 2
    assert "begun" not in setting.comment()
    setting.restore(seed="a task")
    assert setting.value("select count(*) from restored, written_since") == 0
    assert setting.value("select count(*) from restored") == 4


@contextmanager
def nothing_noted(*_: object, **__: object) -> Iterator[None]:
    yield


def test_what_was_committed_before_it_was_noted_is_not_believed(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restore was over before its transaction was seen."""
    monkeypatch.setattr(database, "noted_transaction", nothing_noted)
    setting = make(*CONTENTS)
    setting.kill("restored objects and rows")
    with pytest.raises(ConfigurationError, match="is not empty: it has") as caught:
        setting.restore(seed="a task")
    assert caught.value.hint == (
        "An earlier attempt of this task may have restored these objects: check the database, and restore with mode "
        "replace if it is not complete."
    )


def test_a_number_that_is_none_is_an_error(failed: Setting) -> None:
    failed.execute("create table another (a int)")
    for number in ("9999999999999", '"no"', "1e40"):
        comment = re.sub(r'"transaction": \d+', f'"transaction": {number}', failed.comment())
        failed.execute(f"""comment on database "{failed.target.dbname}" is '{comment}'""")
        with pytest.raises(ConfigurationError, match="not empty"):
            failed.restore(seed="a task")


@pytest.fixture
def failed(make: Callable[..., Setting]) -> Setting:
    """A restore failed, so its database is empty and marked as begun; the next one would succeed."""
    setting = make(
        "create table restored as select generate_series(1, 3) a",
        "create function checked(int) returns int immutable language plpgsql as $$ begin "
        "if current_setting('test.fails', true) = 'on' then raise 'as asked'; end if; return $1; end $$",
        "create index on restored (checked(a))",
    )
    name = setting.target.dbname
    setting.execute(f'alter database "{name}" set test.fails = on')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "noted_transaction", nothing_noted)  # as after SIGKILL
        with pytest.raises(ToolError, match="as asked"):
            setting.restore(seed="a task")
    assert '"begun": true' in setting.comment()
    setting.execute(f'alter database "{name}" reset test.fails')
    return setting


def test_what_failed_is_restored_by_the_next_attempt(failed: Setting) -> None:
    failed.restore(seed="a task")
    assert failed.value("select count(*) from restored") == 3
    assert "begun" not in failed.comment()


@pytest.mark.parametrize(
    "statements", [["create table restored (a int)"], ["create table restored (a int)", "create table another (a int)"]]
)
def test_what_somebody_made_is_not_taken_for_the_restore(failed: Setting, statements: list[str]) -> None:
    failed.execute(*statements)
    with pytest.raises(ConfigurationError, match="is not empty: it has"):
        failed.restore(seed="a task")


def test_the_begun_restore_of_another_request_is_not_ours(failed: Setting) -> None:
    failed.kill("restored objects and rows", seed="another task")
    with pytest.raises(ConfigurationError, match="is not empty: it has"):
        failed.restore(seed="a task")


def test_a_restore_that_nobody_retries_removes_the_mark(failed: Setting) -> None:
    failed.execute(f"""comment on database "{failed.target.dbname}" is 'Ours\n{failed.comment()}'""")
    failed.restore()
    assert failed.comment() == "Ours"
    with pytest.raises(ConfigurationError, match="is not empty: it has"):
        failed.restore(seed="a task")


@pytest.mark.every_value
@pytest.mark.parametrize("limited", ["role", "database"])
@pytest.mark.parametrize("format", ["custom", "plain"])
def test_one_connection_is_enough(
    make: Callable[..., Setting], server18: PostgresServer, limited: str, format: str
) -> None:
    """The restore's own tool gets it, not what notes the transaction."""
    without = {"no_owner": True, "no_privileges": True}
    setting = make("create table restored as select generate_series(1, 3) a", format=format, **without)
    role, name = f"one_{secrets.token_hex(6)}", setting.target.dbname
    setting.execute(
        f"create role {role} login password 'secret' {'connection limit 1' if limited == 'role' else ''}",
        f'alter database "{name}" owner to {role}',
        f'alter database "{name}" connection limit {1 if limited == "database" else -1}',
        f"grant all on schema public to {role}",
    )
    setting.target = replace(setting.target, keywords={**setting.target.keywords, "user": role}, password="secret")
    try:
        setting.restore(seed="a task", **({"options": RestoreOptions(no_owner=True)} if format == "custom" else {}))
        assert setting.value("select count(*) from restored") == 3
    finally:
        with server18.params.connect() as connection:
            connection.execute(f'alter database "{name}" owner to current_user'.encode())
        with server18.params.with_database(name).connect() as connection:
            connection.execute(f"drop owned by {role}; drop role {role}".encode())


def test_the_number_of_a_transaction_beside_an_older_one_that_runs(
    server18: PostgresServer, fresh_database: Fresh
) -> None:
    database = fresh_database(server18)
    with database.connect(autocommit=False) as older, database.connect(autocommit=False) as ours:
        older.execute("select txid_current()")
        ours.execute("set application_name = 'ours'")
        number = ours.execute("select txid_current()").fetchone()
        with database.connect() as connection:
            assert connection.execute(noted_transaction.TRANSACTION, ["ours"]).fetchone() == number
