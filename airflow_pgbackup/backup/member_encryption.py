"""Encrypt the members of a directory dump, each as soon as pg_dump has finished it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from airflow_pgbackup.backup.private_copy import create, disk_errors
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.encryption.streams import encrypt
from airflow_pgbackup.errors import Canceled
from airflow_pgbackup.processors import usable_processors
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.manifest import ENCRYPTED, FileDigest
from airflow_pgbackup.threads import result_of


class MemberEncryption:
    """Encrypts files of one directory into another, several at a time; the end of the ``with`` stops it.

    :param source: where pg_dump writes.
    :param target: an existing directory for the encrypted files.
    :param on_done: takes the name of each encrypted file.
    :param on_failure: takes the error of a file that could not be encrypted.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        recipients: Recipients,
        *,
        cancel: CancelFlag,
        on_done: Callable[[str], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._source = source
        self._target = target
        self._recipients = recipients
        self._cancel = cancel
        self._on_done = on_done
        self._on_failure = on_failure
        self._ended = False
        self._pool = ThreadPoolExecutor(usable_processors(), thread_name_prefix="pgbackup-age")
        self._begun: dict[str, Future[FileDigest]] = {}

    def __enter__(self) -> MemberEncryption:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, member: str) -> None:
        """Encrypt a file that will not change any more. Returns at once."""
        if member not in self._begun:
            self._begun[member] = self._pool.submit(self._encrypt, member)

    def finish(self) -> tuple[FileDigest, ...]:
        """Encrypt the other files, and return the digests of all of them as they were before."""
        for path in sorted(self._source.iterdir()):
            begun = self._begun.get(path.name)
            if begun is not None and result_of(begun).size != path.stat().st_size:
                del self._begun[path.name]  # it has grown since
            self.begin(path.name)
        return tuple(result_of(future) for _, future in sorted(self._begun.items()))

    def _encrypt(self, member: str) -> FileDigest:
        def check(_: int) -> None:
            self._cancel.check()
            if self._ended:
                raise Canceled("the dump has ended")

        try:
            name = f"{member}{ENCRYPTED}"
            with disk_errors(self._target):
                (self._target / name).unlink(missing_ok=True)
                with (self._source / member).open("rb") as file, create(self._target / name) as target:
                    meter = Meter(file, on_bytes=check)
                    encrypt(meter, target, self._recipients)
            self._on_done(name)
        except BaseException as error:
            self._on_failure(error)
            raise
        return FileDigest(member, meter.size, meter.sha256)
