"""Facts about a PostgreSQL server and the role of a connection, read before anything is changed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.extensions import available_versions
from airflow_pgbackup.backup.databases.sessions import Session, fetch_column, translated_errors
from airflow_pgbackup.errors import ConfigurationError

_SERVER = """
SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.pg_is_in_recovery(), r.rolsuper,
       r.rolsuper OR r.rolcreatedb, r.rolname,
       pg_catalog.current_setting('max_locks_per_transaction')::int
       * (pg_catalog.current_setting('max_connections')::int
          + pg_catalog.current_setting('max_prepared_transactions')::int)
  FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user
"""


@dataclass(frozen=True)
class ServerInfo:
    """A server, and the privileges of the connection's role.

    :param superuser: the role is a superuser.
    :param may_create: the role may create databases.
    :param user: the role's name.
    :param locks: the number of locks that the lock table can hold.
    :param extensions: available extensions with their default versions.
    """

    version_num: int
    superuser: bool
    may_create: bool
    user: str
    locks: int
    databases: frozenset[str]
    roles: frozenset[str]
    tablespaces: frozenset[str]
    extensions: Mapping[str, str]

    @property
    def major(self) -> int:
        return self.version_num // 10000

    @classmethod
    def read(cls, connection: Session, label: str) -> ServerInfo:
        """Query a server.

        :param label: names the server in errors.
        :raises ConfigurationError: the server is a standby.
        """
        with translated_errors(f"querying the version and roles of {label}"):
            row = connection.execute(_SERVER).fetchone()
            assert row is not None  # noqa: S101  current_user has a row in pg_roles
            version, standby, superuser, may_create, user, locks = row
            if standby:
                raise ConfigurationError(
                    f"{label} is a standby, which is read-only",
                    hint="Connect to the primary (target_session_attrs=read-write).",
                )
            return cls(
                version,
                superuser,
                may_create,
                user,
                locks,
                frozenset(fetch_column(connection, "SELECT datname FROM pg_catalog.pg_database")),
                frozenset(fetch_column(connection, "SELECT rolname FROM pg_catalog.pg_roles")),
                frozenset(fetch_column(connection, "SELECT spcname FROM pg_catalog.pg_tablespace")),
                available_versions(connection),
            )
