"""Write a directory of files to S3, several at a time. Large files can be sent before the directory is complete.

Files that are sent early are multipart uploads, which are completed only when the directory is complete, so that no
reader ever sees part of a dump that failed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError

from airflow_pgbackup.interruption import clean_up, is_interruption
from airflow_pgbackup.repository.byte_source import ByteSource, OnRead, counted
from airflow_pgbackup.repository.cancellation import CancelFlag, Stop
from airflow_pgbackup.repository.nofollow import open_member
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.errors import code_of
from airflow_pgbackup.repository.s3.parts import Sent
from airflow_pgbackup.repository.s3.upload import Upload
from airflow_pgbackup.text import printable
from airflow_pgbackup.threads import completed, run_each

log = logging.getLogger(__name__)

MEMBERS = 4
"""Files at a time: each upload waits for answers, and hashes on a core."""
_DROPS = 8  # aborts at a time


@dataclass(frozen=True)
class _Early:
    upload: Upload
    source: ByteSource
    sent: Sent


class DirectoryUpload:
    """A directory being written; the end of the ``with`` aborts what is not finished.

    :param folder: the directory.
    :param begin: returns the Upload for a bucket, a member and its sha256 (None if unknown before).
    :param cancel: stops the upload.
    :param on_failure: called with the error when an offered member could not be sent.
    :param on_read: called with a member and the bytes read of it so far.
    """

    def __init__(
        self,
        bucket: Bucket,
        folder: Path,
        begin: Callable[[Bucket, str, str | None], Upload],
        *,
        cancel: CancelFlag | None,
        on_failure: Callable[[BaseException], None],
        on_read: OnRead | None = None,
    ) -> None:
        options = bucket.options
        share = replace(
            options,
            memory=max(options.min_part_size, options.memory // MEMBERS),
            max_concurrency=max(1, options.max_concurrency // MEMBERS),
        )
        self._bucket = Bucket(bucket.name, share, of=bucket)
        self._folder = folder
        self._begin = begin
        self._on_failure = on_failure
        self._on_read = on_read
        self._stop = Stop(cancel)
        self._pool = ThreadPoolExecutor(MEMBERS, thread_name_prefix="pgbackup-member")
        self._early: dict[str, Future[_Early]] = {}
        self._silent = False  # after an interruption the threads did not end in time
        self._settled: set[str] = set()  # members of _early whose upload has been completed or aborted

    def __enter__(self) -> DirectoryUpload:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._end(error)
        if self._silent:
            self._warn_of_parts()
            return
        interrupted = error is not None and is_interruption(error)
        clean_up(self._drop_early, interrupted=interrupted, on_timeout=self._warn_of_parts)

    def _end(self, error: BaseException | None) -> None:
        """Stop the threads, and wait for them; after an interruption once, for a few seconds."""
        self._stop.set()
        if not self._silent:
            clean_up(
                lambda: self._pool.shutdown(wait=True, cancel_futures=True),
                interrupted=error is not None and is_interruption(error),
                on_timeout=self._note_silence,
            )

    def _note_silence(self) -> None:
        self._silent = True

    def _warn_of_parts(self) -> None:
        log.warning("the parts of %s could not be removed: the store does not answer", printable(str(self._folder)))

    def _drop_early(self) -> None:
        with ThreadPoolExecutor(_DROPS, thread_name_prefix="pgbackup-member") as pool:
            for member, future in self._early.items():
                sent = future.done() and not future.cancelled() and future.exception() is None
                if sent and member not in self._settled:
                    pool.submit(_drop, future.result())

    def offer(self, member: str) -> None:
        """Begin to send a file that will not change any more, if it is large enough for a multipart upload."""
        large = (self._folder / member).stat().st_size >= self._bucket.options.min_part_size
        if large and member not in self._early:
            self._early[member] = future = self._pool.submit(self._send, member)
            future.add_done_callback(self._sent)

    def finish(
        self, members: Sequence[str], digests: Mapping[str, str], on_done: Callable[[str], None]
    ) -> list[tuple[dict[str, Any], str]]:
        """Send the remaining members, and make all of them visible.

        :param members: all members, paths relative to the directory.
        :param digests: member to the sha256 that it must have.
        :param on_done: called with each member once it is visible.
        :return: for each member the answer to its HEAD, and its sha256.
        """

        def work(member: str) -> tuple[dict[str, Any], str]:
            done = self._finish(member, digests.get(member))
            on_done(member)
            return done

        try:
            # All early parts first: until then no object becomes visible.
            for sent in completed(self._early.values()):
                sent.result()
            return run_each(self._pool, work, members)
        except BaseException as error:
            self._end(error)
            raise

    def _send(self, member: str) -> _Early:
        upload = self._begin(self._bucket, member, None)
        with open_member(self._folder / member) as stream, self._bucket.errors(f"cannot write {upload.what}"):
            source = ByteSource(counted(stream, member, self._on_read), digest=True, cancel=self._stop)
            return _Early(upload, source, upload.send(source, _size_of(stream)))

    def _sent(self, future: Future[_Early]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._on_failure(error)

    def _finish(self, member: str, sha256: str | None) -> tuple[dict[str, Any], str]:
        with open_member(self._folder / member) as stream:
            size = _size_of(stream)
            if (waiting := self._early.get(member)) is not None:
                early = waiting.result()
                self._stop.check()
                self._settled.add(member)
                if early.source.size == size and sha256 in (None, early.source.sha256):
                    with self._bucket.errors(f"cannot write {early.upload.what}"), _unless_swept():
                        return early.upload.finish(early.sent), early.source.sha256
                else:  # it has grown, or was not the expected file
                    early.upload.drop(early.sent)
            upload = self._begin(self._bucket, member, sha256)
            with self._bucket.errors(f"cannot write {upload.what}"):
                reader = counted(stream, member, self._on_read)
                source = ByteSource(reader, sha256=sha256, digest=True, cancel=self._stop)
                return upload.run(source, size), source.sha256


def _size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


@contextmanager
def _unless_swept() -> Iterator[None]:
    """Ignore the error of completing an upload that no longer exists; the caller then sends the file again.

    An early upload may wait for hours, and prune or a lifecycle rule may have removed it as a leftover.
    """
    try:
        yield
    except ClientError as error:
        if code_of(error) != "NoSuchUpload":
            raise


def _drop(early: _Early) -> None:
    try:
        early.upload.drop(early.sent)
    except Exception as error:  # noqa: BLE001  the error that caused this is the one to raise
        said = f"the parts of {early.upload.what} could not be removed ({error}); prune sweeps them later"
        log.warning("%s", printable(said))
