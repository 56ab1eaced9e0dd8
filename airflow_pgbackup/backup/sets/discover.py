"""discover: which databases a server has, and which of them a run is to dump."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.managed_service import SERVICES, ManagedService, recognize_service
from airflow_pgbackup.backup.databases.source_identity import source_identity
from airflow_pgbackup.errors import ConfigurationError, ConnectError, OptionError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.connection.timeouts import disable_timeouts
from airflow_pgbackup.postgres.sql.anybytes import is_utf8
from airflow_pgbackup.postgres.sql.patterns import exact_name, pattern_regexes
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.repository.backup_set import Absent
from airflow_pgbackup.text import encodable

if TYPE_CHECKING:
    from typing_extensions import LiteralString

ALL = ("*",)

SERVICE_DATABASES = {database: service.name for service in SERVICES for database in service.databases}
"""Databases that managed services keep for themselves, and which their users may not connect to."""

_INVALID = "its DROP DATABASE was interrupted"
_CLOSED = "it accepts no connections"

# The size needs CONNECT or pg_read_all_stats (manual, "Database Object Size Functions"). -2 marks a database whose
# DROP was interrupted (src/include/catalog/pg_database.h).
_DATABASES: LiteralString = """
select datname, datistemplate, datallowconn, datconnlimit = -2, may_connect,
       case when may_connect then pg_catalog.pg_database_size(oid) end,
       datname operator(pg_catalog.~) any (%s::text[]), datname operator(pg_catalog.~) any (%s::text[])
  from (select *, pg_catalog.has_database_privilege(oid, 'connect') as may_connect from pg_catalog.pg_database) d
 order by datname
"""
_MATCHING: LiteralString = """
select one from pg_catalog.unnest(%s::text[]) one
 where exists (select from pg_catalog.pg_database where datname operator(pg_catalog.~) one)
"""
_NAMES: LiteralString = "select datname from pg_catalog.pg_database"
_SERVER: LiteralString = "select pg_catalog.current_setting('server_version'), current_user::text"


@dataclass(frozen=True)
class FoundDatabase:
    """A database of a server.

    :param size_bytes: by ``pg_database_size``; None if it was dropped during the query.
    """

    name: str
    size_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """The databases of a server.

    :param started_at: of the discovery, aware UTC, whole seconds.
    :param databases: those to dump, largest first.
    :param missing: those that were to be dumped, but cannot be.
    :param left_out: all others of the server.
    :param source: the server, by :func:`.source_identity`; None if it is not known.
    """

    server_version: str
    started_at: datetime
    databases: tuple[FoundDatabase, ...]
    missing: tuple[Absent, ...] = ()
    left_out: tuple[Absent, ...] = ()
    source: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON, for XCom."""
        return {
            "server_version": self.server_version,
            "started_at": self.started_at.isoformat(),
            "databases": [{"database": each.name, "size_bytes": each.size_bytes} for each in self.databases],
            "missing": [{"database": each.database, "reason": each.reason} for each in self.missing],
            "left_out": [{"database": each.database, "reason": each.reason} for each in self.left_out],
            "source": self.source,
        }

    @classmethod
    def from_json(cls, content: object) -> Discovery:
        """Return what :meth:`as_json` made.

        :raises ConfigurationError: it is something else.
        """
        try:
            assert isinstance(content, Mapping)  # noqa: S101
            started_at = datetime.fromisoformat(content["started_at"])
            return cls(
                server_version=str(content["server_version"]),
                started_at=started_at.astimezone(timezone.utc).replace(microsecond=0),
                databases=tuple(FoundDatabase(e["database"], e["size_bytes"]) for e in content["databases"]),
                missing=tuple(Absent.decode(each) for each in content["missing"]),
                left_out=tuple(Absent.decode(each) for each in content["left_out"]),
                source=content.get("source"),
            )
        except (AssertionError, KeyError, TypeError, ValueError):
            raise ConfigurationError(
                f"not the result of a discovery: {str(content)[:200]}",
                hint='Pass what the discovery recorded: discovery=discover.output["discovery"].',
            ) from None


def discover(
    *,
    connection: ConnectionParams,
    databases: Sequence[str] = ALL,
    exclude: Sequence[str] = (),
    context: RunContext | None = None,
) -> Discovery:
    """Return which databases of a server to dump, and why others are not dumped.

    A pattern that is exactly the name of a database means that database, whatever characters it has. Others match as
    in ``pg_dumpall --exclude-database``: ``*`` and ``?`` are wildcards, and letters are lower case unless in double
    quotes.

    Left out are templates, databases that accept no connections and the internal ones of managed services, unless
    ``databases`` names one exactly; and those that no pattern of ``databases`` or one of ``exclude`` matches. Missing
    are databases that the role may not connect to, and names in ``databases``, quoted or not, of databases that do not
    exist or accept no connections. The log has a warning for a pattern that no database matches.

    :param connection: its database is the one to connect to, by default ``postgres``.
    :param databases: patterns of what to dump.
    :param exclude: patterns of what not to dump; they win.
    :raises OptionError: an invalid pattern.
    :raises ConfigurationError: there is no database to dump.
    :raises ConnectError: the server is unreachable, or refuses the connection or the query.
    """
    context = context or RunContext()
    wanted, unwanted = _Patterns("databases", databases), _Patterns("exclude", exclude)
    started_at = datetime.now(timezone.utc).replace(microsecond=0)
    connection = connection if connection.dbname else connection.with_database("postgres")
    version, user, source, service, rows, matching = _query(connection, wanted, unwanted)
    names = {row[0] for row in rows}
    named = wanted.exact(names)
    found: list[FoundDatabase] = []
    missing: list[Absent] = []
    left_out: list[Absent] = []
    for name, template, accepts, invalid, may_connect, size, is_wanted, is_unwanted in rows:
        closed = None if accepts and not invalid else _INVALID if invalid else _CLOSED
        if name not in named and (reason := closed or _internal(name, template, may_connect, service)):
            left_out.append(Absent(name, reason))
        elif name in unwanted.given or is_unwanted:
            left_out.append(Absent(name, "excluded"))
        elif not (name in wanted.given or is_wanted):
            left_out.append(Absent(name, "not selected"))
        elif closed:
            missing.append(Absent(encodable(name), closed))
        elif not may_connect:
            missing.append(Absent(encodable(name), f"role {user} may not connect to it"))
        elif not is_utf8(name):
            missing.append(Absent(encodable(name), "its name is not valid UTF-8"))
        else:
            found.append(FoundDatabase(name, size))
    for pattern in wanted.without_match(names, matching):
        context.log(f"warning: no database matches {pattern}")
    missing += [Absent(encodable(name), "does not exist") for name in wanted.absent(names)]
    if not found:
        raise ConfigurationError(
            f"no database of {connection.label} is to be dumped"
            + (f"; missing: {missing[0].database} ({missing[0].reason})" if missing else ""),
            hint="Check the patterns of databases and exclude, and the role's privilege to connect.",
        )
    found.sort(key=lambda each: (-(each.size_bytes or 0), each.name))
    result = Discovery(
        server_version=version.split(" ")[0],
        started_at=started_at,
        databases=tuple(found),
        missing=tuple(missing),
        left_out=tuple(Absent(encodable(each.database), each.reason) for each in left_out),
        source=source,
    )
    _log(result, connection, context)
    return result


class _Patterns:
    """Patterns of database names; see :func:`discover`. :ivar given: as they were given, each once."""

    def __init__(self, parameter: str, patterns: Sequence[str] | None) -> None:
        if isinstance(patterns, str):
            raise OptionError(f"{parameter} is the string {patterns!r}", hint=f"Pass a list: [{patterns!r}].")
        if patterns is None:
            raise OptionError(f"{parameter} is None", hint="Pass a list of names and patterns, or omit it.")
        if any(not isinstance(one, str) or not one or "\0" in one for one in patterns):
            raise OptionError(f"{parameter} holds a pattern that is empty or not text", hint="Omit it.")
        self.given = tuple(dict.fromkeys(patterns))

    def regexes(self, names: Collection[str]) -> list[str]:
        """Return the expressions of the patterns that are not one of these names."""
        parts = [pattern_regexes(one) for one in self.given if one not in names]
        return [one[0] for one in parts if len(one) == 1]  # as pg_dumpall, which refuses qualified names

    def exact(self, names: Collection[str]) -> set[str]:
        """Return those of these names that a pattern without wildcards means."""
        return {one if one in names else exact_name(one) or "" for one in self.given} & set(names)

    def absent(self, names: Collection[str]) -> list[str]:
        """Return the databases that patterns without wildcards mean, and which are not among these names."""
        exact = {one: exact_name(one) for one in self.given if one not in names}
        return [str(name) if '"' in one else one for one, name in exact.items() if name and name not in names]

    def without_match(self, names: Collection[str], regexes: Collection[str]) -> list[str]:
        """Return the patterns with wildcards whose expression is not one of these, which match a database."""
        wild = [one for one in self.given if one not in names and exact_name(one) is None]
        return [one for one in wild if not set(pattern_regexes(one)) & set(regexes)]


def _internal(name: str, template: bool, may_connect: bool, service: ManagedService | None) -> str | None:
    """Return why a database is not a user's: it is a template, or the service keeps it.

    Its privileges do not show that: on several services PUBLIC may connect, and only ``pg_hba.conf`` refuses it.
    """
    if template:
        return "it is a template"
    if service and name in service.databases:
        return f"it is internal to {service.name}"
    if name in SERVICE_DATABASES and not may_connect:
        return f"it is internal to {SERVICE_DATABASES[name]}"
    return None


def _query(
    connection: ConnectionParams, wanted: _Patterns, unwanted: _Patterns
) -> tuple[str, str, str, ManagedService | None, Sequence[tuple[Any, ...]], list[str]]:
    with connection.open_session() as session:
        try:
            disable_timeouts(session)  # the size of a large database takes a while
            server = session.execute(_SERVER).fetchone()
            assert server is not None  # noqa: S101  a select without FROM has one row
            names = {name for (name,) in session.execute(_NAMES)}
            regexes = [wanted.regexes(names), unwanted.regexes(names)]
            matching = [one for (one,) in session.execute(_MATCHING, regexes[:1])]
            rows = session.execute(_DATABASES, regexes).fetchall()
            service = recognize_service(session)
            return server[0], server[1], source_identity(connection, session), service, rows, matching
        except psycopg.errors.InvalidRegularExpression as error:
            raise OptionError(
                f"invalid pattern in databases or exclude: {error.diag.message_primary}",
                hint="Write names, with * and ? as wildcards; other special characters in double quotes: '\"a(b\"'.",
            ) from None
        except psycopg.Error as error:
            raise ConnectError(
                f"{connection.label}: cannot list the databases: {server_message(error)}",
                hint=hint_for(str(error)),
            ) from None


def _log(found: Discovery, connection: ConnectionParams, context: RunContext) -> None:
    size = sum(each.size_bytes or 0 for each in found.databases)
    context.log(
        f"found {counted(len(found.databases), 'database')} to dump on {connection.label} "
        f"(PostgreSQL {found.server_version}, {human_bytes(size)})"
    )
    for absent in found.left_out:
        context.log(f"leaving out {absent.database}: {absent.reason}")
    for absent in found.missing:
        context.log(f"missing {absent.database}: {absent.reason}")
