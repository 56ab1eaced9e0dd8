"""An entry of a repository, the error for a missing one, a directory that is being written, and an unfinished write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from airflow_pgbackup.errors import BackupNotFound


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its size and time.

    :param modified: when it was written, aware, UTC, by the store's clock; of a local file, when it was last written,
        copied, linked, or given another owner or mode.
    :param version: pins a later read to these bytes: a quoted ETag, else a version id; None for local files.
    :param sha256: hex digest; only of the members of a directory that was just written.
    """

    key: str
    size: int
    modified: datetime
    version: str | None = None
    sha256: str = field(default="", compare=False)


def missing(location: str) -> BackupNotFound:
    """Return the error for a file that does not exist, although a listing or a manifest has named it."""
    return BackupNotFound(
        f"{location} does not exist",
        hint="Its backup may have been removed since, for example by prune: list the backups, and retry.",
    )


@dataclass(frozen=True)
class Incoming:
    """A directory that is being written to a repository.

    :param finish: bring the complete directory in, as :meth:`Repository.write_directory` does.
    :param offer: called for a member that will not change any more. Returns at once.
    """

    finish: Callable[[Mapping[str, str]], Sequence[Entry]]
    offer: Callable[[str], None] = lambda member: None


@dataclass(frozen=True)
class UnfinishedWrite:
    """What a crash left of a write: a temporary file or directory, or (``upload_id``) an incomplete multipart upload.

    :param modified: when it last grew, aware UTC: a dump may run for a day.
    """

    key: str
    modified: datetime
    upload_id: str | None = None
