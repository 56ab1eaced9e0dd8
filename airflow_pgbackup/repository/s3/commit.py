"""The commit of an object: the request that makes it visible, and the proof that it did.

After a commit whose response is lost or unclear, the object's metadata shows whether this writer wrote it, by a random
token. So success means that the object exists with this size and checksum, and an error means that it does not, except
for :class:`~airflow_pgbackup.errors.OutcomeUnknown`: the store did not answer, and an abandoned request may still
succeed.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_pgbackup.errors import AlreadyExists, OutcomeUnknown, PgBackupError, RepositoryError
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.checksums import differ
from airflow_pgbackup.repository.s3.errors import CONFLICTS, WITHOUT_CHECKSUMS, NotRenewed, code_of, refused, status_of
from airflow_pgbackup.text import printable

log = logging.getLogger(__name__)

TOKEN = "pgbackup-write"  # noqa: S105  the name of a metadata field


class Commit:
    """The commit of one object.

    :param key: the complete key in the bucket.
    :param what: for messages, ``s3://bucket/key``.
    """

    def __init__(self, bucket: Bucket, key: str, what: str) -> None:
        self._bucket = bucket
        self._key = key
        self._what = what
        self._token = secrets.token_hex(16)
        self.metadata = {TOKEN: self._token}
        """What the object's metadata must hold."""

    def send(self, operation: str, **params: Any) -> None:
        """Send the request that makes the object visible, and return when it is visible.

        :raises AlreadyExists: another object has this key.
        :raises OutcomeUnknown: the request failed, but may have been or may yet be executed.
        """
        try:
            self._unless_exists(operation, params)
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, NotRenewed) and refused(error):
                raise  # a look at the object would be refused as well
            # A retry after a lost response fails with 412 or NoSuchUpload, a proxy's timeout with any status. Only the
            # object shows what happened.
            with self._sent():
                head = self._bucket.head(self._key)
            if self.is_ours(head):
                said = code_of(error) or type(error).__name__
                log.info("%s", printable(f"the store reported {said}, but {self._what} is complete"))
            elif head is not None and (operation not in self._bucket.unconditional or refused(error)):
                raise AlreadyExists(f"{self._what} exists already") from error
            elif refused(error):
                raise
            else:
                with self._sent():
                    raise

    def is_ours(self, head: dict[str, Any] | None) -> bool:
        """Return whether this commit made the object of a HEAD."""
        return head is not None and head.get("Metadata", {}).get(TOKEN) == self._token

    def confirm(self, size: int, checksum: str | None) -> dict[str, Any]:
        """Compare the stored object with what was sent, and return the answer to its HEAD.

        :raises OutcomeUnknown: the store does not show the object, or does not answer.
        :raises AlreadyExists: another writer has replaced it.
        :raises RepositoryError: its size or checksum differs.
        """
        for pause in (0.1, 0.4, 1.6, 0.0):
            with self._sent():
                head = self._bucket.head(self._key, checksum=checksum is not None)
            if head is not None:
                break
            time.sleep(pause)  # S3 is strongly consistent, but not every store is
        else:
            raise OutcomeUnknown(f"{self._what} does not exist after the store confirmed it")
        if head.get("Metadata", {}).get(TOKEN, self._token) != self._token:
            # SeaweedFS checks If-None-Match before it joins the parts: of two simultaneous uploads the later one wins.
            raise AlreadyExists(f"{self._what} was written by another writer at the same time")
        stored = head.get(f"Checksum{self._bucket.algorithm}")
        found = head["ContentLength"]
        if found != size or (checksum and stored and differ(checksum, stored)):
            differs = f"{self._what} differs from what was sent: " + (
                f"{found} of {size} bytes" if found != size else f"expected checksum {checksum}, found {stored}"
            )
            hint = "Check the store, and any proxy before it, for damage; no other tool may write to this key."
            if found == size:
                hint = f"{hint} {WITHOUT_CHECKSUMS}"
            if self.is_ours(head):
                self._remove_damaged(differs, hint)
            raise RepositoryError(differs, hint=hint)
        return head

    @contextmanager
    def _sent(self) -> Iterator[None]:
        """Raise errors as OutcomeUnknown, since the request that makes the object visible has been sent."""
        try:
            with self._bucket.errors(f"cannot write {self._what}"):
                yield
        except PgBackupError as error:
            raise OutcomeUnknown(f"{error.message}; it is unknown whether it was written", hint=error.hint) from error

    def _unless_exists(self, operation: str, params: dict[str, Any]) -> None:
        # By operation: S3 itself implements it for all but CopyObject in a bucket whose policy requires it.
        if operation not in self._bucket.unconditional and self._bucket.knows(operation, "IfNoneMatch"):
            try:
                self._repeat_on_conflict(operation, params)
            except ClientError as error:
                if code_of(error) != "NotImplemented" and status_of(error) != 501:
                    raise
                self._bucket.unconditional.add(operation)
            else:
                return
        # Without If-None-Match two simultaneous writers can both pass this check.
        if self._bucket.head(self._key) is not None:
            raise AlreadyExists(f"{self._what} exists already")
        self._bucket.call(operation, Key=self._key, **params)

    def _repeat_on_conflict(self, operation: str, params: dict[str, Any]) -> None:
        # S3 would want all parts again: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        pauses = () if operation == "CompleteMultipartUpload" else (0.1, 0.4, 1.6)
        for pause in (*pauses, None):
            try:
                self._bucket.call(operation, Key=self._key, IfNoneMatch="*", **params)
                return
            except ClientError as error:
                if pause is None or code_of(error) not in CONFLICTS:
                    raise
                time.sleep(pause)

    def _remove_damaged(self, differs: str, hint: str) -> None:
        """Delete the object that was written.

        :raises OutcomeUnknown: it stays, since these credentials may not delete or the store does not answer.
        """
        try:
            self._bucket.call("DeleteObject", Key=self._key)
        except (ClientError, BotoCoreError) as error:
            said = code_of(error) or type(error).__name__
            raise OutcomeUnknown(f"{differs}; it could not be removed ({said})", hint=hint) from error
