"""Read one file of an artifact: compare it with the manifest, and copy it if a private copy is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.backup.checked import Marks
from airflow_pgbackup.backup.decrypted_copy import HEAD, decrypt_copy
from airflow_pgbackup.backup.private_copy import clone, create, disk_errors
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.byte_streams import PIECE
from airflow_pgbackup.encryption.header import MAGIC
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import BackupNotFound, NotProven, RepositoryError
from airflow_pgbackup.postgres.archive.archive_file import artifact_format
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.manifest import Artifact, FileDigest, Manifest


@dataclass
class FileCheck:
    """Reads the files of an artifact, several at a time, compares them with the manifest, and copies them.

    :param path: of the copy; None makes none.
    :param copied: the artifact as it is in the copy: decrypted, if there are identities.
    """

    repository: Repository
    manifest: Manifest
    path: Path | None
    copied: Artifact
    identities: Identities
    progress: Step | None
    _done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, file: FileDigest, stop: CancelFlag) -> tuple[str | NotProven | None, Marks | None]:
        """Read a file; return its problem, None if it has none, and its marks, None if it was not read."""
        key = self.manifest.key(file)
        entry = self.repository.stat(key)
        if entry is None or entry.size != file.size:
            entry = self.repository.stat(key)  # a failure revokes all passes, so one wrong answer is not enough
        if entry is None:
            return f"{file.path} is missing", None
        if entry.size != file.size:
            return f"{file.path}: size mismatch: expected {file.size} bytes, found {entry.size}", None
        marks = Marks(entry)
        try:
            with self.repository.read(key, pin=entry) as stream:
                head, problem = self._read(file, stream, marks, stop)
        except BackupNotFound:
            if self.repository.stat(key) == entry:
                raise RepositoryError(
                    f"cannot read {self.repository.location(key)}: the store did not find it, but has it",
                    hint="Check the store, and the proxies in between, for faults, then retry.",
                ) from None
            return f"{file.path} disappeared or changed while it was being read", marks
        if marks.sha256 != file.sha256:
            return f"{file.path}: checksum mismatch: expected {file.sha256}, found {marks.sha256}", marks
        return problem or self._wrong_format(file, head), marks

    def _read(
        self, file: FileDigest, stream: BinaryIO, marks: Marks, stop: CancelFlag
    ) -> tuple[bytes, str | NotProven | None]:
        """Read a file to its end, and copy it; return its beginning, as it is in the copy, and a problem."""
        artifact, target = self.manifest.artifact, self._target(file)
        if target is not None and self._decrypts:
            pieces = self._hashed(file, stream.read, marks, stop)
            recipients = artifact.encryption.recipients if artifact.encryption else ()
            return decrypt_copy(pieces, target, self._as_copied[file.path], self.identities, file.path, recipients)
        head = b""
        with _copying(stream, target) as source:
            for piece in self._hashed(file, source, marks, stop):
                head = head or piece[:HEAD]
        return head, None

    def _hashed(
        self, file: FileDigest, read: Callable[[int], bytes], marks: Marks, stop: CancelFlag
    ) -> Iterator[bytes]:
        """Yield the pieces of a file, up to the first that shows that it is longer than in the manifest."""
        size = 0
        while size <= file.size and (piece := read(PIECE)):
            stop.check()
            marks.add(piece)
            size += len(piece)
            self._advance(len(piece))
            yield piece

    def _advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self.progress:
                self.progress.advance(self._done)

    def _wrong_format(self, file: FileDigest, head: bytes) -> str | None:
        artifact = self.manifest.artifact
        if artifact.encryption and not self._decrypts:
            return None if head.startswith(MAGIC) else f"{file.path} is not encrypted by age"
        if artifact.format != "directory" and artifact_format(head) != artifact.format:
            return f"{file.path} is not of format {artifact.format}"
        return None

    def _target(self, file: FileDigest) -> Path | None:
        """Return the path of the copy of a file."""
        if self.path is None or self.manifest.artifact.format != "directory":
            return self.path
        return self.path / self._as_copied[file.path].path

    @property
    def _decrypts(self) -> bool:
        return self.path is not None and self.copied is not self.manifest.artifact

    @cached_property
    def _as_copied(self) -> dict[str, FileDigest]:
        return {stored.path: each for stored, each in zip(self.manifest.artifact.files, self.copied.files, strict=True)}


@contextmanager
def _copying(stream: BinaryIO, path: Path | None) -> Iterator[Callable[[int], bytes]]:
    """Yield a function that reads the stream. With a path, each piece is also written to the copy there; where the file
    system can clone, the function reads the clone."""
    if path is None:
        yield stream.read
        return
    with disk_errors(path.parent):
        copy = create(path)

    def read(size: int) -> bytes:
        data = stream.read(size)
        with disk_errors(path.parent):
            copy.write(data)
            if not data:
                copy.flush()
        return data

    with copy:
        yield copy.read if clone(stream, copy) else read
