"""An artifact in the repository: its bytes compared with the manifest, and given to the tools that read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.file_check import FileCheck
from airflow_pgbackup.backup.private_copy import disk_errors, require_room
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import BackupNotFound, NotProven, RepositoryError, VerificationFailed
from airflow_pgbackup.postgres.archive.member_names import check_directory_names, check_member_names
from airflow_pgbackup.postgres.archive.summary import TableDigest
from airflow_pgbackup.postgres.archive.tar_format import tar_members
from airflow_pgbackup.postgres.tools import client_choice
from airflow_pgbackup.postgres.tools.client_choice import ReaderRequirements
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from airflow_pgbackup.postgres.tools.process import Cancel
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.cancellation import CancelFlag, Stop
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.manifest import FileDigest, Manifest
from airflow_pgbackup.repository.verification import TableResult
from airflow_pgbackup.threads import run_each

_T = TypeVar("_T")
PARALLEL = 4
"""Members of a directory read at a time: each request to a store has a latency, and each hash takes a core."""


@contextmanager
def open_checked(
    repository: Repository,
    manifest: Manifest,
    *,
    as_path: bool,
    temp_dir: str = "",
    identities: Identities | None = None,
    cancel: Cancel | None = None,
    progress: Step | None = None,
) -> Iterator[tuple[list[str], CheckedArtifact]]:
    """Check an artifact as :func:`check_bytes` does, and keep a private copy of it while the ``with`` lasts.

    :param as_path: make the private copy.
    :param temp_dir: where; empty for the system's directory of temporary files.
    :param identities: decrypt the copy and the stream. Without one, there is no copy of an encrypted artifact.
    :raises DiskError: the copy does not fit, or cannot be written.
    :raises NotProven: no identity decrypts the copy.
    :raises VerificationFailed: names inside the artifact lead out of it, so PostgreSQL's tools must not open it.
    """
    with ExitStack() as stack:
        identities = identities or Identities()
        as_path = as_path and bool(identities or not manifest.artifact.encryption)
        into = stack.enter_context(PrivateDirectory(temp_dir or None)) if as_path else None
        with progress or nullcontext():
            wrong, checked = check_bytes(
                repository, manifest, into=into, identities=identities, cancel=cancel, progress=progress
            )
        if checked.path is not None and not wrong:
            _check_names(checked.path, manifest.artifact.format, cancel.check if cancel else lambda: None)
        yield wrong, checked


def check_bytes(
    repository: Repository,
    manifest: Manifest,
    *,
    into: Path | None = None,
    identities: Identities | None = None,
    cancel: Cancel | None = None,
    progress: Step | None = None,
) -> tuple[list[str], CheckedArtifact]:
    """Read every file, members of a directory in parallel, and compare it with the manifest: size, SHA-256, format. A
    directory must have the manifest's members and nothing else.

    :param into: a directory that nobody else writes to; it gets a copy of what was hashed, under the artifact's name,
        files with mode 0600 and a directory with 0700.
    :param identities: decrypt the copy of an encrypted artifact; without one it stays encrypted.
    :return: the problems, a line each, after which the copy must not be used; and the artifact, to read it again.
    :raises DiskError: the copy does not fit, or cannot be written.
    :raises NotProven: no identity decrypts the copy.
    """
    identities = identities or Identities()
    copied = manifest.artifact.plain if identities else manifest.artifact
    path = into and into / copied.name
    wrong = _wrong_names(repository, manifest)
    if wrong:  # nothing is read
        return wrong, CheckedArtifact(repository, manifest, {})
    if path is not None:
        _prepare(repository, manifest, path, sum(file.size for file in copied.files))
    files = manifest.artifact.files
    found = each_file(files, FileCheck(repository, manifest, path, copied, identities, progress).run, cancel)
    marks = {manifest.key(file): its for file, (_, its) in zip(files, found, strict=True) if its is not None}
    wrong = [problem for problem, _ in found if isinstance(problem, str)]
    if wrong:
        require_not_removed(repository, manifest)
    for problem, _ in found:
        if isinstance(problem, NotProven) and not wrong:  # changed bytes are a reason why no identity decrypts a file
            raise problem
    return wrong, CheckedArtifact(repository, manifest, marks, path, identities)


def require_file(repository: Repository, manifest: Manifest, file: FileDigest, *, hint: str) -> Entry:
    """Return the entry of a file of the artifact, which must have the size that the manifest states.

    :raises VerificationFailed: it is missing, or has another size; with `hint`.
    """
    key = manifest.key(file)
    entry = repository.stat(key)
    if entry is None:
        raise VerificationFailed(f"{repository.location(key)} is missing", hint=hint)
    if entry.size != file.size:
        raise VerificationFailed(f"{repository.location(key)} has {entry.size} bytes, expected {file.size}", hint=hint)
    return entry


def require_not_removed(repository: Repository, manifest: Manifest) -> None:
    """Check that a backup still exists, because a missing file is a problem of the backup only then.

    :raises BackupNotFound: prune has removed it, manifest first.
    """
    if repository.stat(layout.manifest_key(manifest.series, manifest.id)) is None:
        raise BackupNotFound(
            f"backup {manifest.name} was removed from {repository.uri} during the operation",
            hint="Choose another backup; a pin keeps a backup from prune.",
        )


@contextmanager
def unless_removed(repository: Repository, manifest: Manifest) -> Iterator[None]:
    """Raise an error of the ``with`` only if the backup still exists, or if that cannot be found out.

    :raises BackupNotFound: instead, as :func:`require_not_removed`.
    """
    try:
        yield
    except (RepositoryError, VerificationFailed) as error:
        try:
            require_not_removed(repository, manifest)
        except BackupNotFound as removed:
            raise removed from error
        except RepositoryError:  # the first error says more
            pass
        raise


def _prepare(repository: Repository, manifest: Manifest, path: Path, size: int) -> None:
    """Prepare the place for a copy."""
    first = manifest.key(manifest.artifact.files[0])
    with disk_errors(path.parent):
        if repository.stat(first) is not None:
            with repository.read(first) as source:
                require_room(path.parent, size, source)
        if manifest.artifact.format == "directory":
            path.mkdir(mode=0o700)


def each_file(
    files: Sequence[FileDigest], work: Callable[[FileDigest, CancelFlag], _T], cancel: Cancel | None
) -> list[_T]:
    """Return the results of ``work`` on every file, a few at a time, in the order of the files. A failure ends all.

    The calling thread reads a single file, so that Airflow's timeout interrupts a read that hangs.
    """
    stop = Stop(cancel)
    if len(files) == 1:
        return [work(files[0], stop)]
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="pgbackup-member") as pool:
        try:
            return run_each(pool, lambda file: work(file, stop), files)
        except BaseException:
            stop.set()
            raise


def _wrong_names(repository: Repository, manifest: Manifest) -> list[str]:
    """Return a problem for each file that is not of this artifact, and for each of its files that is not regular."""
    artifact = manifest.artifact
    folder = manifest.artifact_key
    special = set(repository.strangers(layout.backup_folder(manifest.series, manifest.id)))
    if folder in special:
        return [f"{artifact.name} is not a regular file or directory"]
    if artifact.format != "directory":
        return []
    try:
        check_member_names([file.path for file in artifact.plain.files])
    except VerificationFailed as error:
        return [error.message]
    known = {manifest.key(file) for file in artifact.files}
    wrong = [f"{key.removeprefix(f'{folder}/')} is not a regular file" for key in special & known]
    extra = [entry.key for entry in repository.list(folder) if entry.key not in known]
    extra += [key for key in special - known if key.startswith(f"{folder}/")]
    return wrong + [f"{key.removeprefix(f'{folder}/')} is not a file of this dump" for key in extra]


def _check_names(path: Path, format: str, on_step: Callable[[], None]) -> None:
    if format == "directory":
        check_directory_names(path, on_step)
    elif format == "tar":
        with path.open("rb") as file:
            tar_members(file, on_step)


def choose_reader(manifest: Manifest, client_dirs: tuple[str, ...]) -> Client:
    """Return the newest client whose pg_restore reads this artifact.

    :raises ClientError: no client here does.
    """
    return client_choice.choose_reader(find_clients(client_dirs), reader_requirements(manifest))


def reader_requirements(manifest: Manifest) -> ReaderRequirements:
    return ReaderRequirements(manifest.client.version, manifest.client.major, manifest.artifact.compressed_inside)


def table_result(table: TableDigest, result: str, detail: str | None = None) -> TableResult:
    """Return what a verification records about a table of an archive."""
    return TableResult(
        database=table.database,
        schema=table.schema,
        name=table.name,
        rows=table.rows,
        sha256=table.sha256,
        result=result,
        detail=detail,
    )
