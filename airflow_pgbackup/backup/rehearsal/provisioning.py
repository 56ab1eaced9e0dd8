"""Provide what a restored copy needs from its server: extensions, roles, tablespaces."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from psycopg import sql

from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.sql.anybytes import Identifier, is_utf8


def with_bootstrap_superuser(connection: ConnectionParams, name: str) -> ConnectionParams:
    """Rename the bootstrap superuser, and create another superuser with a random name for our connections.

    A dump names the grantor of each membership, often the bootstrap superuser of the dumped server. Since version 16 a
    server accepts only its own bootstrap superuser, or a role with the ADMIN option.

    :param name: the name of the dumped server's bootstrap superuser.
    :return: the connection of the new superuser.
    """
    ours = replace(connection, keywords={**connection.keywords, "user": f"pgb_{secrets.token_hex(8)}"})
    with connection.connect() as session:
        session.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN").format(Identifier(ours.user)))
    with ours.connect() as session:
        session.execute(sql.SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(connection.user), Identifier(name)))
    return ours


def check_extensions(
    connection: ConnectionParams,
    extensions: Iterable[str],
    *,
    label: str = "the throwaway server",
    hint: str = "Install their packages on this worker, or use a scratch server that has them.",
) -> None:
    """Check that a server has extensions.

    :param label: names the server in errors.
    :raises NotProven: it lacks some.
    """
    with connection.connect() as session:
        available = {name for (name,) in session.execute("select name from pg_catalog.pg_available_extensions")}
    missing = sorted(set(extensions) - available)
    if missing:
        raise NotProven(
            f"{label} lacks {'extensions' if len(missing) > 1 else 'extension'} {', '.join(missing)}", hint=hint
        )


def create_roles(connection: ConnectionParams, names: Iterable[str]) -> None:
    """Create stand-ins for the roles of a dump, so that owners and privileges are restored as dumped.

    They are superusers, as event triggers and foreign-data wrappers must be owned by one, and cannot log in.
    """
    names = {name for name in names if not name.startswith("pg_")} - {"public"}  # a user mapping may be for PUBLIC
    with _accepting_names(connection, names) as accepting, accepting.connect() as session:
        existing = {name for (name,) in session.execute("select rolname from pg_catalog.pg_roles")}
        for name in sorted(names - existing):
            session.execute(sql.SQL("CREATE ROLE {} SUPERUSER NOLOGIN").format(Identifier(name)))


@contextmanager
def _accepting_names(connection: ConnectionParams, names: Iterable[str]) -> Iterator[ConnectionParams]:
    """Open a connection that can create roles of given names: an SQL_ASCII database if one is not UTF-8."""
    if all(map(is_utf8, names)):
        yield connection
        return
    ascii_database = connection.with_database(f"pgb_{secrets.token_hex(8)}")
    with connection.connect() as session:
        name = Identifier(ascii_database.dbname)
        locale = "TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        session.execute(sql.SQL("CREATE DATABASE {} {}").format(name, sql.SQL(locale)))
        yield ascii_database
        session.execute(sql.SQL("DROP DATABASE {}").format(name))


def create_tablespaces(connection: ConnectionParams, names: Iterable[str]) -> None:
    """Create tablespaces in the data directory (allow_in_place_tablespaces).

    https://www.postgresql.org/docs/current/runtime-config-developer.html
    """
    with connection.connect() as session:
        existing = {name for (name,) in session.execute("select spcname from pg_catalog.pg_tablespace")}
        for name in sorted(set(names) - existing - {""}):
            session.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(Identifier(name)))
