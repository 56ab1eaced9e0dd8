"""The five assertions that hold after every case of the campaign, whatever was injected.

1. It succeeded, and what it made verifies; or it reports one cause with a hint, without a traceback or a secret.
2. Nothing half-made is visible: listings and fsck know only complete backups, and leftovers that a repair removes
   after the grace period.
3. Every older backup is byte-identical and still verifies.
4. No process of the case survives, and no session of it on the server.
5. After the sweep with which each next run begins, no temporary file, directory, database, role or secret survives.

A case has a :class:`Scene`, takes a :func:`snapshot` before, and calls :func:`aftermath` with the outcome::

    scene = Scene(repositories=[here], tmp=tmp, servers=[server.params], secrets=[password])
    before = snapshot(scene)
    ...
    violations = aftermath(scene, before, Outcome(status, stdout, stderr))

The functions return what is violated, a line each, and raise nothing: a campaign goes on.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote, quote_plus

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.temporary_database import PREFIX as DATABASE_PREFIX
from airflow_pgbackup.backup.databases.temporary_database import sweep as sweep_databases
from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.verification_run import VerificationRun
from airflow_pgbackup.cli.failure import failure_of
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.private_directory import PREFIX, sweep
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import is_complete, read_evidence

PATIENCE = 60.0
"""Seconds in which processes and sessions of a case that was killed must end."""

LATER = timedelta(days=2)
"""Past every grace period."""

LEFTOVERS = {"attempt", "incomplete", "temporary", "upload", "running"}
"""The codes of fsck for what a kill may leave, and a repair removes."""

SESSIONS = (
    "SELECT application_name || ': ' || query FROM pg_catalog.pg_stat_activity "
    "WHERE pid <> pg_catalog.pg_backend_pid() AND (application_name IN ('pg_dump', 'pg_dumpall', 'pg_restore', 'psql') "
    "OR application_name LIKE 'airflow-pgb%')"
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where a case takes place.

    :param repositories: all that it may touch.
    :param tmp: its TMPDIR, of its own and empty: whatever the case starts has this path in its environment or its
        arguments, and so can be told from other processes.
    :param servers: where it may leave databases, roles or sessions; as superuser.
    :param secrets: passwords and keys, which appear nowhere.
    :param context: has the identities for encrypted backups.
    :param directories: others that must have the same entries afterwards as before.
    """

    repositories: Sequence[Repository]
    tmp: Path
    servers: Sequence[ConnectionParams] = ()
    secrets: Sequence[str] = ()
    context: RunContext = field(default_factory=RunContext)
    directories: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a case ended.

    :param status: an exit status; negative: the signal that ended the process.
    """

    status: int
    stdout: str = ""
    stderr: str = ""

    @classmethod
    def of(cls, error: BaseException | None) -> Outcome:
        """Return the outcome of a call of the library."""
        if error is None:
            return cls(status=0)
        failure = failure_of(error)
        hint = f"hint: {failure.hint}\n" if failure.hint else ""
        return cls(status=failure.status, stderr=f"pgbackup: {failure.message}\n{hint}")

    @property
    def name(self) -> str:
        """One word for a table."""
        if self.status < 0:
            return "killed"
        names = {0: "succeeded", 1: "failed", 2: "refused", 3: "check failed", 4: "not proven", 70: "internal error"}
        return names.get(self.status, "interrupted" if self.status == 130 else f"status {self.status}")


@dataclass(frozen=True)
class Snapshot:
    """What there was before a case.

    :param backups: by (repository, folder), the digests of its files by path.
    :param databases, roles: by server. :param entries: by directory.
    """

    backups: dict[tuple[str, str], dict[str, str]]
    databases: list[set[str]]
    roles: list[set[str]]
    entries: list[set[str]]


def snapshot(scene: Scene) -> Snapshot:
    """Return what there is now, with the digest of every file of every backup."""
    return Snapshot(
        {
            (repository.uri, backup.folder): digests(repository, backup)
            for repository in scene.repositories
            for backup in read_catalogue(repository).backups
        },
        [_names(server, "SELECT datname FROM pg_catalog.pg_database") for server in scene.servers],
        [_names(server, "SELECT rolname FROM pg_catalog.pg_roles") for server in scene.servers],
        [_tree(directory) for directory in scene.directories],
    )


def aftermath(
    scene: Scene,
    before: Snapshot,
    outcome: Outcome,
    *,
    may_remove: Callable[[str], bool] = lambda folder: False,
    may_make: Collection[str] | Callable[[str], bool] = (),
    level: str = "archive",
) -> list[str]:
    """Check all five, and return what is violated. What a sweep and a repair remove is removed afterwards.

    :param may_remove: whether the case was to delete the backup of this folder.
    :param may_make: names of databases that the case was to make, or whether it was to make one of this name.
    :param level: at which the new backups are verified.
    """
    makes = may_make if callable(may_make) else set(may_make).__contains__
    return [
        *(f"processes: {line}" for line in check_processes(scene)),
        *(f"outcome: {line}" for line in check_outcome(scene, outcome)),
        *(f"older backups: {line}" for line in check_older(scene, before, may_remove)),
        *(f"new backups: {line}" for line in check_new(scene, before, level)),
        *(f"leftovers: {line}" for line in check_leftovers(scene, before, makes)),
        *(f"listing: {line}" for line in check_listing(scene)),
    ]


def check_outcome(scene: Scene, outcome: Outcome) -> Iterator[str]:
    """One: success, or one clear cause with a hint. No traceback, no secret, no internal error."""
    yield from _secrets_in("stdout", outcome.stdout, scene)
    yield from _secrets_in("stderr", outcome.stderr, scene)
    for stream in (outcome.stdout, outcome.stderr):
        if "Traceback (most recent call last)" in stream:
            yield f"a traceback: {stream[-2000:]}"
        if re.search(r"(^|: )internal error: ", stream, re.MULTILINE) or "This is a defect" in stream:
            yield f"an internal error: {stream[-2000:]}"
    if outcome.status <= 0:
        return
    causes = [line for line in outcome.stderr.splitlines() if re.match(r"pgbackup( [a-z-]+)?: ", line)]
    hints = [line for line in outcome.stderr.splitlines() if line.startswith("hint: ")]
    if len(causes) != 1:
        yield f"{len(causes)} causes, expected 1: {outcome.stderr[-1000:]!r}"
    if outcome.status != 130 and len(hints) != 1:
        yield f"{len(hints)} hints, expected 1: {outcome.stderr[-1000:]!r}"
    if outcome.name.startswith("status "):
        yield f"exit {outcome.name}"


def check_new(scene: Scene, before: Snapshot, level: str = "archive") -> Iterator[str]:
    """One: every backup that the case made verifies, whether it reported success or not."""
    for repository in scene.repositories:
        for backup in _catalogue(repository):
            if (repository.uri, backup.folder) not in before.backups:
                yield from check_verifies(scene, repository, backup, level)


def check_verifies(scene: Scene, repository: Repository, backup: Backup, level: str = "archive") -> Iterator[str]:
    """Verify a backup, without a record of it."""
    try:
        manifest = read_evidence(repository, backup.series, backup.id).require_complete()
        report = VerificationRun(repository, manifest, level, None, (), scene.context).run()
    except PgBackupError as error:
        yield f"{backup.folder} does not verify: {error}"
        return
    if report.result != "pass":
        wrong = [f"{check.name}: {check.detail}" for check in report.checks if check.result != "pass"]
        yield f"{backup.folder} does not verify at {level}: {report.result}: {'; '.join(wrong)}"


def after_the_grace_period(repository: Repository) -> Repository:
    """Return the repository as it is when the grace period has passed: what it looks for is that much younger."""
    unfinished_writes, repository = repository.unfinished_writes, copy(repository)
    repository.unfinished_writes = (  # type: ignore[method-assign]
        lambda older_than, **more: unfinished_writes(older_than - LATER, **more)
    )
    return repository


def check_listing(scene: Scene) -> Iterator[str]:
    """Two: what listings show is complete, and a repair after the grace period leaves nothing to find."""
    later = datetime.now(timezone.utc) + LATER
    for repository in scene.repositories:
        for backup in _catalogue(repository):
            if not is_complete(read_evidence(repository, backup.series, backup.id)):
                yield f"{repository.uri} lists {backup.folder}, which is not complete"
            if backup.state in ("failed", "incomplete", "unreadable"):
                yield f"{repository.uri} lists {backup.folder} as {backup.state}"
        for finding in fsck(repository=repository).findings:
            if finding.code not in LEFTOVERS:
                yield f"fsck: {finding}"
        repository = after_the_grace_period(repository)
        for finding in fsck(repository=repository, repair=True, now=later).findings:
            if not finding.repaired and finding.code != "clock":
                yield f"fsck with --repair, after the grace period: {finding}"
        for finding in fsck(repository=repository, now=later).findings:
            if finding.code != "clock":
                yield f"fsck after a repair: {finding}"


def check_older(
    scene: Scene, before: Snapshot, may_remove: Callable[[str], bool] = lambda folder: False
) -> Iterator[str]:
    """Three: every older backup has the files it had, byte by byte, and the newest of each series still verifies.

    Verifications may be added.
    """
    for repository in scene.repositories:
        now = {backup.folder: backup for backup in _catalogue(repository)}
        verified = set()
        for (uri, folder), files in before.backups.items():
            if uri != repository.uri:
                continue
            if folder not in now:
                if not may_remove(folder):
                    yield f"{folder} is no longer listed"
                continue
            found = digests(repository, now[folder])
            yield from (f"{folder}/{path} is missing" for path in files.keys() - found.keys())
            yield from (
                f"{folder}/{path} differs" for path in files.keys() & found.keys() if files[path] != found[path]
            )
            more = {path for path in found.keys() - files.keys() if not path.startswith("verification-")}
            yield from (f"{folder}/{path} is new" for path in more)
            if now[folder].series not in verified:
                verified.add(now[folder].series)
                yield from check_verifies(scene, repository, now[folder])


def check_processes(scene: Scene) -> Iterator[str]:
    """Four: within a minute, no process has the case's TMPDIR, and no session of a tool is on the servers."""
    end = time.monotonic() + PATIENCE
    while (found := processes_with(str(scene.tmp))) and time.monotonic() < end:
        time.sleep(0.05)
    yield from (f"{pid} survives: {command}" for pid, command in found.items())
    for server in scene.servers:
        while (sessions := _names(server, SESSIONS)) and time.monotonic() < end:
            time.sleep(0.05)
        yield from (f"a session survives: {session}" for session in sessions)


def check_leftovers(scene: Scene, before: Snapshot, makes: Callable[[str], bool] = lambda name: False) -> Iterator[str]:
    """Five: what the sweep of the next run leaves. The age of directories without a lock is simulated."""
    sweep(scene.tmp)
    for path in scene.tmp.glob(f"{PREFIX}*"):
        if not (path / ".lock").exists():
            with suppress(FileNotFoundError):
                os.utime(path, (0, 0))
    sweep(scene.tmp)
    yield from (f"temporary files: {path}" for path in scene.tmp.rglob("*"))
    for server, databases, roles in zip(scene.servers, before.databases, before.roles, strict=True):
        yield from _leftovers_of(server, databases, roles, makes)
    for directory, entries in zip(scene.directories, before.entries, strict=True):
        yield from (f"new in {directory}: {path}" for path in _tree(directory) - entries)
        yield from (f"missing in {directory}: {path}" for path in entries - _tree(directory))
    for repository in scene.repositories:
        for entry in repository.list():
            if entry.key.endswith(".json"):
                with suppress(PgBackupError):
                    yield from _secrets_in(entry.key, repository.read_bytes(entry.key).decode(), scene)


def processes_with(marker: str) -> dict[int, str]:
    """Return the processes with this text in their environment or arguments, and the arguments of each."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        if int(path.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended, or belongs to somebody else
            command = (path / "cmdline").read_bytes()
            environment = b""
            with suppress(OSError):
                environment = (path / "environ").read_bytes()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if os.fsencode(marker) in command + environment and state != "Z":
                found[int(path.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:300]
    return found


def digests(repository: Repository, backup: Backup) -> dict[str, str]:
    """Return the SHA-256 of each file of a backup, by its path in the folder."""
    found = {}
    for entry in repository.list(backup.folder):
        digest = hashlib.sha256()
        with suppress(PgBackupError), repository.read(entry.key) as reader:
            while block := reader.read(1 << 20):
                digest.update(block)
        found[entry.key.removeprefix(f"{backup.folder}/")] = digest.hexdigest()
    return found


def forms_of(secret: str) -> set[str]:
    """Return the forms in which a tool could write a secret."""
    forms = {secret, secret.replace("\\", "\\\\").replace(":", "\\:"), secret.replace("'", "\\'")}
    forms |= {quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
    return forms | {secret.encode("unicode_escape").decode()}


def _secrets_in(where: str, text: str, scene: Scene) -> Iterator[str]:
    for secret in scene.secrets:
        for form in forms_of(secret):
            if form in text:
                at = text.index(form)
                yield f"a secret is in {where}: …{text[max(0, at - 80) : at]}<HERE>"
                break


def _leftovers_of(
    server: ConnectionParams, databases: set[str], roles: set[str], makes: Callable[[str], bool]
) -> Iterator[str]:
    end = time.monotonic() + PATIENCE
    while True:  # a session may take a moment to end, and the sweep keeps what it is in
        with server.connect() as session:
            sweep_databases(session, server, lambda line: None)
        names = _names(server, "SELECT datname FROM pg_catalog.pg_database")
        left = {name for name in names if name.startswith(DATABASE_PREFIX)}
        if not left or time.monotonic() > end:
            break
        time.sleep(0.1)
    yield from (f"a new database: {name}" for name in names - databases if not makes(name))
    yield from (f"a database is missing: {name}" for name in databases - names)
    yield from (f"a new role: {name}" for name in _names(server, "SELECT rolname FROM pg_catalog.pg_roles") - roles)


def _catalogue(repository: Repository) -> Iterable[Backup]:
    return read_catalogue(repository).backups


def _names(server: ConnectionParams, query: str) -> set[str]:
    with server.connect() as session:
        return {name for (name,) in session.execute(query).fetchall()}  # type: ignore[call-overload]


def _tree(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}
