"""A repository in a bucket: ``s3://bucket/prefix``. Only this package uses boto3."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from botocore.exceptions import ClientError

from airflow_pgbackup.errors import (
    AlreadyExists,
    PgBackupError,
    RepositoryError,
    RepositoryNotFound,
)
from airflow_pgbackup.interruption import clean_up, is_interruption
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.byte_source import ByteSource, OnRead
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.catalogue import PIN_FILE
from airflow_pgbackup.repository.entry import Entry, Incoming, UnfinishedWrite, missing
from airflow_pgbackup.repository.layout import TEMP_PREFIX, check_key, split_key
from airflow_pgbackup.repository.s3.answers import NotUploads
from airflow_pgbackup.repository.s3.bucket import Bucket, quoted
from airflow_pgbackup.repository.s3.console import console_url
from airflow_pgbackup.repository.s3.copying import copy_source
from airflow_pgbackup.repository.s3.deletion import delete_keys
from airflow_pgbackup.repository.s3.directory import DirectoryUpload
from airflow_pgbackup.repository.s3.errors import KEPT, code_of, status_of
from airflow_pgbackup.repository.s3.options import MIB, S3Options
from airflow_pgbackup.repository.s3.protection import S3Protection
from airflow_pgbackup.repository.s3.reader import ObjectReader
from airflow_pgbackup.repository.s3.unfinished import old_probes, old_uploads
from airflow_pgbackup.repository.s3.upload import Upload
from airflow_pgbackup.repository.set_layout import split_set_key
from airflow_pgbackup.text import printable, printing
from airflow_pgbackup.wording import new_repository, store

log = logging.getLogger(__name__)


class S3Repository(Repository):
    """A repository in an S3 bucket.

    :param prefix: without leading or trailing slash; empty for the bucket itself.
    :param client_of: another such repository, whose client this one uses and renews.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        options: S3Options,
        *,
        cancel: CancelFlag | None = None,
        client_of: Repository | None = None,
    ) -> None:
        super().__init__(f"s3://{bucket}/{prefix}".removesuffix("/"), cancel=cancel)
        self._root = f"{prefix}/" if prefix else ""
        of = client_of._bucket if isinstance(client_of, S3Repository) else None
        self._bucket: Bucket = Bucket(bucket, options, of=of, cancel=cancel)
        self.protection = S3Protection(
            self._bucket, self._root, self.uri, partial(_new_upload, self._root, self.uri, self._bucket)
        )

    def console_url(self, folder: str) -> str | None:
        return console_url(self._bucket.client, self._bucket.name, f"{self._root}{folder}/")

    def stat(self, key: str) -> Entry | None:
        check_key(key)
        with self._bucket.errors(f"cannot read the metadata of {self.location(key)}"):
            head = self._bucket.head(self._root + key)
        return None if head is None else _entry(key, head)

    @contextmanager
    def read(self, key: str, *, pin: Entry | None = None) -> Iterator[BinaryIO]:
        check_key(key)
        raw = ObjectReader(
            self._bucket, self._root + key, self.location(key), *((pin.version, pin.size) if pin else (None,))
        )
        with io.BufferedReader(raw, MIB) as stream:
            yield cast("BinaryIO", stream)

    def copy_from(
        self,
        other: Repository,
        source_key: str,
        key: str,
        *,
        pin: Entry | None = None,
        cancel: CancelFlag | None = None,
    ) -> Entry | None:
        """Copy on the server, within one endpoint; return None if these credentials or this store cannot.

        Copies the version in `pin`, and compares the size of the copy, and its checksum if the store has one of the
        complete object. The caller checks that this version is the expected one.
        """
        check_key(key)
        self.uuid  # noqa: B018  raises where there is no repository
        if not isinstance(other, S3Repository) or other._bucket.endpoint != self._bucket.endpoint:
            return None
        what = f"cannot copy {other.location(source_key)} to {self.location(key)}"
        with other._bucket.errors(what):
            source_head = other._bucket.head(other._root + source_key, checksum=True)
        if source_head is None:
            raise missing(other.location(source_key))
        if pin and pin.size != source_head["ContentLength"]:
            raise RepositoryError(f"{what}: the object has changed since it was listed")
        if self.stat(key) is not None:
            raise AlreadyExists(f"{self.location(key)} exists already")
        version = pin.version if pin and pin.version else _entry(source_key, source_head).version
        source = copy_source(other._bucket, other._root + source_key, version)
        upload = self._upload(self._bucket, key)
        with self._bucket.errors(what):
            try:
                head = upload.copy(source, source_head, cancel.check if cancel else lambda: None)
            except ClientError as error:
                # Refused for these credentials or by this store: the caller streams instead.
                if status_of(error) in (403, 405, 501):
                    return None
                raise
        return _entry(key, head)

    def unfinished_writes(
        self, older_than: timedelta, *, prefix: str = "", say: Callable[[str], None] | None = None
    ) -> Sequence[UnfinishedWrite]:
        """Return multipart uploads into a backup's folder, and probes. Times are the store's clock."""
        folder = self._root + (f"{check_key(prefix)}/" if prefix else "")
        found: list[UnfinishedWrite] = []
        with self._bucket.errors(f"cannot list incomplete uploads of {self.uri}"):
            try:
                found += old_uploads(self._bucket, self._root, folder, older_than)
            except (ClientError, NotUploads) as error:
                reason: object = error
                if isinstance(error, ClientError):
                    if status_of(error) not in (405, 501) and code_of(error) != "NotImplemented":
                        raise
                    reason = code_of(error) or status_of(error)
                (say or printing(log.warning))(
                    f"incomplete uploads of {self.uri} are not swept: the store cannot list them "
                    f"({reason}); set a lifecycle rule for them in the store"
                )
            if not prefix:
                found += old_probes(self._bucket, self._root, older_than)
        return found

    def old_probes(self, older_than: timedelta) -> Sequence[UnfinishedWrite]:
        with self._bucket.errors(f"cannot list {self.uri}"):
            return list(old_probes(self._bucket, self._root, older_than))

    def remove_unfinished(self, writes: Iterable[UnfinishedWrite]) -> None:
        for unfinished in writes:
            with self._bucket.errors(f"cannot remove the unfinished write of {self.location(unfinished.key)}"):
                if unfinished.upload_id is None:
                    self._bucket.call("DeleteObject", Key=self._root + unfinished.key)
                    continue
                try:
                    self._bucket.call(
                        "AbortMultipartUpload", Key=self._root + unfinished.key, UploadId=unfinished.upload_id
                    )
                except ClientError as error:
                    if status_of(error) != 404:
                        raise

    # -- for the base class --------------------------------------------------------------------------------------

    def _not_found(self) -> RepositoryNotFound:
        return RepositoryNotFound(
            f"no repository at {self.uri}: there is no repository.json at {self._bucket.endpoint}",
            hint=f"Check the prefix and {store('endpoint_url')}, or create a repository {new_repository()}.",
        )

    def _make_root(self) -> None:
        """Do nothing: buckets are not created here, since their region, encryption and lifecycle must be chosen."""

    def _list(self, folder: str) -> Iterator[Entry]:
        with self._bucket.errors(f"cannot list {self.uri}"):
            for page in self._bucket.pages("ListObjectsV2", Prefix=self._root + folder):
                for item in page.get("Contents", []):
                    yield Entry(
                        key=item["Key"][len(self._root) :],
                        size=item["Size"],
                        modified=item["LastModified"].astimezone(timezone.utc),
                        version=quoted(item["ETag"]),
                    )

    def _folders(self, folder: str) -> Iterator[str]:
        start = self._root + folder
        with self._bucket.errors(f"cannot list {self.uri}"):
            for page in self._bucket.pages("ListObjectsV2", Prefix=start, Delimiter="/"):
                for item in page.get("CommonPrefixes", []):
                    yield item["Prefix"][len(start) : -1]

    def _write(self, key: str, source: ByteSource, *, size_hint: int | None, sha256: str | None) -> Entry:
        upload = self._upload(self._bucket, key, sha256)
        with self._bucket.errors(f"cannot write {upload.what}"):
            return _entry(key, upload.run(source, size_hint))

    @contextmanager
    def incoming(
        self,
        prefix: str,
        folder: Path,
        *,
        cancel: CancelFlag | None = None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
        on_read: OnRead | None = None,
    ) -> Iterator[Incoming]:
        def begin(bucket: Bucket, member: str, sha256: str | None) -> Upload:
            return self._upload(bucket, f"{prefix}/{member}", sha256)

        with DirectoryUpload(
            self._bucket, folder, begin, cancel=cancel, on_failure=on_failure, on_read=on_read
        ) as directory:

            def finish(digests: Mapping[str, str]) -> Sequence[Entry]:
                done: list[str] = []
                try:
                    members = self._members(prefix, folder)
                    heads = directory.finish(members, digests, lambda member: done.append(f"{prefix}/{member}"))
                except BaseException as error:
                    clean_up(
                        lambda: self._remove_written(done),
                        interrupted=is_interruption(error),
                        on_timeout=lambda: log.warning(
                            "could not remove %s: the store does not answer", printable(", ".join(done[:10]))
                        ),
                    )
                    raise
                return [
                    replace(_entry(f"{prefix}/{member}", head), sha256=sha256)
                    for member, (head, sha256) in zip(members, heads, strict=True)
                ]

            yield Incoming(finish, directory.offer)

    def _upload(self, bucket: Bucket, key: str, sha256: str | None = None) -> Upload:
        return _new_upload(self._root, self.uri, bucket, key, sha256)

    def _remove_written(self, keys: Sequence[str]) -> None:
        try:
            self._delete(keys)
        except PgBackupError as error:  # the error that caused this is the one to raise
            log.warning("%s", error)

    def _remove_probe(self, key: str) -> bool:
        with self._bucket.errors(f"cannot delete {self.location(key)}"):
            try:
                self._bucket.call("DeleteObject", Key=self._root + key)
            except ClientError as error:
                if status_of(error) != 403:
                    raise
                return False
        return True

    def _delete(self, keys: Sequence[str]) -> None:
        with self._bucket.errors(f"cannot delete keys of {self.uri}"):
            failed = delete_keys(self._bucket, self._root, keys)
        if failed:
            raise RepositoryError(
                f"not deleted from {self.uri}: {', '.join(failed[:10])}{' …' if len(failed) > 10 else ''}",
                hint=KEPT,
            )


def _new_upload(root: str, uri: str, bucket: Bucket, key: str, sha256: str | None = None) -> Upload:
    """Return the upload of one key. A function, so that a repository is in no reference cycle: see Bucket."""
    return Upload(
        bucket,
        root + key,
        f"{uri}/{key}",
        sha256=sha256,
        fresh=key.startswith(TEMP_PREFIX),  # a probe, whose name is random
        locked=_makes_a_backup(key),
    )


def _makes_a_backup(key: str) -> bool:
    """Return whether a file is locked with its backup or backup set. A pin is not: unpin removes it."""
    parts = split_key(key) or split_set_key(key)
    return parts is not None and parts[2] != PIN_FILE


def _entry(key: str, head: dict[str, Any]) -> Entry:
    # Objects written before versioning was enabled have the version "null".
    version = head.get("VersionId")
    return Entry(
        key=key,
        size=head["ContentLength"],
        modified=head["LastModified"].astimezone(timezone.utc),
        version=version if version and version != "null" else quoted(head["ETag"]),
    )
