"""What counts as a retry of a task: a try of the same run, for the same backup, target and options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_pgbackup.operators._seed import seed
from airflow_pgbackup.operators.dump import PgDumpOperator
from airflow_pgbackup.operators.refresh import PgRefreshOperator
from airflow_pgbackup.operators.restore import PgRestoreOperator
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

STARTED = datetime(2026, 11, 28, 2, tzinfo=timezone.utc)
LATER = STARTED + timedelta(minutes=1)
REFERENCE = {"repository": "file:///r", "repository_uuid": "u", "series": "a/b", "id": "20261128T020000Z-3f9ac1"}


def context(task: Any, *, started: datetime = STARTED, max_tries: int | None = None) -> Any:
    """The context of a task; by default that of the first try, whose ``max_tries`` are the retries."""
    ti = SimpleNamespace(
        dag_id="dag",
        task_id=task.task_id,
        run_id="run",
        map_index=-1,
        try_number=1,
        max_tries=task.retries if max_tries is None else max_tries,
        task=task,
    )
    events: Any = defaultdict(lambda: SimpleNamespace(add=lambda *_, **__: None))
    return {"ti": ti, "dag_run": SimpleNamespace(start_date=started), "outlet_events": events}


def seed_of(task: Any, **changed: Any) -> str:
    return seed(task, context(task, **changed))


def restoring(**arguments: Any) -> PgRestoreOperator:
    return PgRestoreOperator(task_id="restore", **arguments)


class Unprintable:
    """An argument whose text has its address."""


class LazyNames(Sequence[str]):
    """The results of a mapped task, as XCom gives them."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getitem__(self, index: Any) -> Any:
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)


@pytest.mark.parametrize(
    "arguments",
    [
        {"backup": REFERENCE, "deadline": timedelta(hours=1), "use_list": Path("/l")},
        {"repository": "file:///r", "series": "a/b"},
        {"backup": REFERENCE, "extra_args": Unprintable()},
    ],
)
def test_a_retry_has_the_seed_of_the_first_try(arguments: dict[str, Any]) -> None:
    assert seed_of(restoring(**arguments)) == seed_of(restoring(**arguments))


def test_a_list_from_xcom_is_a_list() -> None:
    assert seed_of(restoring(tables=LazyNames("a", "b"))) == seed_of(restoring(tables=["a", "b"]))
    assert seed_of(restoring(tables=LazyNames("a", "b"))) != seed_of(restoring(tables=LazyNames("a", "c")))


@pytest.mark.parametrize(
    "arguments",
    [
        {"backup": {**REFERENCE, "id": "20261129T020000Z-3f9ac1"}},
        {"backup": REFERENCE, "tables": ["film"]},
        {"backup": REFERENCE, "schema_only": True},
        {"backup": REFERENCE, "database": "other"},
        {"backup": REFERENCE, "mode": "replace"},
    ],
)
def test_another_backup_target_or_option_is_another_request(arguments: dict[str, Any]) -> None:
    assert seed_of(restoring(**arguments)) != seed_of(restoring(backup=REFERENCE))


def test_arguments_of_a_subclass_count() -> None:
    class Masked(PgDumpOperator):
        def __init__(self, *, extent: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.extent = extent

    dump: dict[str, Any] = {"task_id": "dump", "repository": "file:///r"}
    assert seed_of(Masked(extent="all", **dump)) != seed_of(Masked(extent="half", **dump))
    assert seed_of(Masked(extent="all", **dump)) != seed_of(Masked(extent="all", schema_only=True, **dump))


def test_another_run_of_the_same_name_is_another_request() -> None:
    task = restoring(backup=REFERENCE)
    assert seed_of(task) != seed_of(task, started=LATER)


@pytest.mark.parametrize(
    ("old", "scheduled", "new"),
    [(1, 1, 1), (1, 1, 2), (0, 0, 1), (2, 1, 1), (2, 2, 1)],
    ids=["unedited", "raised, not parsed", "raised from none, not parsed", "lowered, parsed", "lowered, not parsed"],
)
def test_a_clear_is_another_request_whatever_retries_are(old: int, scheduled: int, new: int) -> None:
    """Airflow counts with the retries of the DAG that it has parsed, which may be older than the worker's file."""
    before, after = restoring(retries=old), restoring(retries=new)
    tries = 1
    assert seed_of(before, max_tries=old) != seed_of(after, max_tries=tries + scheduled)


@pytest.fixture
def databases(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> tuple[ConnectionParams, ConnectionParams]:
    """The connections ``source``, and ``target`` with other rows."""
    source = fresh_database(server18, None, "create table t as select 1 as version")
    target = fresh_database(server18, None, "create table t as select 0 as version")
    postgres_connection("source", source)
    postgres_connection("target", target)
    return source, target


@pytest.fixture
def folder(folder: Path) -> str:
    return folder.as_uri()


def dump(folder: str, name: str) -> dict[str, object]:
    task = PgDumpOperator(task_id=name, postgres_conn_id="source", repository=folder, verify="archive")
    return task.execute(context(task))


def version(database: ConnectionParams) -> int:
    with database.connect() as connection:
        ((found,),) = connection.execute("select version from t").fetchall()
    return int(found)


def set_version(database: ConnectionParams, to: int) -> None:
    with database.connect() as connection:
        connection.execute("update t set version = %s", [to])


@pytest.mark.parametrize("kind", [PgRestoreOperator, PgRefreshOperator])
def test_only_a_retry_of_the_same_run_and_backup_is_done(
    databases: tuple[ConnectionParams, ConnectionParams], folder: str, kind: Any
) -> None:
    source, target = databases
    first = dump(folder, "first")
    set_version(source, 2)
    second = dump(folder, "second")
    mode = {"mode": "replace"} if kind is PgRestoreOperator else {}

    def run(started: datetime = STARTED, **backup: Any) -> Any:
        task = kind(task_id="task", postgres_conn_id="target", **mode, **backup)
        return task.execute(context(task, started=started))["backup"]

    def name(reference: dict[str, object]) -> str:
        return f"{reference['series']}/{reference['id']}"

    assert (run(backup=first), version(target)) == (name(first), 1)
    set_version(target, 9)
    assert (run(backup=first), version(target)) == (name(first), 9), "a retry"
    assert (run(backup=second), version(target)) == (name(second), 2), "another backup"
    set_version(target, 9)
    assert (run(LATER, backup=second), version(target)) == (name(second), 2), "the run was deleted and made again"
    set_version(target, 9)

    latest: Any = {"repository": folder, "series": str(first["series"])}
    restored = run(**latest)  # the first or the second, which may be of the same second
    assert version(target) != 9
    set_version(source, 3)
    dump(folder, "third")
    set_version(target, 9)
    assert (run(**latest), version(target)) == (restored, 9), "a retry, which finds a newer backup"
    assert (run(**latest, backup_id=str(first["id"])), version(target)) == (name(first), 1), "edited"
