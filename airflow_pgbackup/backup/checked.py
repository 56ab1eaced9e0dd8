"""An artifact whose bytes were compared with its manifest: what was hashed is what is used.

A file system pins nothing: between its check and its use a file can be replaced or overwritten, and ``utime`` sets its
time. So a reader gets the bytes in one of two ways:

* As a stream: the first reading keeps the digest of everything up to each MiB, 32 bytes per MiB. The second reading is
  hashed as well, and each piece is compared before the reader gets it.
* As a path, for tools that need one: a copy in a private directory, hashed while it was copied.

What is hashed are the stored bytes. An encrypted artifact is decrypted on its way to the reader, or into the copy, and
the decrypted bytes are compared with the manifest as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from airflow_pgbackup.byte_streams import PIECE, PieceReader, Readable
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.streams import decrypted, require_identities
from airflow_pgbackup.errors import RepositoryError, VerificationFailed
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.manifest import FileDigest, Manifest

_DIGEST = 32


class Marks:
    """The SHA-256 of everything up to each MiB of a file, and up to its end.

    :param entry: the version of the file, to which a store pins the second reading.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._hash = hashlib.sha256()
        self._digests = bytearray()

    def add(self, piece: bytes) -> None:
        """Add a piece. :param piece: the next MiB; less only at the end."""
        self._hash.update(piece)
        self._digests += self._hash.digest()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def again(self, source: Readable, what: str, check: Callable[[], None]) -> Iterator[bytes]:
        """Yield the pieces of a second reading, each after it was compared with the first.

        :param what: names the file in the error.
        :param check: called before each piece; may raise.
        :raises RepositoryError: the bytes differ from those of the first reading.
        """
        digest = hashlib.sha256()
        for start in range(0, len(self._digests), _DIGEST):
            check()
            piece = source.read(PIECE)
            digest.update(piece)
            if digest.digest() != self._digests[start : start + _DIGEST]:
                raise RepositoryError(
                    f"{what} changed after its digest was checked",
                    hint="Find out what else writes to the repository; a retry checks the backup again.",
                )
            yield piece


class Expected:
    """Reads what must be the bytes of a file of the manifest, and nothing more.

    :param stored: the source gives the bytes in the repository, not decrypted ones.
    :raises VerificationFailed: when read: their number or, at the end, their SHA-256 differs.
    """

    def __init__(self, source: Readable, file: FileDigest, *, stored: bool = False) -> None:
        self._source = source
        self._file = file
        self._stored = stored
        self._hash = hashlib.sha256()
        self._size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self._size += len(data)
        if self._size > self._file.size or (not data and size != 0):
            self.check()
        return data

    def check(self) -> None:
        """Compare what was read with the file."""
        found, expected = (self._size, self._hash.hexdigest()), (self._file.size, self._file.sha256)
        if found == expected:
            return
        if not self._stored:
            raise VerificationFailed(f"{self._file.path} does not decrypt to the bytes that were dumped")
        if self._size > self._file.size:
            raise VerificationFailed(f"{self._file.path} has more than {self._file.size} bytes")
        raise VerificationFailed(f"{self._file.path}: checksum mismatch: expected {expected[1]}, found {found[1]}")


@dataclass(frozen=True)
class CheckedArtifact:
    """A checked artifact.

    :param marks: by key.
    :param path: of a private copy, if one was made: decrypted, if there are identities.
    :param identities: decrypt the stream of an encrypted artifact.
    """

    repository: Repository
    manifest: Manifest
    marks: Mapping[str, Marks]
    path: Path | None = None
    identities: Identities = field(default_factory=Identities)

    @contextmanager
    def stream(self, check: Callable[[], None] = lambda: None) -> Iterator[Readable]:
        """Read an artifact of one file again, the same bytes, decrypted.

        :param check: called at each MiB; may raise.
        :raises RepositoryError: when read: the file was changed or removed.
        :raises NotProven: it is encrypted, and no identity decrypts it.
        :raises VerificationFailed: when read: it cannot be decrypted, or decrypts to other bytes than were dumped.
        """
        artifact = self.manifest.artifact
        key = self.manifest.key(artifact.files[0])
        marks = self.marks[key]
        with self.repository.read(key, pin=marks.entry) as source:
            stored = PieceReader(marks.again(source, self.repository.location(key), check))
            if artifact.encryption is None:
                yield stored
            else:
                with decrypted(stored, self.identities, artifact.name, artifact.encryption.recipients) as plain:
                    yield Expected(plain, artifact.encryption.files[0])

    @property
    def private_path(self) -> Path:
        """The private copy, for a caller that asked for one.

        :raises NotProven: there is none, because no identity decrypts it.
        """
        artifact = self.manifest.artifact
        if self.path is None and artifact.encryption:
            require_identities(self.identities, artifact.name, artifact.encryption.recipients)
        if self.path is None:
            raise RuntimeError("this artifact was checked without a private copy")
        return self.path
