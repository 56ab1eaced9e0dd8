"""Reading a database ends at the deadline or when it is canceled, even while it waits for a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from airflow_pgbackup.errors import Canceled, DeadlineExceeded, ToolError
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
    "small tables": (
        lambda reader: reader.read_together([(Rows("public", "film", ("film_id",)), lambda data: None)] * 2),
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


def test_tables_read_together_have_the_bytes_of_each_alone(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    """Also none at all, rows without columns, rows of a MiB, and names in need of quotes."""
    database = fresh_database(
        server18,
        None,
        "create table empty (a int)",
        "create table bare ()",
        "insert into bare select from generate_series(1, 3)",
        """create table "o""d;d" ("a,b" text, c bytea, d text)""",
        r"""insert into "o""d;d" values (e'x\ty\n\\.', '\x00ff', 'ä'), (null, '', repeat('y', 1 << 20))""",
        "create table many as select n, md5(n::text) as t from generate_series(1, 50000) n",
    )
    tables = [("empty", ("a",)), ("bare", ()), ('o"d;d', ("c", "a,b", "d")), ("many", ("n", "t")), ("empty", ("a",))]
    wanted = [Rows("public", name, columns) for name, columns in tables]
    alone: list[bytes] = []
    together = [bytearray() for _ in wanted]
    with DatabaseReader(database, None, encoding="LATIN1", deadline=60.0) as reader:
        for rows in wanted:
            data = bytearray()
            reader.read(rows, data.extend)
            alone.append(bytes(data))
        reader.read_together([(rows, each.extend) for rows, each in zip(wanted, together, strict=True)])
        assert [bytes(each) for each in together] == alone
        assert [len(each) > 0 for each in alone] == [False, True, True, True, False]
        missing = Rows("public", "missing", ())
        with pytest.raises(ToolError, match=r'relation "public\.missing" does not exist'):
            reader.read_together([(wanted[1], lambda data: None), (missing, lambda data: None)])
        reader.read_together([(wanted[1], lambda data: None)])  # in another session


def test_the_values_of_many_sequences(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    database = fresh_database(
        server18,
        None,
        "do $$ begin for i in 1..250 loop execute format('create sequence %I', 's''%' || i); end loop; end $$",
        "select setval(format('%I', 's''%' || i), i * 7, i % 2 = 0) from generate_series(1, 249) i",
    )
    names = [("public", f"s'%{number}") for number in range(250, 0, -1)]
    with DatabaseReader(database, None, deadline=60.0) as reader:
        values = list(reader.sequences(names))
        assert list(reader.sequences([])) == []
    assert [(value.schema, value.name) for value in values] == names
    assert (values[0].last_value, values[0].is_called) == (1, False)  # never set
    assert [value.last_value for value in values[1:]] == [number * 7 for number in range(249, 0, -1)]
    assert [value.is_called for value in values[1:]] == [number % 2 == 0 for number in range(249, 0, -1)]
