"""Backups as somebody would forge them who can write to a repository, and what such a person would like to see."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from builds import Build

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.manifest import (
    Artifact,
    FileDigest,
    Manifest,
    directory_sha256,
)
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.verification import Verification
from airflow_pgbackup.settings import Settings

HONEST, STOLEN = b"honest-row", b"stolen-row"
"""Of one length: a table's only text, and what an attacker puts in its place."""
UP = "../" * 20

TABLE = ("create table film (title text)", f"insert into film values ('{HONEST.decode()}')")
LARGE_OBJECT = "select lo_from_bytea(4711, 'a large object')"


class Victim:
    """A backup in a ``file://`` repository, which anybody may alter."""

    def __init__(self, repository: Repository, reference: dict[str, object]) -> None:
        self.repository, self.reference = repository, reference
        manifest = self.manifest
        path = repository.local_path(manifest.artifact_key)
        assert path is not None
        self.artifact = path
        self.folder = path.parents[1]
        """Of the backup: the artifact lies in that of the attempt which wrote it."""

    @property
    def manifest(self) -> Manifest:
        return load_manifest(self.repository, self.reference)

    @property
    def files(self) -> list[Path]:
        return sorted(self.artifact.iterdir()) if self.artifact.is_dir() else [self.artifact]

    def reports(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.folder.glob("verification-*"))]

    def report(self) -> Verification:
        return Verification.from_json(self.reports()[-1])

    def sign(self) -> None:
        """Write the manifest that fits what the artifact is now, as somebody can who writes to the repository."""
        files = tuple(
            FileDigest(path.name, len(data), hashlib.sha256(data).hexdigest())
            for path in self.files
            if path.is_file()
            for data in [path.read_bytes()]
        )
        self.write(self.artifact_of(files))

    def artifact_of(self, files: tuple[FileDigest, ...]) -> Artifact:
        artifact = self.manifest.artifact
        sha256 = directory_sha256(files) if artifact.format == "directory" else files[0].sha256
        return replace(artifact, files=files, size=sum(file.size for file in files), sha256=sha256)

    def write(self, artifact: Artifact) -> None:
        manifest = self.manifest
        path = self.folder / layout.MANIFEST_FILE
        path.write_bytes(replace(manifest, artifact=artifact).to_json())


def victim(
    connection: ConnectionParams, folder: Path, *, settings: Settings | None = None, **options: object
) -> Victim:
    """A real backup of a database."""
    repository = open_repository(f"file://{folder}")
    repository.init()
    dumped = DumpOptions(**options)  # type: ignore[arg-type]
    reference = dump_database(
        connection=connection,
        server="s",
        repository=repository,
        options=dumped,
        context=RunContext(settings=settings or Settings()),
    )
    return Victim(repository, reference)


def swap(path: Path, how: str) -> None:
    """Replace the honest row in a file, and forge its time.

    :param how: ``renamed over``, or ``written in place``.
    """
    status, data = path.stat(), path.read_bytes().replace(HONEST, STOLEN)
    if how == "renamed over":
        other = path.with_name("somebody's")
        other.write_bytes(data)
        other.rename(path)
    else:
        with path.open("r+b") as file:
            file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def between_readings(
    repository: Repository, keys: Iterable[str], act: Callable[[], None], *, times: int = 1
) -> Iterator[None]:
    """Act once, when all of these keys have been read to their ends so many times, before one of them is read again."""
    read, left = repository.read, Counter(dict.fromkeys(keys, times))

    @contextmanager
    def watched(key: str, *, pin: Entry | None = None) -> Iterator[BinaryIO]:
        with read(key, pin=pin) as stream:
            seen = _Seen(stream)
            yield seen
        with lock:  # members of a directory are read in parallel
            if seen.ended and left[key]:
                left[key] -= 1
                if not left.total():
                    act()

    lock = threading.RLock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository, "read", watched)
        yield
    assert not left.total(), "the artifact was not read"


class _Seen(io.BufferedReader):
    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)  # type: ignore[arg-type]
        self.ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.ended = self.ended or size is None or len(data) < size
        return data


def text_of(build_dir: Path, connection: ConnectionParams) -> bytes:
    """All that a database holds, large objects included."""
    with client_environment(connection) as env:
        return subprocess.run([build_dir / "pg_dump", "-w"], env=env, check=True, stdout=subprocess.PIPE).stdout


def rename_in_toc(path: Path, old: str, new: str) -> None:
    """Change a text in a table of contents, which has its length before it."""

    def stored(text: str) -> bytes:
        return b"\0" + len(text).to_bytes(4, "little") + text.encode()

    data = path.read_bytes()
    assert data.count(stored(old)) == 1
    path.write_bytes(data.replace(stored(old), stored(new)))


def data_file(directory: Path) -> Path:
    """The member with the table's rows."""
    (path,) = [path for path in directory.iterdir() if re.match(r"[0-9]+\.dat", path.name)]
    return path


def blobs_toc(directory: Path) -> Path:
    (path,) = directory.glob("blobs*.toc")
    return path


def by_hand(build: Build, artifact: Path) -> bytes:
    """What pg_restore makes of an archive, with nothing of ours between."""
    command = [build.bin_dir / "pg_restore", "--file=-", artifact]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
