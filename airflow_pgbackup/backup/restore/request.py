"""One restore: what was asked for, and what its steps share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from airflow_pgbackup.backup.artifact import open_checked
from airflow_pgbackup.backup.checked import Checked
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.progress import Progress, human_bytes
from airflow_pgbackup.backup.restore.client_programs import RestoreContext
from airflow_pgbackup.backup.restore.globals import GlobalsPlan, apply_globals, bootstrap_user, plan_globals
from airflow_pgbackup.backup.restore.new_database import DatabaseCounts, analyze, count_contents
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.manifest import Manifest


@dataclass
class RestoreOutcome:
    """What came of it, or of a dry run.

    :ivar earlier: an earlier try had done it.
    """

    plan: list[str]
    databases: list[str] = field(default_factory=list)
    objects: int = 0
    rows: int | None = None
    size: int = 0
    replaced: str | None = None
    earlier: RetryMarker | None = None
    roles_created: list[str] = field(default_factory=list)
    roles_existing: list[str] = field(default_factory=list)

    def add(self, database: str, measured: DatabaseCounts) -> None:
        self.databases.append(database)
        self.objects += measured.objects
        self.size += measured.size
        if measured.rows is not None:
            self.rows = (self.rows or 0) + measured.rows


@dataclass(frozen=True)
class RestoreRequest:
    """:ivar globals_from: repository and manifest of the cluster backup whose roles come first.
    :ivar request: the digest of what asked for it, None where nobody does again.
    """

    run: RestoreContext
    repository: Repository
    manifest: Manifest
    target: RestoreTarget
    options: RestoreOptions
    globals_from: tuple[Repository, Manifest] | None
    analyze: bool
    dry_run: bool
    request: str | None = None

    @contextmanager
    def checked(self, repository: Repository, manifest: Manifest, *, as_path: bool = False) -> Iterator[Checked]:
        """A backup whose bytes have been compared with its manifest.

        :param as_path: with a private copy, for a tool that opens it by its name.
        :raises VerificationFailed: they are not those that were dumped.
        :raises DiskError: there is no room for the copy.
        """
        artifact = manifest.artifact
        progress = Progress(self.run.say, f"hashing {artifact.name}")
        opening = open_checked(
            repository,
            manifest,
            as_path=as_path,
            temp_dir=self.run.settings.temp_dir,
            cancel=self.run.cancel,
            progress=progress,
        )
        with opening as (wrong, checked):
            if wrong:
                raise VerificationFailed(
                    f"backup {manifest.series}/{manifest.id} in {repository.uri} is not what was dumped: {wrong[0]}"
                    + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""),
                    hint="nothing was touched; restore another backup, and look at what holds this repository",
                )
            self.run.say(f"{artifact.name}: {human_bytes(artifact.size)} as dumped, by sha256")
            yield checked

    def plan_globals(self, statements: Sequence[str], server: ServerInfo, params: ConnectionParams) -> GlobalsPlan:
        with session(params, self.run.cancel) as connection:
            bootstrap = bootstrap_user(connection)
        return plan_globals(statements, server, bootstrap=bootstrap, tablespaces=not self.options.no_tablespaces)

    def apply_globals(self, plan: GlobalsPlan, params: ConnectionParams) -> None:
        with session(params, self.run.cancel) as connection:
            apply_globals(connection, plan, self.run.say)
        if plan.existing:
            self.run.warn(f"roles that existed stay as they were: {', '.join(plan.existing)}")

    def finish(self, params: ConnectionParams) -> DatabaseCounts:
        """Count what came, and gather the planner's statistics."""
        measured = count_contents(self.run, params)
        if self.analyze:
            analyze(self.run, params)
        return measured


@contextmanager
def state_in_errors(state: str) -> Iterator[None]:
    """An error says what is there now, behind what went wrong."""
    try:
        yield
    except PgBackupError as error:
        error.message = f"{error.message}; {state}"
        raise
