"""What the connection's user cannot dump of a server, because the server is a managed service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.backup.databases.managed_service import ManagedService, recognize_service
from airflow_pgbackup.backup.databases.role_passwords import reads_role_passwords

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_DATABASES: LiteralString = """
select datname from pg_catalog.pg_database where datallowconn and datname = any (%s) order by 1
"""
_ROLES: LiteralString = "select rolname from pg_catalog.pg_roles where rolname = any (%s) order by 1"


@dataclass(frozen=True)
class ServerLimits:
    """The parts of a server that a dump has to leave out.

    :param service: the managed service; None for an ordinary server, of which nothing is left out.
    :param role_passwords: whether the user may read the roles' passwords; not asked of an ordinary server.
    :param service_databases: databases of this server that belong to the service.
    :param service_roles: roles of this server that belong to the service.
    """

    service: ManagedService | None
    role_passwords: bool
    service_databases: tuple[str, ...] = ()
    service_roles: tuple[str, ...] = ()

    def left_out(self) -> list[str]:
        """Return a line for each part that a dump of the cluster leaves out: ``database rdsadmin (belongs to …)``."""
        if self.service is None:
            return []
        name = self.service.name
        lines = [f"database {each} (belongs to {name})" for each in self.service_databases]
        if not self.role_passwords:
            lines.append(f"role passwords ({name} lets no user read them)")
        return lines

    def missing_elsewhere(self, extensions: Mapping[str, str] | None) -> list[str]:
        """Return a line for each part of a dump that a server outside the service cannot restore.

        :param extensions: those of the database; None for a cluster.
        """
        if self.service is None:
            return []
        name = self.service.name
        return [f"extension {each} (exists only on {name})" for each in self.service.only_there(extensions or ())]


ORDINARY_SERVER = ServerLimits(None, role_passwords=True)


def read_limits(session: psycopg.Connection[Any]) -> ServerLimits:
    """Query which parts of the server the user of a session cannot dump.

    :param session: in autocommit mode.
    :raises psycopg.Error: a query failed.
    """
    service = recognize_service(session)
    if service is None:
        return ORDINARY_SERVER
    databases = session.execute(_DATABASES, [list(service.databases)]).fetchall()
    roles = session.execute(_ROLES, [list(service.roles)]).fetchall()
    return ServerLimits(
        service,
        reads_role_passwords(session),
        tuple(str(name) for (name,) in databases),
        tuple(str(name) for (name,) in roles),
    )
