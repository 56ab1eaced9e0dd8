"""Read an S3 object as a stream, reconnecting if the connection breaks."""

from __future__ import annotations

import io
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.entry import missing
from airflow_pgbackup.repository.s3.answers import MalformedAnswer
from airflow_pgbackup.repository.s3.bucket import Bucket, quoted
from airflow_pgbackup.repository.s3.errors import THROTTLED, NotRenewed, code_of, line_of, status_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ATTEMPTS = 5


class ObjectReader(io.RawIOBase):
    """A stream of the bytes of one version of an object.

    After a broken connection it continues at the same byte of the same version.

    :param what: the object's URI, for errors.
    :param version: a quoted ETag or a version id; None for the version that the first request finds.
    :param size: of that version, if it is known: the store must send as many bytes.
    :raises BackupNotFound: the object does not exist.
    """

    def __init__(self, bucket: Bucket, key: str, what: str, version: str | None, size: int | None = None) -> None:
        self._bucket = bucket
        self._key = key
        self._what = what
        self._version = version
        self._at = 0
        self._size = size
        self._body: Any = None
        with self._errors():
            self._open()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), (self._size or 0) - self._at)
        for attempt in range(ATTEMPTS):
            if not wanted:
                return 0
            self._bucket.check()
            reason: Exception | None = None
            data = b""
            try:
                if self._body is None:
                    self._open()
                data = self._body.read(wanted)
            except (BotoCoreError, ClientError, HTTPError, OSError) as error:
                if not _is_transient(error):
                    with self._errors():
                        raise
                reason = error
            if data:
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            self._drop()
            if attempt < ATTEMPTS - 1:
                time.sleep(0.2 * 4**attempt)
        raise RepositoryError(
            f"cannot read {self._what}: the connection broke {ATTEMPTS} times at byte {self._at} of {self._size}"
            f"{f'; the last error: {line_of(reason)}' if reason else ''}",
            hint="Check the network between this worker and the store.",
        ) from reason

    def close(self) -> None:
        self._drop()
        super().close()

    def _open(self) -> None:
        answer = self._get()
        if answer is None:
            raise missing(self._what)
        # A store, or a proxy before it, may ignore the range, or send another object than it has announced.
        begin, size = self._at, self._at + answer["ContentLength"]
        if begin and not answer.get("ContentRange", "").startswith(f"bytes {begin}-"):
            answer["Body"].close()
            raise MalformedAnswer(detail=f"asked for the bytes from {begin} on, and got others")
        if self._size not in (None, size):
            answer["Body"].close()
            raise MalformedAnswer(detail=f"expected an object of {self._size} bytes, found {size}")
        self._body, self._size = answer["Body"], size
        if self._version is None:
            self._version = quoted(answer["ETag"])

    def _get(self) -> dict[str, Any] | None:
        params: dict[str, Any] = {"Range": f"bytes={self._at}-"} if self._at else {}
        if self._version is None:
            return self._bucket.find("GetObject", self._key, **params)
        if self._version.startswith('"'):
            return self._bucket.find("GetObject", self._key, IfMatch=self._version, **params)
        try:
            return self._bucket.find("GetObject", self._key, VersionId=self._version, **params)
        except ClientError as error:
            if status_of(error) != 403:
                raise
        # Only a request that names a version needs s3:GetObjectVersion. The answer to any other names the current one.
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
        answer = self._bucket.find("GetObject", self._key, **params)
        if answer is not None and answer.get("VersionId") != self._version:
            answer["Body"].close()
            raise RepositoryError(
                f"cannot read {self._what}: the object has changed since it was listed, and these credentials may not "
                "read its earlier versions",
                hint="Retry, or grant s3:GetObjectVersion.",
            )
        return answer

    def _errors(self) -> AbstractContextManager[None]:
        return self._bucket.errors(f"cannot read {self._what}")

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def _is_transient(error: Exception) -> bool:
    """Return whether a retry of the request may succeed."""
    if isinstance(error, ClientError):
        return status_of(error) >= 500 or code_of(error) in THROTTLED
    return not isinstance(error, MalformedAnswer | NotRenewed)
