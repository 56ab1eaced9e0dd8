"""What a store does against deletion and overwriting: it keeps earlier versions, or locks what is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.entry import Entry


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key, in a store that keeps versions.

    :param id: as the store names it.
    :param modified: when it was written, aware UTC, by the store's clock.
    :param latest: whether it is the current one, which readers see.
    :param deleted: whether it is a delete marker, which hides the older ones.
    """

    key: str
    id: str
    modified: datetime
    latest: bool
    deleted: bool
    size: int = 0
    etag: str = ""

    def as_entry(self) -> Entry:
        """Return the entry that a listing shows if it is the current version."""
        return Entry(self.key, self.size, self.modified)


@dataclass(frozen=True, kw_only=True)
class ProtectionSettings:
    """How a bucket is set up. None: the credentials may not read it, or the store does not know it.

    :param versioning: ``enabled``, ``suspended``, or ``off``.
    :param object_lock: whether the bucket has object lock.
    :param default_mode, default_span: its default retention; None without one.
    :param noncurrent_days: after how many days a lifecycle rule deletes a version that is not current, in the folder of
        the repository; 0 where no rule does.
    :param lock_mode, lock_span: what this repository sets on what it writes; None where it sets nothing.
    """

    versioning: str | None
    object_lock: bool | None
    default_mode: str | None = None
    default_span: timedelta | None = None
    noncurrent_days: int | None = None
    lock_mode: str | None = None
    lock_span: timedelta | None = None


class Protection:
    """The protection by a store that keeps no versions and locks nothing. Another store overrides every method.

    Keys are those of the repository, and errors of the store are raised as :class:`.RepositoryError`.
    """

    def settings(self) -> ProtectionSettings | None:
        """Return how the store is set up; None where it protects nothing."""
        return None

    # -- locks ---------------------------------------------------------------------------------------------------

    def require_lock(self) -> None:
        """Check that the store can lock what the repository is to lock.

        :raises ConfigurationError: it cannot.
        """

    def locked(self, key: str, version: str | None = None) -> str | None:
        """Return why the store refuses to delete a key: ``until 2027-01-31T02:00:00+00:00``, ``by a legal hold``;
        else None.

        :param version: the id of one of its versions; by default the current one.
        """
        return None

    def may_bypass_lock(self) -> bool:
        """Return whether these credentials may delete what is locked, by trying it with a small file."""
        return False

    def hold(self, keys: Iterable[str], *, on: bool) -> str | None:
        """Set or remove a legal hold, which keeps the store from deleting keys; return why the store cannot, else None.

        :raises RepositoryError: a hold exists and cannot be removed, or the store does not answer.
        """
        return "the store has no legal hold"

    # -- versions ------------------------------------------------------------------------------------------------

    def versions(self, prefix: str = "") -> Iterator[Version]:
        """Yield every version of every key below a folder, delete markers too: by key, those of a key newest first.

        What is not a key, as :func:`.is_key` says, is left out, as in a listing.

        :raises RepositoryError: the credentials may not list them, or there are more than allowed.
        """
        return iter(())

    def read(self, version: Version, *, limit: int) -> bytes:
        """Return the bytes of a version of a small key.

        :raises BackupNotFound: it does not exist any more.
        :raises RepositoryError: it is larger than `limit` bytes, or these credentials may not read versions.
        """
        raise RepositoryError(f"cannot read {version.key}: the store keeps no versions")

    def restore(self, version: Version, above: Sequence[Version]) -> None:
        """Make an older version of a key the current one again; other data stays as older versions.

        Where all of `above` are delete markers and the credentials may delete versions, they are removed. Otherwise the
        store copies the version, and data that it replaces gets a delete marker first: the copy is the first version
        since the last deletion.

        :param above: the newer versions and delete markers of the key.
        :raises RepositoryError: the store refuses, or would not keep data that the copy replaces; the current version
            is what it was, or hidden where these credentials may not delete versions.
        """
        raise RepositoryError(f"cannot restore {version.key}: the store keeps no versions")
