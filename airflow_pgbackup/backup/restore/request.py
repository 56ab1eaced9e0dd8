"""One restore: the request, its outcome, and the steps that databases and clusters share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from airflow_pgbackup.backup.artifact import open_checked
from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.globals import (
    GlobalsPlan,
    admin_members,
    apply_globals,
    bootstrap_user,
    plan_globals,
)
from airflow_pgbackup.backup.restore.new_database import DatabaseCounts, analyze, count_contents
from airflow_pgbackup.backup.restore.plan import check_needs
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import ConfigurationError, PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.text import first_problem


@dataclass
class RestoreOutcome:
    """The result of a restore, or of a dry run.

    :param plan: lines that say what is restored, and how.
    :ivar replaced: the new name of the old database, None if there is none.
    :ivar statements: SQL that copies the restored rows of tables in a new schema into the live tables.
    :ivar earlier: the marker of an earlier attempt that completed this request.
    """

    plan: list[str]
    databases: list[str] = field(default_factory=list)
    objects: int = 0
    rows: int | None = None
    size: int = 0
    replaced: str | None = None
    earlier: RetryMarker | None = None
    statements: list[str] = field(default_factory=list)
    roles_created: list[str] = field(default_factory=list)
    roles_existing: list[str] = field(default_factory=list)

    @property
    def contents(self) -> str:
        """What was restored, for people: ``12 objects, 3,400 rows, 1.2 MiB on disk``."""
        rows = "" if self.rows is None else f", {counted(self.rows, 'row')}"
        return f"{counted(self.objects, 'object')}{rows}, {human_bytes(self.size)} on disk"

    def add(self, database: str, counts: DatabaseCounts) -> None:
        """Add a database that was restored."""
        self.databases.append(database)
        self.objects += counts.objects
        self.size += counts.size
        if counts.rows is not None:
            self.rows = (self.rows or 0) + counts.rows


class PlannedRestore(Protocol):
    """A restore in two steps."""

    def plan(self) -> list[str]:
        """Decide how to restore, and return lines that say so.

        :raises ConfigurationError: the restore would fail.
        """

    def run(self, outcome: RestoreOutcome) -> None:
        """Restore, and record in the outcome what was restored."""


@dataclass(frozen=True)
class RestoreRequest:
    """What to restore, where to, and how.

    :param run: what the steps share.
    :param globals_from: repository and manifest of the cluster backup from which roles are restored before.
    :param retry_digest: identifies the request to a retry, see :mod:`.retry_marker`; None if there is no retry.
    """

    run: RestoreContext
    repository: Repository
    manifest: Manifest
    target: RestoreTarget
    options: RestoreOptions
    globals_from: tuple[Repository, Manifest] | None
    analyze: bool
    dry_run: bool
    retry_digest: str | None = None

    @property
    def server_label(self) -> str:
        return f"the server of {self.target.connection.label}"

    def execute(self, restore: PlannedRestore) -> RestoreOutcome:
        """Plan a restore, log the plan, and run it unless this is a dry run."""
        outcome = RestoreOutcome(plan=restore.plan())
        for line in outcome.plan:
            self.run.log(line)
        if not self.dry_run:
            self.run.check()
            restore.run(outcome)
        return outcome

    def restored(self, outcome: RestoreOutcome, reference: dict[str, object]) -> tuple[str, dict[str, object]]:
        """Return the name of the backup that was restored, and its reference: an earlier attempt of the task may have
        restored another one.

        :param reference: of the backup that this request names.
        """
        series, id = self.manifest.series, self.manifest.id
        earlier = outcome.earlier
        if earlier is None or (earlier.series, earlier.id) == (series.path, id):
            return f"{series}/{id}", reference
        name = f"{Series.parse(earlier.series)}/{earlier.id}"
        self.run.warn(f"the earlier attempt restored {name}, not {series}/{id}")
        known = {key: reference[key] for key in ("repository", "repository_uuid")}
        return name, {**known, "series": earlier.series, "id": earlier.id}

    @contextmanager
    def checked(
        self, repository: Repository, manifest: Manifest, *, as_path: bool = False
    ) -> Iterator[CheckedArtifact]:
        """Open a backup after its checksums were verified.

        :param as_path: with a private copy, for a program that needs its path.
        :raises NotProven: it is encrypted, and no identity decrypts it.
        :raises VerificationFailed: a checksum or size differs from the manifest.
        :raises DiskError: not enough disk space for the copy.
        """
        artifact = manifest.artifact
        progress = self.run.step(f"hashing {artifact.name}", bytes_total=artifact.size)
        opening = open_checked(
            repository,
            manifest,
            as_path=as_path,
            temp_dir=self.run.settings.temp_dir,
            identities=self.run.identities() if artifact.encryption else None,
            cancel=self.run.cancel,
            progress=progress,
        )
        with opening as (wrong, checked):
            if wrong:
                raise VerificationFailed(
                    f"backup {manifest.name} in {repository.uri} is damaged: {first_problem(wrong)}",
                    hint="Nothing was changed. Restore another backup, and check the repository's storage for faults.",
                )
            self.run.log(f"verified the SHA-256 of {artifact.name}, {human_bytes(artifact.size)}")
            yield checked

    def plan_globals(self, statements: Sequence[str], server: ServerInfo, params: ConnectionParams) -> GlobalsPlan:
        """Return which roles and tablespaces to create.

        :param statements: of the cluster backup, before its first database.
        """
        with session(params, self.run.cancel) as connection:
            bootstrap, admins = bootstrap_user(connection), admin_members(connection)
        return plan_globals(
            statements,
            server,
            bootstrap=bootstrap,
            admins=admins,
            tablespaces=not self.options.no_tablespaces,
            update_passwords=self.target.update_passwords,
        )

    def check_needs(self, needs: Requirements, server: ServerInfo, planned: GlobalsPlan) -> None:
        """Check that the server has what the backup needs, or will have it.

        :raises ConfigurationError: something is missing.
        """
        check_needs(
            needs,
            server,
            label=self.server_label,
            new_roles=planned.created,
            new_tablespaces=planned.tablespaces,
            encoding=self.manifest.source.encoding or "UTF8",
        )

    def apply_globals(self, plan: GlobalsPlan, params: ConnectionParams, outcome: RestoreOutcome) -> None:
        """Create the planned roles and tablespaces."""
        outcome.roles_created, outcome.roles_existing = plan.created, plan.existing
        with session(params, self.run.cancel) as connection:
            apply_globals(connection, plan, self.run.log, self.run.warn)
        if kept := [name for name in plan.existing if name not in plan.passwords]:
            self.run.warn(f"existing roles were not changed: {', '.join(kept)}")
        if plan.without_password:
            self.run.warn(
                "the backup has no role passwords; set those of the new roles that log in with one: "
                + ", ".join(plan.without_password)
            )

    def finish(self, params: ConnectionParams) -> DatabaseCounts:
        """Count the objects and rows of a restored database, and gather planner statistics."""
        counts = count_contents(self.run, params)
        if self.analyze:
            analyze(self.run, params)
        return counts


def require_may_create(server: ServerInfo, hint: str) -> None:
    """Check that the role may create databases.

    :raises ConfigurationError: it may not.
    """
    if not server.may_create:
        raise ConfigurationError(f"user {server.user} may not create databases", hint=hint)


@dataclass
class StateText:
    """The state of the target, for people. A step that changes the target sets it as soon as that is committed, and to
    :func:`doubt` while nobody knows."""

    text: str


def doubt(after: str) -> str:
    """Return the state of a target of which nobody knows whether it has the given state."""
    return f"it is not known whether {after}: check that before a retry"


@contextmanager
def state_in_errors(text: str, say: Callable[[str], None]) -> Iterator[StateText]:
    """Append the state of the target to the message of an error; log it if something else ends the run, such as
    Airflow's ``execution_timeout``.

    :param text: the state at the beginning.
    """
    state = StateText(text)
    try:
        yield state
    except PgBackupError as error:
        error.message = f"{error.message}; {state.text}"
        raise
    except BaseException:
        say(state.text)
        raise
