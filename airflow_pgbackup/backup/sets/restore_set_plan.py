"""The plan of restore_set: which backups of a set to restore, under which names; read before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.restore.noted_transaction import is_complete
from airflow_pgbackup.backup.restore.plan import check_versions, major_version
from airflow_pgbackup.backup.restore.preconditions import require_empty
from airflow_pgbackup.backup.restore.request import require_may_create
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker, find_marker, request_digest
from airflow_pgbackup.backup.series_selection import nearest
from airflow_pgbackup.backup.sets.choose_set import older_set
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, VerificationFailed
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.quantities import counted, human_bytes, noun
from airflow_pgbackup.repository.backup_set import BackupSet, SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.text import first_of
from airflow_pgbackup.wording import parameter

MAX_NAME = 63  # bytes, NAMEDATALEN - 1
NAMED = 5

# initdb creates them, so most servers have them.
_FILLED = ("postgres", "template1")


@dataclass(frozen=True, kw_only=True)
class SetTarget:
    """Where a set is restored, and what may happen there.

    :param connection: the server; any of its databases.
    :param prefix: put before the names of the databases; with ``restored_`` they are restored beside those that exist.
    :param databases: only these databases of the set; empty: all.
    :param with_globals: restore the roles and tablespaces first; those that exist are not changed.
    :param update_passwords: set the passwords of existing roles to those of the backup, except that of the
        connection's role.
    :param no_tablespaces: create no tablespaces, and put everything into the default one.
    :param jobs: databases to restore at the same time.
    :param jobs_per_database: of pg_restore.
    :param allow_older_server: restore into an older major version than the dumps', which PostgreSQL does not support.
    """

    connection: ConnectionParams
    prefix: str = ""
    databases: Sequence[str] = ()
    with_globals: bool = True
    update_passwords: bool = False
    no_tablespaces: bool = False
    jobs: int = 2
    jobs_per_database: int = 1
    allow_older_server: bool = False

    def validate(self) -> None:
        """Check the fields.

        :raises ConfigurationError: a number of jobs below 1, a NUL in the prefix, or databases that are not a list.
        """
        if isinstance(self.databases, str):
            raise ConfigurationError(
                f"databases is the string {self.databases!r}", hint=f"Pass a list: [{self.databases!r}]."
            )
        for name, value in {"jobs": self.jobs, "jobs_per_database": self.jobs_per_database}.items():
            if value < 1:
                raise ConfigurationError(f"invalid {parameter(name)} {value}", hint="Give one or more.")
        if "\0" in self.prefix:
            raise ConfigurationError(
                f"{parameter('prefix')} has a NUL, which no database name can have", hint="Omit it."
            )


@dataclass(frozen=True)
class PlannedDatabase:
    """A database of the set.

    :param name: its name on the target server.
    :param mode: how to restore it; None: an earlier call did.
    :param seed: of the request to restore it; the same in every call for the set, from any machine. It includes the
        database's name, because a restored database keeps its marker when it is renamed.
    """

    member: SetMember
    reference: Mapping[str, object]
    name: str
    mode: str | None
    seed: str

    @property
    def database(self) -> str:
        return str(self.member.database)

    def line(self) -> str:
        renamed = f" as {self.name}" if self.name != self.database else ""
        state = {"create": "new", "into_empty": "existing, empty", None: "restored by an earlier call"}[self.mode]
        return f"database {self.database}{renamed}, {state}: {human_bytes(self.member.size)}, {self.member.id}"

    def result(self, outcome: str, **more: object) -> dict[str, object]:
        known: dict[str, object] = {"database": self.database, "name": self.name, "outcome": outcome}
        return known | {"reason": None, "hint": None, "duration_seconds": None, "bytes": None, "rows": None} | more


@dataclass(frozen=True)
class SetBackups:
    """The backups of a set to restore.

    :param globals: the reference of the roles and tablespaces; None restores none.
    :param databases: each member with its reference, in the order of the set.
    """

    globals: Mapping[str, object] | None
    databases: Sequence[tuple[SetMember, Mapping[str, object]]]


def read_backups(repository: Repository, found: BackupSet, target: SetTarget) -> SetBackups:
    """Return the backups of a set that are to be restored, after checking that each exists and is the one named.

    :raises BackupNotFound: a backup of the set was removed.
    :raises VerificationFailed: a backup of the set has failed verification, or is incomplete.
    :raises ConfigurationError: a database is not in the set, or a backup is not the one that the set names.
    """
    if unknown := sorted(set(target.databases) - {str(each.database) for each in found.databases}):
        names = [str(each.database) for each in found.databases]
        raise ConfigurationError(
            f"backup set {found.location} has no database {', '.join(unknown)}",
            hint=f"It has {first_of(nearest(unknown[0], names, most=len(names)), NAMED)}.",
        )
    members = [each for each in found.databases if not target.databases or each.database in target.databases]
    if target.with_globals and found.globals:
        members.insert(0, found.globals)
    with request_threads() as pool:
        read = list(pool.map(lambda member: _read(repository, found, member), members))
    if missing := [each.name for each, evidence in zip(members, read, strict=True) if not evidence]:
        do = "does" if len(missing) == 1 else "do"
        raise BackupNotFound(
            f"{counted(len(missing), 'backup')} of set {found.location} {do} not exist: {first_of(missing, NAMED)}",
            hint=f"Retention may have removed them. Select others with {parameter('databases')}, or "
            "choose another set.",
        )
    if failed := [
        f"{evidence.backup.name} {evidence.backup.standing}"
        for evidence in read
        if evidence and not counts(evidence.backup, None)
    ]:
        older = older_set(repository, found.server, before=found.started_at)
        raise VerificationFailed(
            f"{counted(len(failed), 'backup')} of set {found.location} cannot be used: {'; '.join(failed[:NAMED])}",
            hint=f"{f'Restore set {older.id}' if older else 'Choose another set'}, or select the other databases with "
            f"{parameter('databases')}.",
        )
    references: list[Mapping[str, object]] = [reference_of(repository, evidence) for evidence in read if evidence]
    backups = list(zip(members, references, strict=True))
    if found.globals in members:
        return SetBackups(references[0], backups[1:])
    return SetBackups(None, backups)


def _read(repository: Repository, found: BackupSet, member: SetMember) -> Evidence | None:
    """Return what a member's own files prove, None if it was removed."""
    try:
        evidence = read_evidence(repository, member.parsed_series, member.id)
    except BackupNotFound:
        return None
    artifact = evidence.require_manifest().artifact
    if (artifact.sha256, artifact.size) != (member.sha256, member.size):
        raise ConfigurationError(
            f"backup {member.name} is not the one that set {found.location} names: its SHA-256 or its size differs",
            hint="Check who wrote to the repository, and restore another set.",
        )
    return evidence


def plan_databases(
    backups: SetBackups, found: BackupSet, target: SetTarget, connection: ConnectionParams, uuid: str, cancel: Cancel
) -> list[PlannedDatabase]:
    """Return what to do for each database.

    :param connection: a database of the server.
    :param uuid: of the repository.
    :raises ConfigurationError: the server is too old or has databases of the same names, or the role may not create
        databases.
    """
    label = connection.with_database("").label
    names = {
        str(member.database): database_name(str(member.database), target.prefix) for member, _ in backups.databases
    }
    with session(connection, cancel) as opened:
        server = ServerInfo.read(opened, label)
        markers = {name: find_marker(opened, name) for name in names.values() if name in server.databases}
    major = major_version(found.server_version)
    check_versions(major, server, allow_older=target.allow_older_server, label=label)
    require_may_create(server, "Connect as a superuser, or grant the role CREATEDB with ALTER ROLE.")
    planned, taken = [], []
    for member, reference in backups.databases:
        name = names[str(member.database)]
        marker = markers.get(name)
        mode: str | None = "create"
        seed = f"restore_set {(uuid, found.location, target.prefix, member.database)}"
        ours = marker if marker and marker.request == request_digest(seed) else None
        database = connection.with_database(name)
        if ours and not ours.begun:
            mode = None
        elif name in markers:  # the server has it
            if name in _FILLED and (_is_empty(database, cancel) or (ours and _is_restored(database, ours, cancel))):
                mode = "into_empty"  # which finds a restore that is complete
            else:
                taken.append(name)
        planned.append(PlannedDatabase(member, reference, name, mode, seed))
    if taken:
        raise ConfigurationError(
            f"{label} already has {noun(len(taken), 'database')} {first_of(taken, NAMED)}",
            hint=f"Give {parameter('prefix')} to restore beside them, name the databases to restore, or use an empty "
            "server. Nothing is ever replaced.",
        )
    return planned


def database_name(database: str, prefix: str) -> str:
    """Return the name on the target server.

    :raises ConfigurationError: longer than PostgreSQL's names.
    """
    name = f"{prefix}{database}"
    if len(encoded(name)) > MAX_NAME:
        raise ConfigurationError(
            f"database name {name!r} is too long",
            hint=f"PostgreSQL truncates names to 63 bytes: choose a shorter {parameter('prefix')}.",
        )
    return name


def _is_restored(connection: ConnectionParams, marker: RetryMarker, cancel: Cancel) -> bool:
    with session(connection, cancel) as opened:
        return bool(is_complete(opened, marker))


def _is_empty(connection: ConnectionParams, cancel: Cancel) -> bool:
    with session(connection, cancel) as opened:
        try:
            require_empty(opened, connection.label)
        except ConfigurationError:
            return False
    return True
