"""A private copy of one file of an encrypted artifact, decrypted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.backup.private_copy import create, disk_errors
from airflow_pgbackup.byte_streams import PieceReader
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.streams import decrypt
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.repository.manifest import FileDigest

HEAD = 512
"""The first bytes of a file, by which its format is known."""


class _Target:
    """Writes the copy, and hashes what is written."""

    def __init__(self, file: BinaryIO, directory: Path) -> None:
        self._file = file
        self._directory = directory
        self._hash = hashlib.sha256()
        self.size = 0
        self.head = b""

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes, /) -> int:
        with disk_errors(self._directory):
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        self.head = self.head or data[:HEAD]
        return len(data)

    def flush(self) -> None:
        with disk_errors(self._directory):
            self._file.flush()


def decrypt_copy(
    pieces: Iterator[bytes],
    path: Path,
    expected: FileDigest,
    identities: Identities,
    what: str,
    recipients: Sequence[str],
) -> tuple[bytes, str | NotProven | None]:
    """Decrypt a file, and compare what comes out with the manifest.

    :param pieces: the stored bytes; all are read, also after a problem, since the caller hashes them.
    :param path: of the copy.
    :param expected: the file, decrypted.
    :param what: names the file in problems.
    :param recipients: the public keys to which it is encrypted.
    :return: the beginning of the copy, and a problem, after which the copy must not be used: a line, or NotProven if
        no identity decrypts it.
    :raises DiskError: the copy cannot be written.
    """
    with disk_errors(path.parent):
        copy = create(path)
    target = _Target(copy, path.parent)
    problem: str | NotProven | None = None
    with copy:
        try:
            decrypt(PieceReader(pieces), target, identities, what, recipients)
        except VerificationFailed as error:
            problem = error.message
        except NotProven as error:
            problem = error
        for _ in pieces:
            pass
        target.flush()
    if problem is None and (target.size, target.sha256) != (expected.size, expected.sha256):
        problem = f"{what} does not decrypt to the bytes that were dumped"
    return target.head, problem
