"""Reading a live database ends when the task is asked to stop, and at its deadline, whatever it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from airflow_pgbackup.errors import Canceled, DeadlineExceeded
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader, Rows
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel

Look = Callable[[DatabaseReader], object]

# What is looked at, and a statement in an open transaction that makes the look wait.
LOOKS: dict[str, tuple[Look, str]] = {
    "count": (lambda live: live.count("public", "film", only=True), "lock table film in access exclusive mode"),
    "large objects": (lambda live: live.large_objects(), "lock table pg_largeobject in access exclusive mode"),
    "sequences": (lambda live: list(live.sequences([("public", "film_id")])), "drop sequence film_id"),
    "rows": (
        lambda live: live.read(Rows("public", "film", ("film_id",)), lambda data: None),
        "lock table film in access exclusive mode",
    ),
}


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(
        server18,
        None,
        "create table film (film_id int)",
        "insert into film select generate_series(1, 10)",
        "create sequence film_id",
        "select lo_from_bytea(4711, 'a large object')",
    )


@pytest.mark.parametrize("what", LOOKS)
def test_a_look_that_waits_ends_at_its_deadline(database: ConnectionParams, what: str) -> None:
    look, lock = LOOKS[what]
    with database.connect(autocommit=False) as other:
        other.execute(lock)
        start = time.monotonic()
        with DatabaseReader(database, None, deadline=1.0) as live, pytest.raises(DeadlineExceeded):
            look(live)
        assert time.monotonic() - start < 10
        other.rollback()
    with DatabaseReader(database, None, deadline=60.0) as live:
        look(live)


@pytest.mark.parametrize("what", LOOKS)
def test_a_look_that_waits_can_be_canceled(database: ConnectionParams, what: str) -> None:
    look, lock = LOOKS[what]
    cancel = Cancel()
    with database.connect(autocommit=False) as other:
        other.execute(lock)
        with DatabaseReader(database, None, cancel=cancel) as live:
            timer = threading.Timer(0.5, cancel.set)
            timer.start()
            with pytest.raises(Canceled):
                look(live)
            timer.join()
            with pytest.raises(Canceled):
                look(live)
        other.rollback()
