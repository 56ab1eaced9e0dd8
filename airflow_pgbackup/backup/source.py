"""The source of a dump: server and database, queried once before the tool starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.backup.databases.extensions import installed_versions
from airflow_pgbackup.backup.databases.replay import Replay, read_replay
from airflow_pgbackup.backup.databases.server_limits import ORDINARY_SERVER, ServerLimits, read_limits
from airflow_pgbackup.backup.databases.source_identity import read_system_identifier
from airflow_pgbackup.backup.databases.source_roles import read_source_roles
from airflow_pgbackup.backup.databases.source_time_zone import read_time_zone
from airflow_pgbackup.errors import ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.pooler import is_pooled
from airflow_pgbackup.postgres.connection.server_errors import server_hint, server_message
from airflow_pgbackup.postgres.connection.timeouts import disable_timeouts
from airflow_pgbackup.repository.manifest import DatabaseSource, StandbyReplay
from airflow_pgbackup.repository.source_roles import SourceRoles

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# Ordinary tables that pg_dump writes rows of: no system schema, none that an extension owns.
_TABLES = """
select count(*) from pg_catalog.pg_class c
 where c.relkind = 'r'
   and c.relnamespace not in (select oid from pg_catalog.pg_namespace
                               where nspname ~ '^pg_' or nspname = 'information_schema')
   and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
"""

_DATABASE = """
select pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')::int,
       pg_catalog.current_database(), pg_catalog.current_setting('server_encoding'),
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_database_size(pg_catalog.current_database())
"""

# What a dump does not write: indexes, and the rows of system catalogs. relpages is of the last VACUUM, ANALYZE or
# CREATE INDEX; pg_relation_size() is exact, but waits for a table that another session has locked.
_NOT_DUMPED = """
select coalesce(sum(c.relpages::bigint), 0)::bigint * pg_catalog.current_setting('block_size')::bigint
  from pg_catalog.pg_class c
 where c.relkind = 'i'
    or c.relkind = 'r' and c.relnamespace = 'pg_catalog'::regnamespace and c.relname <> 'pg_largeobject'
"""

_CLUSTER_SIZE = """
select coalesce(sum(pg_catalog.pg_database_size(oid)), 0)::bigint from pg_catalog.pg_database
 where datallowconn and pg_catalog.has_database_privilege(oid, 'connect')
"""


@dataclass(frozen=True)
class Source:
    """The source as the server describes it.

    :param size_bytes: of the database, or of all databases that allow a connection, by ``pg_database_size``.
    :param rows_bytes: an estimate of what the rows take of that, without indexes; None for a cluster.
    :param tables: the number of ordinary tables outside system schemas and extensions; None for a cluster.
    :param extensions: of the database, with their versions; None for a cluster.
    :param limits: what the user cannot dump there.
    :param replay: how far behind its primary a standby is; None for a primary.
    :param system_identifier: of the server; None where the role may not read it.
    :param roles: rights of the roles that own its objects; None for a cluster, or where they cannot be read.
    :param time_zone: of sessions in the database, or in the server of a cluster; None if it cannot be found out.
    :param pooled: a connection pooler is between this worker and the server.
    """

    server_version: str
    server_version_num: int
    database: str
    encoding: str
    size_bytes: int
    tables: int | None
    extensions: Mapping[str, str] | None = None
    rows_bytes: int | None = None
    limits: ServerLimits = ORDINARY_SERVER
    replay: Replay | None = None
    system_identifier: str | None = None
    roles: SourceRoles | None = None
    time_zone: str | None = None
    pooled: bool = False

    def for_manifest(self, connection: ConnectionParams) -> DatabaseSource:
        return DatabaseSource(
            database=None if self.tables is None else self.database,
            server_version=self.server_version,
            server_version_num=self.server_version_num,
            size_bytes=self.size_bytes,
            encoding=self.encoding,
            host=connection.host or None,
            extensions=self.extensions,
            service=self.limits.service.name if self.limits.service else None,
            replay=StandbyReplay(self.replay.lag_bytes, self.replay.lag_seconds) if self.replay else None,
            system_identifier=self.system_identifier,
            roles=self.roles,
            time_zone=self.time_zone,
        )


def describe_source(connection: ConnectionParams, *, cluster: bool = False) -> Source:
    """Connect and describe the source.

    :raises ConnectError: the server is unreachable, refuses the connection, or has no such database.
    """
    with connection.open_session() as session:
        try:
            disable_timeouts(session)  # as pg_dump does: the size of a large database takes a while
            version, number, database, encoding, in_recovery, size = _one(session, _DATABASE)
            tables = extensions = rows = None
            if cluster:
                (size,) = _one(session, _CLUSTER_SIZE)
            else:
                (tables,) = _one(session, _TABLES)
                (not_dumped,) = _one(session, _NOT_DUMPED)
                rows = max(size - not_dumped, 0)
                extensions = installed_versions(session)
            limits = read_limits(session)
            replay = read_replay(session) if in_recovery else None
            system_identifier = read_system_identifier(session)
            roles = None if cluster else read_source_roles(session)
            time_zone = read_time_zone(session, cluster=cluster)
            pooled = is_pooled(session)
        except psycopg.Error as error:
            raise ConnectError(
                f"{connection.label}: cannot read the server's version and size: {server_message(error)}",
                hint=server_hint(error, "Grant CONNECT on the database, and undo any REVOKE on pg_catalog."),
            ) from None
    return Source(
        version.split(" ")[0],
        number,
        database,
        encoding,
        size,
        tables,
        extensions,
        rows_bytes=rows,
        limits=limits,
        replay=replay,
        system_identifier=system_identifier,
        roles=roles,
        time_zone=time_zone,
        pooled=pooled,
    )


def _one(session: psycopg.Connection[Any], query: LiteralString) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = session.execute(query).fetchone()
    assert row is not None  # noqa: S101  # an aggregate or a select without FROM has one row
    return row
