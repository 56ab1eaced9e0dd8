"""The owners, grants, default privileges and user mappings of a database, to give them to the copy that replaces it.

pg_dump reads them: its archive has the owner of each object, and the statements of each grant, apart from everything
else. So no text of the database is ever searched for statements.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import psycopg

from airflow_pgbackup.backup.databases.sessions import Session, session
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.archive.toc import TocEntry, read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, DatabaseStatement, statements
from airflow_pgbackup.postgres.definitions.identifiers import quoted
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.process import run_tool
from airflow_pgbackup.text import first_problem

_LOCK_TIMEOUT = 300_000  # milliseconds

# What pg_restore writes after ALTER, by the kind of the entry (_getObjectDescription in pg_backup_archiver.c).
_NAMED = frozenset(
    (
        *("COLLATION", "CONVERSION", "DOMAIN", "EVENT TRIGGER", "FOREIGN DATA WRAPPER", "FOREIGN TABLE"),
        *("MATERIALIZED VIEW", "PROCEDURAL LANGUAGE", "PUBLICATION", "SCHEMA", "SEQUENCE", "SERVER", "STATISTICS"),
        *("TABLE", "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TYPE", "VIEW"),
    )
)
_AS_DROPPED = frozenset(("AGGREGATE", "FUNCTION", "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURE"))
_GRANT = re.compile(r"(?:GRANT|REVOKE) .* ON |ALTER DEFAULT PRIVILEGES |(?:RE)?SET SESSION AUTHORIZATION", re.DOTALL)
_MISSING = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.WrongObjectType,  # another kind of object has its name
)


@dataclass(frozen=True)
class OwnGrants:
    """What a database has of its own, apart from its objects and rows.

    :param database: the properties of the database itself: settings, privileges, comment, owner.
    :param entries: the objects, grants and user mappings, as pg_dump lists them.
    """

    database: DatabaseProperties
    entries: tuple[TocEntry, ...]

    @property
    def objects(self) -> set[tuple[str, str | None, str]]:
        """Kind, schema and name of every object that has an owner."""
        return owned(self.entries)


@dataclass
class Reapplied:
    """What became of the owners and grants.

    :ivar count: the statements that succeeded.
    :ivar missing: objects that no longer exist.
    :ivar left: objects that keep the owner or grants that the restore gave them, with the reason; unlike `failed`,
        these do not stop the refresh.
    :ivar failed: objects whose owner or grants the server refused to set, with its message.
    """

    count: int = 0
    missing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return a line for each object that lost its owner or grants."""
        lines = [f"{name} no longer exists" for name in self.missing]
        return [f"not re-applied: {line}" for line in lines + self.left]

    def require_complete(self, database: str) -> None:
        """Refuse to replace a database if what it had could not be set.

        :raises RestoreError: the server refused a statement about an object that exists.
        """
        if self.failed:
            raise RestoreError(
                f"cannot re-apply an owner or grant of {database}: {first_problem(self.failed)}",
                hint="Give the user of the connection the missing privilege, such as membership in the role that owns "
                "the object, or change that owner or grant in the database.",
            )


def read_own_grants(run: RestoreContext, params: ConnectionParams, server_version: int) -> OwnGrants:
    """Return the owners, grants and properties of a database.

    :param server_version: ``server_version_num``.
    :raises ClientError: this machine has no pg_dump for that server.
    :raises ToolError: pg_dump failed: the role may not read a table, or another session locks one.
    """
    client = choose_client(server_version, client_dirs=run.settings.client_dirs)
    options = ["--no-password", "--format=custom", "--create", "--schema-only", f"--lock-wait-timeout={_LOCK_TIMEOUT}"]
    argv = [str(client.tool("pg_dump")), *options]
    env = client_environment(params)
    dump = run_tool(argv, env=env, cancel=run.cancel, deadline=run.remaining(), limit=1 << 30)
    toc, _ = read_toc(io.BytesIO(dump), what=f"the definitions of {params.dbname}")
    return OwnGrants(DatabaseProperties.of_entries(toc.entries), tuple(toc.entries))


def owned(entries: Iterable[TocEntry]) -> set[tuple[str, str | None, str]]:
    """Return kind, schema and name of the objects that have an owner, and that the entries create.

    If the schema public has another owner than at first, it has an entry that does not create it.
    """
    return {
        (entry.kind, entry.schema, entry.name)
        for entry in entries
        if entry.kind in _NAMED | _AS_DROPPED and not (entry.kind == "SCHEMA" and "CREATE " not in entry.definition)
    }


def apply_own_grants(
    run: RestoreContext, params: ConnectionParams, own: OwnGrants, *, without_mappings: Collection[str]
) -> Reapplied:
    """Set owners and grants of the objects of a database, where they exist, except the owners of event triggers.

    An object of another kind with the same name, such as a view in place of a materialized view, gets neither: with the
    grants but without the owner, it would let others use the privileges of our role.

    :param without_mappings: foreign servers that get no user mapping.
    :raises Canceled: the refresh was canceled.
    """
    done = Reapplied()
    entries = [entry for entry in own.entries if entry.kind != "EVENT TRIGGER"]
    with session(params, run.cancel) as connection:
        connection.execute("SET synchronous_commit = off")  # thousands of small transactions, before the swap
        # Who becomes an owner may need a privilege on the schema first; a table passes its owner to its sequences.
        again, missing = [], set()
        for entry in entries:
            tried = Reapplied()
            if not _try_owner(run, connection, entry, tried):
                again.append(entry)
            if tried.missing:
                missing.add(entry.dump_id)
        for entry in entries:
            if entry.kind == "ACL" and not missing.isdisjoint(entry.depends_on):
                continue
            if _maps_users_of(entry, without_mappings):
                done.left.append(f"{entry.name}: the server of the backup has another foreign-data wrapper")
            elif entry.kind in ("ACL", "DEFAULT ACL", "USER MAPPING"):
                _apply_grants(run, connection, entry, done)
                if _hides_options(connection, entry):
                    done.left.append(f"{entry.name}: its options, if it has any, are visible to superusers only")
        for entry in again:
            _try_owner(run, connection, entry, done)
        done.count += sum(1 for entry in entries if _owner_statement(entry)) - len(again)
    return done


def apply_event_trigger_owners(run: RestoreContext, connection: Session, own: OwnGrants) -> Reapplied:
    """Set the owners of event triggers, where they exist. No event trigger fires for that."""
    done = Reapplied()
    for entry in own.entries:
        if entry.kind == "EVENT TRIGGER":
            _try_owner(run, connection, entry, done)
    return done


def _maps_users_of(entry: TocEntry, servers: Collection[str]) -> bool:
    return entry.kind == "USER MAPPING" and any(entry.name.endswith(f" SERVER {name}") for name in servers)


def _hides_options(connection: Session, entry: TocEntry) -> bool:
    """Return whether a user mapping can have options that pg_dump did not see, as in ``pg_user_mappings``."""
    hidden = connection.info.parameter_status("is_superuser") != "on"
    return entry.kind == "USER MAPPING" and hidden and " OPTIONS (" not in entry.definition


def _try_owner(run: RestoreContext, connection: Session, entry: TocEntry, done: Reapplied) -> bool:
    statement = _owner_statement(entry)
    return statement is None or _execute(run, connection, statement, entry, done)


def _owner_statement(entry: TocEntry) -> str | None:
    if not entry.owner:
        return None
    if entry.kind in _NAMED:
        schema = f"{quoted(entry.schema)}." if entry.schema else ""
        what = f"{entry.kind} {schema}{quoted(entry.name)}"
    elif entry.kind in _AS_DROPPED:
        what = entry.drop_statement.strip().removeprefix("DROP ").rstrip(";")
    else:
        return None
    return f"ALTER {what} OWNER TO {quoted(entry.owner)}"


def _apply_grants(run: RestoreContext, connection: Session, entry: TocEntry, done: Reapplied) -> None:
    for statement in _grants(entry):
        if not _execute(run, connection, statement, entry, done):
            break  # a REVOKE or SET SESSION AUTHORIZATION that failed must not be followed by its GRANT
    if "SESSION AUTHORIZATION" in entry.definition:
        connection.execute("RESET SESSION AUTHORIZATION")


def _grants(entry: TocEntry) -> Iterator[str]:
    for statement in statements(entry.definition):
        if DatabaseStatement.parse(statement) or " ON LARGE OBJECT " in statement:
            continue
        if _GRANT.match(statement) or entry.kind == "USER MAPPING":
            yield statement


def _execute(run: RestoreContext, connection: Session, statement: str, entry: TocEntry, done: Reapplied) -> bool:
    # The name of an ACL entry begins with the kind of its object.
    name = f"{entry.name} in schema {entry.schema}" if entry.schema else entry.name
    name = name if entry.kind.endswith("ACL") else f"{entry.kind} {name}"
    try:
        connection.execute(encoded(statement))
    except psycopg.errors.QueryCanceled:
        run.check()
        raise
    except _MISSING:
        if name not in done.missing:
            done.missing.append(name)
        return False
    except psycopg.Error as error:
        # Default privileges concern later objects. A sequence that now belongs to a table has the table's owner.
        harmless = entry.kind == "DEFAULT ACL" or isinstance(error, psycopg.errors.FeatureNotSupported)
        (done.left if harmless else done.failed).append(f"{name}: {server_message(error)}")
        return False
    done.count += 1
    return True
