"""Write a stream of unknown length to one S3 object, completely or not at all.

It does not use boto3's transfer manager (``upload_fileobj``, s3transfer 0.19), for reasons found in its source and by
measuring:

- It reads the source in a thread of its own, which nothing can interrupt: an Airflow timeout, raised in the main
  thread, waits while the dump waits for a lock. Here the caller's own thread reads.
- It does not support ``If-None-Match``, fixes the part size before the first byte, and does not report a failed abort.
- It is neither faster nor smaller: for 1 GiB it takes 3.0 s of CPU time and 136 MiB, this module 2.9 s and 107 MiB
  (113 MiB for 10 GiB). Nearly all of the time is hashing, which botocore does for both.

Requests, retries, signatures and checksums stay boto3's. What is added: parts are sent by a small pool while the
next one is read, within a bound of bytes; and what a commit did is found out, see :mod:`.commit`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_pgbackup.errors import AlreadyExists, OutcomeUnknown, PgBackupError, RepositoryError
from airflow_pgbackup.interruption import clean_up, is_interruption
from airflow_pgbackup.repository.byte_source import ByteSource
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.checksums import checksum_of, composite_of, whole_checksum_of
from airflow_pgbackup.repository.s3.commit import Commit
from airflow_pgbackup.repository.s3.copying import part_size
from airflow_pgbackup.repository.s3.errors import code_of, status_of
from airflow_pgbackup.repository.s3.options import PartPlan
from airflow_pgbackup.repository.s3.parts import Parts, Sent, part_entry
from airflow_pgbackup.text import printable

log = logging.getLogger(__name__)


class Upload:
    """The upload of one object.

    :param key: the complete key in the bucket.
    :param what: for messages, ``s3://bucket/key``.
    :param sha256: stored as metadata of the object.
    :param locked: whether the object gets the object lock of the bucket's options.
    :param fresh: the caller knows that the key does not exist, so it is not looked up before the upload. The commit
        refuses to overwrite it all the same.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        what: str,
        *,
        sha256: str | None = None,
        fresh: bool = False,
        locked: bool = False,
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._fresh = fresh
        self.what = what
        self._commit = Commit(bucket, key, what)
        self._metadata = {**bucket.options.extra_args.get("Metadata", {}), **self._commit.metadata}
        if sha256 is not None:
            self._metadata["sha256"] = sha256
        self._lock = bucket.options.lock if locked else None
        self._checksum = {"ChecksumAlgorithm": bucket.algorithm} if bucket.algorithm else {}

    def run(self, source: ByteSource, size_hint: int | None) -> dict[str, Any]:
        """Upload a source, and return the answer to a HEAD of the object.

        :param size_hint: about how many bytes come; None if unknown.
        :raises AlreadyExists, OutcomeUnknown, RepositoryError: see :class:`.Commit`. Errors of botocore and the source
            pass.
        """
        plan = self._plan(size_hint)
        data = source.read(plan.next_size)
        if len(data) < plan.next_size:
            source.check()
            self._commit.send("PutObject", Body=data, Metadata=self._metadata, **self._checksum, **self._retention())
            return self._commit.confirm(len(data), checksum_of(data, self._bucket.algorithm))
        first = [data]
        del data  # otherwise this frame would hold it until the end
        return self.finish(self._multipart(first, source, plan))

    def send(self, source: ByteSource, size_hint: int) -> Sent:
        """Send a source as parts; :meth:`finish` makes them an object."""
        plan = self._plan(size_hint)
        return self._multipart([source.read(plan.next_size)], source, plan)

    def finish(self, sent: Sent) -> dict[str, Any]:
        """Complete the object from the parts that were sent, and check it as :meth:`run` does."""
        self._complete(sent.upload, sent.parts)
        return self._commit.confirm(sent.size, self._composite_of(sent.parts))

    def drop(self, sent: Sent) -> None:
        """Remove the parts that were sent."""
        self._abort(sent.upload)

    def copy(
        self,
        source: Mapping[str, Any],
        head: Mapping[str, Any],
        check: Callable[[], None],
        before_commit: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Let the store copy an object; result and errors as for :meth:`run`.

        :param source: see :func:`.copy_source`.
        :param head: the answer to a HEAD of it.
        :param check: raises when the copy should stop.
        :param before_commit: called right before the request that makes the copy visible.
        """
        size = int(head["ContentLength"])
        part = part_size(self._bucket, size)
        metadata = {**head.get("Metadata", {}), **self._metadata}
        if size <= part:
            check()
            before_commit()
            tags = {"TaggingDirective": "REPLACE"} if "Tagging" in self._bucket.options.extra_args else {}
            self._commit.send(
                "CopyObject",
                **source,
                Metadata=metadata,
                MetadataDirective="REPLACE",
                **tags,
                **self._checksum,
                **self._retention(),
            )
            return self._commit.confirm(size, whole_checksum_of(head, self._bucket.algorithm))

        def send(number: int, data: Any) -> dict[str, Any]:
            check()
            answer = self._bucket.call(
                "UploadPartCopy", Key=self._key, UploadId=upload, PartNumber=number, CopySourceRange=data, **source
            )
            return part_entry(number, answer["CopyPartResult"])

        upload = self._create(metadata)
        parts = Parts(self._bucket, self.what, send, check)
        try:
            for number, start in enumerate(range(0, size, part), 1):
                parts.add(number, f"bytes={start}-{min(start + part, size) - 1}", 0)
            done = parts.finish()
            check()
            before_commit()
        except BaseException as error:
            self._abort(upload, parts, interrupted=is_interruption(error))
            raise
        self._complete(upload, done)
        return self._commit.confirm(size, self._composite_of(done))

    # -- multipart -----------------------------------------------------------------------------------------------

    def _plan(self, size_hint: int | None) -> PartPlan:
        """Plan the parts.

        :raises AlreadyExists: the key exists. Checked here to fail before a long dump; the commit checks it again.
        """
        if not self._fresh and self._bucket.head(self._key) is not None:
            raise AlreadyExists(f"{self.what} exists already")
        options = self._bucket.options
        return PartPlan(size_hint, options.max_parts, options.min_part_size)

    def _multipart(self, first: list[bytes], source: ByteSource, plan: PartPlan) -> Sent:
        def send(number: int, body: Any) -> dict[str, Any]:
            answer = self._bucket.call(
                "UploadPart", Key=self._key, UploadId=upload, PartNumber=number, Body=body, **self._checksum
            )
            return part_entry(number, answer)

        upload = self._create(self._metadata)
        parts = Parts(self._bucket, self.what, send, source.check_flag)
        try:
            data = first.pop()
            while data:
                parts.add(self._next_number(plan), data, len(data))
                del data  # the pool holds it until it is sent
                parts.make_room(plan.next_size)
                data = source.read(plan.next_size)
            done = parts.finish()
            source.check()
        except BaseException as error:
            self._abort(upload, parts, interrupted=is_interruption(error))
            raise
        return Sent(upload, done, source.size)

    def _next_number(self, plan: PartPlan) -> int:
        if plan.number == plan.max_parts:
            raise RepositoryError(
                f"{self.what} needs more than {plan.max_parts} parts",
                hint="Pass a size hint close to the real size, or raise max_parts if the store allows more.",
            )
        plan.number += 1
        return plan.number

    def _create(self, metadata: dict[str, str]) -> str:
        params = {**self._checksum, **self._retention()}
        answer = self._bucket.call("CreateMultipartUpload", Key=self._key, Metadata=metadata, **params)
        return str(answer["UploadId"])

    def _retention(self) -> Mapping[str, Any]:
        return self._lock.parameters() if self._lock else {}

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> None:
        try:
            self._commit.send("CompleteMultipartUpload", UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException as error:
            # The store may still be completing it; the abort ends that, so look again.
            self._abort(upload, interrupted=is_interruption(error))
            if not (isinstance(error, ClientError | BotoCoreError | OutcomeUnknown) and self._is_ours()):
                raise

    def _is_ours(self) -> bool:
        try:
            return self._commit.is_ours(self._bucket.head(self._key))
        except (ClientError, BotoCoreError):  # the error of the commit says more
            return False

    def _abort(self, upload: str, parts: Parts | None = None, *, interrupted: bool = False) -> None:
        """Abort an upload. A part in flight may outlive the abort (S3's manual), so wait for it and abort again.

        :param interrupted: return after a few seconds, even if the store does not answer.
        """

        def abort() -> None:
            try:
                in_flight = parts.stop() if parts is not None else False
                self._abort_once(upload)
                if parts is not None and in_flight:
                    parts.settle()
                    self._abort_once(upload)
            except (ClientError, BotoCoreError, PgBackupError) as error:
                self._warn_of_parts(code_of(error) or type(error).__name__)

        clean_up(abort, interrupted=interrupted, on_timeout=lambda: self._warn_of_parts("the store does not answer"))

    def _warn_of_parts(self, why: str) -> None:
        log.warning(
            "an incomplete multipart upload of %s could not be aborted (%s); nothing is visible, and prune or a "
            "lifecycle rule removes it later",
            printable(self.what),
            printable(why),
        )

    def _abort_once(self, upload: str) -> None:
        try:
            self._bucket.call("AbortMultipartUpload", Key=self._key, UploadId=upload)
        except ClientError as error:
            if status_of(error) != 404:
                raise

    def _composite_of(self, parts: list[dict[str, Any]]) -> str | None:
        if self._bucket.options.extra_args.get("ChecksumType") == "FULL_OBJECT":
            return None
        return composite_of(parts, self._bucket.algorithm)
