"""Reading a database ends at the deadline or when it is canceled, even while it waits for a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from airflow_pgbackup.errors import Canceled, DeadlineExceeded
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader, Rows
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel

Query = Callable[[DatabaseReader], object]

# A query, and a statement in an open transaction that makes it wait.
QUERIES: dict[str, tuple[Query, str]] = {
    "count": (lambda reader: reader.count("public", "film", only=True), "lock table film in access exclusive mode"),
    "large objects": (lambda reader: reader.large_objects(), "lock table pg_largeobject in access exclusive mode"),
    "sequences": (lambda reader: list(reader.sequences([("public", "film_id")])), "drop sequence film_id"),
    "rows": (
        lambda reader: reader.read(Rows("public", "film", ("film_id",)), lambda data: None),
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


@pytest.mark.parametrize("what", QUERIES)
def test_a_query_that_waits_ends_at_its_deadline(database: ConnectionParams, what: str) -> None:
    query, lock = QUERIES[what]
    with database.connect(autocommit=False) as other:
        other.execute(lock)
        with DatabaseReader(database, None, deadline=1.0) as reader, pytest.raises(DeadlineExceeded):
            query(reader)
        other.rollback()
    with DatabaseReader(database, None, deadline=600.0) as reader:
        query(reader)


@pytest.mark.parametrize("what", QUERIES)
def test_a_query_that_waits_can_be_canceled(database: ConnectionParams, what: str) -> None:
    query, lock = QUERIES[what]
    cancel = Cancel()
    with database.connect(autocommit=False) as other:
        other.execute(lock)
        with DatabaseReader(database, None, cancel=cancel) as reader:
            timer = threading.Timer(0.5, cancel.set)
            timer.start()
            with pytest.raises(Canceled):
                query(reader)
            timer.join()
            with pytest.raises(Canceled):
                query(reader)
        other.rollback()
