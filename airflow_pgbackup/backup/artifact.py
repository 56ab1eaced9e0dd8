"""An artifact where it lies: its bytes against the manifest, and a form that PostgreSQL's tools can read."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from airflow_pgbackup.backup.progress import Progress
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.errors import BackupNotFound, ClientError
from airflow_pgbackup.postgres.clients import Client, find_clients, where_to_get
from airflow_pgbackup.postgres.process import Cancel
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Entry, Repository
from airflow_pgbackup.repository.manifest import FileDigest, Manifest
from airflow_pgbackup.repository.source import CancelFlag, Stop

_T = TypeVar("_T")
_CHUNK = 1 << 20
PARALLEL = 4
"""Members of a directory read at a time: a store answers each request late, and hashing takes a core each."""


def member_key(manifest: Manifest, file: FileDigest) -> str:
    """The key of one file of an artifact."""
    key = layout.artifact_key(manifest.series, manifest.id, manifest.artifact.name)
    return f"{key}/{file.path}" if manifest.artifact.format == "directory" else key


def check_bytes(
    repository: Repository, manifest: Manifest, *, cancel: Cancel | None = None, progress: Progress | None = None
) -> tuple[list[str], Mapping[str, Entry]]:
    """Read every file, members of a directory in parallel, and hold it against the manifest: size, then SHA-256.

    :return: what is wrong, a line each; and for every key its entry, which pins later reads to these very bytes.
    """
    lock = threading.Lock()
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress:
                progress.advance(done)

    def look(file: FileDigest, stop: CancelFlag) -> tuple[str | None, Entry | None]:
        key = member_key(manifest, file)
        entry = repository.stat(key)
        if entry is None:
            return f"{file.path} is missing", None
        if entry.size != file.size:
            return f"{file.path} has {entry.size} bytes, {file.size} were dumped", entry
        try:
            with repository.read(key, pin=entry) as stream:
                meter = Meter(stream)
                while data := meter.read(_CHUNK):
                    stop.check()
                    advance(len(data))
        except BackupNotFound:
            return f"{file.path} went away or changed while it was read", entry
        if meter.sha256 != file.sha256:
            return f"{file.path} has sha256 {meter.sha256}, {file.sha256} was dumped", entry
        return None, entry

    found = _each(manifest.artifact.files, look, cancel)
    wrong = [line for line, _ in found if line]
    pins = {
        member_key(manifest, file): entry
        for file, (_, entry) in zip(manifest.artifact.files, found, strict=True)
        if entry is not None
    }
    return wrong + _extra_members(repository, manifest), pins


def _each(files: Sequence[FileDigest], work: Callable[[FileDigest, CancelFlag], _T], cancel: Cancel | None) -> list[_T]:
    """``work`` done on every file, a few at a time; its results in the order of the files. The first failure ends all.

    A single file is read by the calling thread, where Airflow's timeout interrupts a read that hangs.
    """
    stop = Stop(cancel)
    if len(files) == 1:
        return [work(files[0], stop)]
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="pgbackup-member") as pool:
        futures = [pool.submit(work, file, stop) for file in files]
        try:
            # In the order in which they end: the first failure is the cause.
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _extra_members(repository: Repository, manifest: Manifest) -> list[str]:
    # pg_restore looks at what toc.dat names, so a foreign member does no harm; but it is not what was dumped.
    if manifest.artifact.format != "directory":
        return []
    known = {member_key(manifest, file) for file in manifest.artifact.files}
    folder = layout.artifact_key(manifest.series, manifest.id, manifest.artifact.name)
    return [
        f"{entry.key.removeprefix(f'{folder}/')} is no file of this dump"
        for entry in repository.list(folder)
        if entry.key not in known
    ]


@contextmanager
def local_copy(
    repository: Repository,
    manifest: Manifest,
    pins: Mapping[str, Entry],
    *,
    temp_dir: str = "",
    cancel: Cancel | None = None,
) -> Iterator[Path]:
    """The artifact as a path that a tool can open: itself where keys are files, else a copy that goes again."""
    key = layout.artifact_key(manifest.series, manifest.id, manifest.artifact.name)
    path = repository.local_path(key)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="pgbackup-", dir=temp_dir or None) as folder:
        download(repository, manifest, Path(folder), pins=pins, cancel=cancel)
        yield Path(folder) / manifest.artifact.name


def download(
    repository: Repository,
    manifest: Manifest,
    into: Path,
    *,
    pins: Mapping[str, Entry] | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Copy the artifact into a folder under its own name, members in parallel; files are 0600, a directory 0700.

    :return: the artifact's path. Sizes and digests are the caller's business: see :func:`check_bytes`.
    """
    target = into / manifest.artifact.name
    if manifest.artifact.format == "directory":
        target.mkdir(mode=0o700)

    def fetch(file: FileDigest, stop: CancelFlag) -> None:
        path = target / file.path if manifest.artifact.format == "directory" else target
        key = member_key(manifest, file)
        path.touch(mode=0o600, exist_ok=False)
        with repository.read(key, pin=(pins or {}).get(key)) as stream, path.open("wb") as out:
            while data := stream.read(_CHUNK):
                stop.check()
                out.write(data)

    _each(manifest.artifact.files, fetch, cancel)
    return target


def opened(
    repository: Repository,
    manifest: Manifest,
    pins: Mapping[str, Entry],
    *,
    temp_dir: str = "",
    cancel: Cancel | None = None,
) -> AbstractContextManager[Path | BinaryIO]:
    """The artifact in the form that needs least room: its path, or a stream where the format can be read as one."""
    key = layout.artifact_key(manifest.series, manifest.id, manifest.artifact.name)
    if repository.local_path(key) is None and manifest.artifact.format in ("custom", "plain"):
        return repository.read(key, pin=pins.get(key))
    return local_copy(repository, manifest, pins, temp_dir=temp_dir, cancel=cancel)


def choose_reader(manifest: Manifest, client_dirs: tuple[str, ...]) -> Client:
    """The client whose pg_restore reads this artifact: at least as new as the pg_dump that wrote it, and built with
    its compression. The newest one here.

    :raises ClientError: none here.
    """
    major = int(manifest.client.version.split(".")[0])
    method = manifest.artifact.compressed_inside
    clients = [client for client in find_clients(client_dirs) if client.has("pg_restore")]
    for client in clients:
        if client.major >= major and (method is None or method in client.compression_methods):
            return client
    found = "; ".join(f"{client}" for client in clients) or "none at all"
    raise ClientError(
        f"no pg_restore here reads a dump of pg_dump {manifest.client.version}"
        f"{f' compressed with {method}' if method else ''}; found: {found}",
        hint=where_to_get(major, tools=("pg_restore",), embedded=method in (None, "gzip")),
    )
