"""Count and hash the bytes written to a repository, and compare them with the expected digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from airflow_pgbackup.byte_streams import CountingReader, Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.repository.cancellation import CancelFlag, Stop
from airflow_pgbackup.repository.nofollow import open_member
from airflow_pgbackup.threads import run_each

CHUNK = 1024**2
OnRead = Callable[[str, int], None]
"""Called with the path of a member and the bytes read of it so far."""
_AT_ONCE = 4  # members hashed at a time, each on a core


class ByteSource:
    """Read full chunks until the end, also where the reader returns less at a time.

    :param sha256: the digest that the bytes must have.
    :param digest: compute the digest although none is expected.
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
        self.check_flag()
        data = self._reader.read(size)
        # A raw pipe or socket returns what it has. The writers take a short chunk for the end of the stream.
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
        """The hex digest of what was read so far."""
        if self._hash is None:
            raise RuntimeError("this ByteSource computes no digest")
        return self._hash.hexdigest()

    def check(self) -> None:
        """Compare the digest, and check the cancel flag: the last step before the commit.

        :raises VerificationFailed: the bytes are not the expected ones.
        """
        if self._expected is not None and self.sha256 != self._expected:
            raise VerificationFailed(
                f"checksum mismatch: expected sha256 {self._expected}, found {self.sha256}",
                hint="The source is damaged, or has changed: verify it.",
            )
        self.check_flag()

    def check_flag(self) -> None:
        """Check the cancel flag.

        :raises Canceled: the caller was asked to stop.
        """
        if self._cancel is not None:
            self._cancel.check()


def counted(reader: Readable, member: str, on_read: OnRead | None) -> Readable:
    """Return a reader of a member that reports what was read."""
    return reader if on_read is None else CountingReader(reader, lambda size: on_read(member, size))


def digest(path: Path, expected: str | None, cancel: CancelFlag | None) -> str:
    """Return the sha256 of a file.

    :raises VerificationFailed: it is not the expected one.
    """
    with open_member(path) as stream:
        source = ByteSource(stream, sha256=expected, digest=True, cancel=cancel)
        while source.read(CHUNK):
            pass
        source.check()
    return source.sha256


def digest_all(
    directory: Path, members: Sequence[str], expected: Mapping[str, str], cancel: CancelFlag | None
) -> Sequence[str]:
    """Return the sha256 of each member of a directory, several read at a time.

    :param expected: member to the digest that it must have.
    :raises VerificationFailed: a member has another digest.
    """
    stop = Stop(cancel)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pgbackup-member") as pool:
        try:
            return run_each(pool, lambda member: digest(directory / member, expected.get(member), stop), members)
        except BaseException:
            stop.set()  # else an interrupt would wait until large files are read
            raise
