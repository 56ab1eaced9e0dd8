"""Which server a connection leads to: two Airflow deployments may give the same names to two servers."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Made by initdb. A standby has that of its primary, and so has a clone.
_SYSTEM: LiteralString = "select system_identifier::text from pg_catalog.pg_control_system()"
_NUMBER = re.compile(r"-?\d{1,20}", re.ASCII)


def read_system_identifier(session: psycopg.Connection[Any]) -> str | None:
    """Return the server's system identifier, a number of 64 bits in decimal digits; None where it may not be read.

    :param session: in autocommit mode.
    """
    try:
        row = session.execute(_SYSTEM).fetchone()
    except psycopg.Error:  # not every service lets its users call it
        return None
    return str(row[0]) if row and _NUMBER.fullmatch(str(row[0])) else None


def source_identity(connection: ConnectionParams, session: psycopg.Connection[Any]) -> str:
    """Return a digest that differs between servers; see :func:`identity_of`.

    :param session: of the connection, in autocommit mode.
    """
    return identity_of(connection, read_system_identifier(session))


def identity_of(connection: ConnectionParams, system_identifier: str | None) -> str:
    """Return a digest of host and port as given, and of the server's system identifier.

    Neither is enough: clones have the same identifier, and ``localhost`` is another server on each machine. Without the
    user, which can change with each attempt where credentials are short-lived.
    """
    keywords = connection.keywords
    place = [keywords.get("host"), keywords.get("hostaddr"), keywords.get("port")]
    return hashlib.sha256(json.dumps([*place, system_identifier]).encode()).hexdigest()


def seed_for(seed: str, source: str) -> str:
    """Return the seed of a request to one server. :param source: of :func:`source_identity`."""
    return json.dumps([seed, source])
