"""The versions and the locks of a bucket. Its answers are untrusted, as all answers of a store are."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta, timezone
from typing import Any

from botocore.exceptions import ClientError

from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, RepositoryError
from airflow_pgbackup.repository.entry import missing
from airflow_pgbackup.repository.layout import TEMP_PREFIX, check_key, is_key, split_key
from airflow_pgbackup.repository.protection import Protection, ProtectionSettings, Version
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.commit import Commit
from airflow_pgbackup.repository.s3.copying import copy_source
from airflow_pgbackup.repository.s3.errors import MISSING, NO_LOCK, code_of, status_of
from airflow_pgbackup.repository.s3.object_lock import ObjectLock
from airflow_pgbackup.repository.s3.reader import ObjectReader
from airflow_pgbackup.repository.s3.settings import read_lock_configuration, read_settings, read_versioning
from airflow_pgbackup.repository.s3.unfinished import server_time
from airflow_pgbackup.repository.s3.upload import Upload
from airflow_pgbackup.repository.s3.versions import NULL, head_version, hiding, list_versions, remove_markers
from airflow_pgbackup.wording import command


class S3Protection(Protection):
    """The protection of a repository in a bucket.

    :param root: what the keys of the repository begin with in the bucket: ``prefix/``, or nothing.
    :param uri: of the repository, for messages.
    :param upload: begins the upload of a key.
    """

    def __init__(self, bucket: Bucket, root: str, uri: str, upload: Callable[[str], Upload]) -> None:
        self._bucket = bucket
        self._root = root
        self._uri = uri
        self._upload = upload

    def settings(self) -> ProtectionSettings:
        with self._bucket.errors(f"cannot read the settings of {self._uri}"):
            return read_settings(self._bucket, self._root)

    # -- locks ---------------------------------------------------------------------------------------------------

    def require_lock(self) -> None:
        if (lock := self._bucket.options.lock) is None:
            return
        with self._bucket.errors(f"cannot read the object lock of {self._uri}"):
            configuration = read_lock_configuration(self._bucket)
        if configuration is not None and configuration.get("ObjectLockEnabled") != "Enabled":
            name = self._bucket.name
            raise ConfigurationError(f"bucket {name} has no object lock, but lock_for is {lock}", hint=NO_LOCK)

    def locked(self, key: str, version: str | None = None) -> str | None:
        """Return the object lock, which S3 reveals to roles with s3:GetObjectRetention and s3:GetObjectLegalHold."""
        full = self._root + check_key(key)
        with self._bucket.errors(f"cannot read the metadata of {self._uri}/{key}"):
            head = self._bucket.head(full) if version is None else head_version(self._bucket, full, version)
            return None if head is None else _lock_of(head)

    def may_bypass_lock(self) -> bool:
        """Return whether they may delete a version that is locked in governance mode.

        If they may not, the version of the file stays, behind a delete marker: for a minute, or where the bucket
        refuses that, as long as a backup.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html
        """
        key = f"{self._root}{TEMP_PREFIX}probe-{secrets.token_hex(8)}"
        with self._bucket.errors(f"cannot test the object lock of {self._uri}"):
            try:
                version = self._lock_probe(key, ObjectLock(timedelta(minutes=1)))
            except ClientError as error:
                if status_of(error) != 403 or (ours := self._bucket.options.lock) is None:
                    raise
                version = self._lock_probe(key, ours)  # the bucket's policy may refuse shorter locks
            try:
                self._bucket.call("DeleteObject", Key=key, VersionId=str(version), BypassGovernanceRetention=True)
            except ClientError as error:
                if status_of(error) != 403:
                    raise
            else:
                return True
            try:
                self._bucket.call("DeleteObject", Key=key)
            except ClientError as error:
                if status_of(error) != 403:  # append-only: prune sweeps it
                    raise
        return False

    def _lock_probe(self, key: str, lock: ObjectLock) -> object:
        """Write a small locked file, and return its version."""
        commit = Commit(self._bucket, key, f"s3://{self._bucket.name}/{key}")
        checksum = {"ChecksumAlgorithm": self._bucket.algorithm} if self._bucket.algorithm else {}
        commit.send("PutObject", Body=b"probe", Metadata=commit.metadata, **checksum, **lock.parameters())
        return commit.confirm(len(b"probe"), None).get("VersionId")

    def hold(self, keys: Iterable[str], *, on: bool) -> str | None:
        """Set or remove the legal hold of objects.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectLegalHold.html
        """
        with self._bucket.errors(f"cannot {'set' if on else 'remove'} a legal hold in {self._uri}"):
            lock = read_lock_configuration(self._bucket)
            if lock is not None and lock.get("ObjectLockEnabled") != "Enabled":
                return f"bucket {self._bucket.name} has no object lock"
            for key in keys:
                if (refusal := self._hold(self._root + check_key(key), on=on)) is not None:
                    return refusal
        return None

    def _hold(self, key: str, *, on: bool) -> str | None:
        try:
            self._bucket.call("PutObjectLegalHold", Key=key, LegalHold={"Status": "ON" if on else "OFF"})
        except ClientError as error:
            if code_of(error) in MISSING:  # prune has removed it meanwhile
                return None
            if status_of(error) not in (400, 403, 405, 501):
                raise
            if on:
                return f"the store refuses it ({code_of(error)})"
            if (self._bucket.head(key) or {}).get("ObjectLockLegalHoldStatus") == "ON":
                raise
        return None

    # -- versions ------------------------------------------------------------------------------------------------

    def versions(self, prefix: str = "") -> Iterator[Version]:
        folder = f"{check_key(prefix)}/" if prefix else ""
        with self._bucket.errors(f"cannot list the versions of {self._uri}"):
            found = list_versions(self._bucket, self._root, self._root + folder)
            yield from (version for version in found if is_key(version.key))

    def read(self, version: Version, *, limit: int) -> bytes:
        what = f"version {version.id} of {self._uri}/{version.key}"
        key = self._root + check_key(version.key)
        with self._bucket.errors(f"cannot read {what}"):
            if head_version(self._bucket, key, version.id) is None:  # 403 of a GET could mean that too
                raise missing(what)
        reader = ObjectReader(self._bucket, key, what, version.id)
        with io.BufferedReader(reader) as stream:
            found = stream.read(limit + 1)
        if len(found) > limit:
            raise RepositoryError(f"{what} is larger than {limit} bytes", hint="Check who wrote it.")
        return found

    def restore(self, version: Version, above: Sequence[Version]) -> None:
        key = self._root + check_key(version.key)
        what = f"cannot restore a version of {self._uri}/{version.key}"
        with self._bucket.errors(what):
            if remove_markers(self._bucket, key, above):
                return
            head = head_version(self._bucket, key, version.id)
            if head is None:
                raise BackupNotFound(f"{what}: it was removed meanwhile")
            source = copy_source(self._bucket, key, version.id)
            upload = self._upload(version.key)
            if not _replaces_data(version, above):
                upload.copy(source, head, self._bucket.check)
                return
            self._require_versioning(what)
            with hiding(self._bucket, key, self._how_to_show(version.key)) as hide, self._bucket.errors(what):
                upload.copy(source, head, self._bucket.check, hide)

    def _how_to_show(self, key: str) -> str:
        if (parts := split_key(key)) is None:
            return f"If {self._uri}/{key} is hidden, remove its newest delete marker."
        series, id, _ = parts
        return f"If it is hidden, {command(f'undelete {self._uri} {series.path} {id}')} brings it back."

    def _require_versioning(self, what: str) -> None:
        """Check that hiding and copying add to the versions of a key.

        Where versioning is suspended, both replace the version with the id ``null`` for good: data from before
        versioning was enabled, which may be the version to restore, or data that was written while it was suspended.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeletingObjectsfromVersioningSuspendedBuckets.html
        """
        versioning = read_versioning(self._bucket)
        if versioning == "enabled":
            return
        name = self._bucket.name
        if versioning is None:
            raise RepositoryError(
                f"{what}: cannot read whether versioning of bucket {name} is enabled",
                hint="Grant s3:GetBucketVersioning: unless versioning is enabled, a copy could destroy a version.",
            )
        raise RepositoryError(
            f"{what}: versioning of bucket {name} is {versioning}",
            hint="Enable versioning of the bucket first: until then, a copy could destroy a version.",
        )


def _replaces_data(version: Version, above: Sequence[Version]) -> bool:
    """Return whether a copy onto the key replaces data as it is seen, or could replace a version for good."""
    hidden = any(other.latest and other.deleted for other in above)
    return not hidden or any(each.id == NULL and not each.deleted for each in (version, *above))


def _lock_of(head: Mapping[str, Any]) -> str | None:
    """Return why the store refuses to delete the object of this HEAD."""
    if head.get("ObjectLockLegalHoldStatus") == "ON":
        return "by a legal hold"
    until = head.get("ObjectLockRetainUntilDate")
    return f"until {until.astimezone(timezone.utc).isoformat()}" if until and until > server_time(head) else None
