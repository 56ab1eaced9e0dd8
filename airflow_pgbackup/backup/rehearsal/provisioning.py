"""Provide what a restored copy needs from its server: extensions, roles, tablespaces."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.databases.temporary_database import UNSUPPORTED
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.database_locale import without_owner_and_tablespace
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded, is_utf8
from airflow_pgbackup.quantities import noun
from airflow_pgbackup.repository.source_roles import RecordedMembership

# A cycle; a predefined role of another version; pg_database_owner, which has no explicit members.
_IMPOSSIBLE = (
    psycopg.errors.InvalidGrantOperation,
    psycopg.errors.UndefinedObject,
    psycopg.errors.FeatureNotSupported,
)


def with_bootstrap_superuser(connection: ConnectionParams, name: str) -> ConnectionParams:
    """Rename the bootstrap superuser, and create another superuser with a random name for our connections.

    A dump names the grantor of each membership, often the bootstrap superuser of the dumped server. Since version 16 a
    server accepts only its own bootstrap superuser, or a role with the ADMIN option.

    :param name: the name of the dumped server's bootstrap superuser.
    :return: the connection of the new superuser.
    """
    ours = replace(connection, keywords={**connection.keywords, "user": f"pgb_{secrets.token_hex(8)}"})
    with connection.open_session() as session:
        session.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN").format(Identifier(ours.user)))
    with ours.open_session() as session:
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
    with connection.open_session() as session:
        available = {name for (name,) in session.execute("select name from pg_catalog.pg_available_extensions")}
    missing = sorted(set(extensions) - available)
    if missing:
        raise NotProven(f"{label} lacks {noun(len(missing), 'extension')} {', '.join(missing)}", hint=hint)


def create_role(name: str, *, superuser: bool, bypass_rls: bool) -> sql.Composed:
    """Return the statement that creates a stand-in for a role of a dump, which cannot log in."""
    return sql.SQL("CREATE ROLE {} {} {} NOLOGIN").format(
        Identifier(name),
        sql.SQL("SUPERUSER" if superuser else "NOSUPERUSER"),
        sql.SQL("BYPASSRLS" if bypass_rls else "NOBYPASSRLS"),
    )


def creatable_names(names: Iterable[str]) -> set[str]:
    """Return the names without those of predefined roles and of PUBLIC, which a user mapping may be for."""
    return {name for name in names if not name.startswith("pg_")} - {"public"}


def create_roles(
    connection: ConnectionParams,
    names: Iterable[str],
    superusers: Collection[str],
    bypass_rls: Collection[str],
    *,
    encoding: str = "UTF8",
) -> set[str]:
    """Create stand-ins for the roles of a dump, so that owners and privileges are restored as dumped.

    :param superusers: those of them to make superusers.
    :param bypass_rls: those of them to give BYPASSRLS.
    :param encoding: of the dumped database: the bytes of a role's name are those that the name has there.
    :return: the names of those that were created.
    """
    names = creatable_names(names)
    with _accepting_names(connection, names, encoding) as accepting, accepting.open_session() as session:
        existing = {name for (name,) in session.execute("select rolname from pg_catalog.pg_roles")}
        missing = names - existing
        for name in sorted(missing):
            session.execute(create_role(name, superuser=name in superusers, bypass_rls=name in bypass_rls))
    return missing


def grant_memberships(
    connection: ConnectionParams, memberships: Collection[RecordedMembership], *, encoding: str = "UTF8"
) -> None:
    """Make roles members of others, except where a server can have no such membership: these are of a manifest."""
    names = {name for each in memberships for name in (each.role, each.member)}
    with _accepting_names(connection, names, encoding) as accepting, accepting.open_session() as session:
        for each in memberships:
            grant_membership(session, each)


def grant_membership(session: psycopg.Connection[Any], membership: RecordedMembership) -> None:
    """Make a role a member of another one, except where a server can have no such membership."""
    role, member = Identifier(membership.role), Identifier(membership.member)
    with suppress(*_IMPOSSIBLE), session.transaction():
        session.execute(sql.SQL("GRANT {} TO {}").format(role, member))


def make_superusers(connection: ConnectionParams, names: Collection[str], *, encoding: str = "UTF8") -> None:
    """Make roles superusers."""
    with _accepting_names(connection, names, encoding) as accepting, accepting.open_session() as session:
        for name in sorted(names):
            session.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(Identifier(name)))


@contextmanager
def _accepting_names(connection: ConnectionParams, names: Collection[str], encoding: str) -> Iterator[ConnectionParams]:
    """Open a connection that can create roles of given names.

    It is to a database in the encoding of the dumped one, if a name is not ASCII and differs in that encoding; to one
    in SQL_ASCII if a name is not UTF-8.
    """
    if not all(map(is_utf8, names)):
        encoding = "SQL_ASCII"
    elif encoding in ("UTF8", "SQL_ASCII") or all(map(str.isascii, names)):
        yield connection
        return
    other = connection.with_database(f"pgb_{secrets.token_hex(8)}")
    with connection.open_session() as session:
        name = Identifier(other.dbname)
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'")
        session.execute(create.format(name, sql.Literal(encoding)))
        yield other
        session.execute(sql.SQL("DROP DATABASE {}").format(name))


def lacks_locale(session: psycopg.Connection[Any], create: DatabaseStatement) -> bool:
    """Return whether a server cannot create a database with the locale of a CREATE DATABASE.

    The server checks the locale before it refuses the name of a database that exists.
    """
    try:
        session.execute(encoded(without_owner_and_tablespace(create).about("template1")))
    except UNSUPPORTED:
        return True
    except psycopg.Error:  # the database exists, or what else the restore will report
        return False
    raise AssertionError("a second database template1 was created")


def create_tablespaces(connection: ConnectionParams, names: Iterable[str]) -> None:
    """Create tablespaces in the data directory (allow_in_place_tablespaces).

    https://www.postgresql.org/docs/current/runtime-config-developer.html
    """
    with connection.open_session() as session:
        existing = {name for (name,) in session.execute("select spcname from pg_catalog.pg_tablespace")}
        for name in sorted(set(names) - existing - {""}):
            session.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(Identifier(name)))
