"""Sessions with an empty search_path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.search_path import open_session
from airflow_pgbackup.postgres.server.throwaway import PostgresServer


@dataclass(frozen=True)
class _EndsSessions:
    """Connection parameters whose server ends each session as soon as it is open."""

    params: ConnectionParams

    @property
    def label(self) -> str:
        return self.params.label

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        session = self.params.connect()
        with self.params.connect() as other:
            other.execute("select pg_terminate_backend(%s, 60000)", [session.info.backend_pid])
        return session


def test_a_session_that_ends_at_once_has_a_hint(server18: PostgresServer) -> None:
    with pytest.raises(ConnectError, match="terminating connection due to administrator command") as caught:
        open_session(_EndsSessions(server18.params))
    assert caught.value.hint and "see its log" in caught.value.hint


def test_a_superuser_s_messages_are_in_english(
    server16: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    """Another role may not set that, and can connect all the same."""
    database = fresh_database(server16)
    role = f"plain_{database.dbname}"
    with database.connect() as session:
        session.execute(f"alter database {database.dbname} set lc_messages = 'POSIX'".encode())
        session.execute(f"create role {role} login password 'x'".encode())
    plain = replace(database, keywords={**database.keywords, "user": role}, password="x")
    try:
        for params, expected in ((database, "C"), (plain, "POSIX")):
            with open_session(params) as session:
                assert session.execute("show lc_messages").fetchone() == (expected,)
    finally:
        with database.connect() as session:
            session.execute(f"drop role {role}".encode())
