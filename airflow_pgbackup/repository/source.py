"""Bytes on their way into a repository."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Protocol

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import Canceled, VerificationFailed
from airflow_pgbackup.repository.regular_files import open_member

CHUNK = 1024**2


class CancelFlag(Protocol):
    def check(self) -> None:
        """Raise when we were asked to stop."""


class Source:
    """The bytes on their way in, counted and, where that is wanted, hashed. Full chunks until the end.

    :param sha256: the digest they must have.
    :param digest: compute it, though it is not known before.
    """

    def __init__(
        self, reader: Readable, *, sha256: str | None = None, digest: bool = False, cancel: CancelFlag | None = None
    ) -> None:
        self.size = 0
        self._reader = reader
        self._cancel = cancel
        self._expected = sha256
        self._hash = hashlib.sha256() if digest or sha256 is not None else None

    def read(self, size: int, /) -> bytes:
        if self._cancel is not None:
            self._cancel.check()
        data = self._reader.read(size)
        # A raw pipe or socket gives what it has. Whoever writes needs full chunks: a short one ends the stream.
        if 0 < len(data) < size:
            chunks, missing = [data], size - len(data)
            while missing and (data := self._reader.read(missing)):
                chunks.append(data)
                missing -= len(data)
            data = b"".join(chunks)
        self.size += len(data)
        if self._hash is not None:
            self._hash.update(data)
        return data

    @property
    def sha256(self) -> str:
        """Of what was read so far."""
        if self._hash is None:
            raise RuntimeError("this Source computes no digest")
        return self._hash.hexdigest()

    def check(self) -> None:
        """The last look before the commit.

        :raises VerificationFailed: when the bytes are not the expected ones. And what the cancel flag raises.
        """
        if self._expected is not None and self.sha256 != self._expected:
            raise VerificationFailed(
                f"checksum mismatch: expected sha256 {self._expected}, found {self.sha256}",
                hint="The source is damaged, or has changed: verify it.",
            )
        if self._cancel is not None:
            self._cancel.check()


def digest(path: Path, expected: str | None, cancel: CancelFlag | None) -> str:
    """The sha256 of a file.

    :raises VerificationFailed: it is not the expected one.
    """
    with open_member(path) as stream:
        source = Source(stream, sha256=expected, digest=True, cancel=cancel)
        while source.read(CHUNK):
            pass
        source.check()
    return source.sha256


class Stop:
    """The caller's cancel flag, and ours for the members of a directory of which one has failed."""

    def __init__(self, cancel: CancelFlag | None) -> None:
        self._cancel = cancel
        self._set = threading.Event()

    def set(self) -> None:
        self._set.set()

    def check(self) -> None:
        if self._cancel is not None:
            self._cancel.check()
        if self._set.is_set():
            raise Canceled("another member of the directory has failed")
