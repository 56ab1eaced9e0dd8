"""An artifact whose bytes were compared with its manifest: what was hashed is what is used.

A file system pins nothing: a file can be renamed over or written in place between its check and its use, and ``utime``
sets its time. So a reader gets the bytes in one of two ways:

* As a stream: while a file was hashed, the digest of everything up to each MiB was kept, 32 bytes a MiB. The second
  reading is hashed too, and compared at the same places before a piece is handed on.
* As a path, for tools that need one: a copy in a private directory, hashed while it was copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow_pgbackup.byte_streams import PieceReader, Readable
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.manifest import Manifest

PIECE = 1 << 20
_DIGEST = 32


class Marks:
    """The sha256 of everything up to each MiB of a file, and up to its end.

    :param entry: which a store pins the second reading to.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._hash = hashlib.sha256()
        self._digests = bytearray()

    def add(self, piece: bytes) -> None:
        """:param piece: the next MiB; less only at the end."""
        self._hash.update(piece)
        self._digests += self._hash.digest()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def again(self, source: Readable, what: str, check: Callable[[], None]) -> Iterator[bytes]:
        """The pieces of a second reading, each compared before it is given.

        :param what: names the file in the error.
        :param check: called before each piece; may raise.
        :raises RepositoryError: other bytes than those of the first reading.
        """
        digest = hashlib.sha256()
        for start in range(0, len(self._digests), _DIGEST):
            check()
            piece = source.read(PIECE)
            digest.update(piece)
            if digest.digest() != self._digests[start : start + _DIGEST]:
                raise RepositoryError(
                    f"{what} changed after its digest was checked",
                    hint="find out what writes to the repository; a retry checks the backup again",
                )
            yield piece


@dataclass(frozen=True)
class Checked:
    """:ivar marks: by key. :ivar path: of a private copy, where one was made."""

    repository: Repository
    manifest: Manifest
    marks: Mapping[str, Marks]
    path: Path | None = None

    @contextmanager
    def stream(self, check: Callable[[], None] = lambda: None) -> Iterator[Readable]:
        """An artifact of one file, its very bytes again.

        :param check: called at each MiB; may raise.
        :raises RepositoryError: when read: the file holds other bytes by now, or is gone.
        """
        key = self.manifest.key(self.manifest.artifact.files[0])
        marks = self.marks[key]
        with self.repository.read(key, pin=marks.entry) as source:
            yield PieceReader(marks.again(source, self.repository.location(key), check))

    @property
    def private_path(self) -> Path:
        """The copy that the caller asked for."""
        if self.path is None:
            raise RuntimeError("this artifact was checked without a private copy")
        return self.path
