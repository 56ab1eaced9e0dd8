"""Dumps in a directory that is not a repository: find them, and read what each one is from its content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.progress import Progress
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.archive.member_names import check_member_names
from airflow_pgbackup.postgres.archive.sniff import Dump, sniff
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import FileDigest, directory_sha256
from airflow_pgbackup.repository.nofollow import open_below

_CHUNK = 1 << 20


@dataclass(frozen=True)
class DumpsDirectory:
    """A directory of dumps, and what their manifests need beyond their content.

    :param server: the first part of their series.
    :param database: of plain scripts that do not name their database.
    :param zone: of the machine that made the dumps.
    """

    path: Path
    server: str
    database: str | None
    zone: tzinfo
    context: RunContext

    def candidates(self) -> Iterator[Path]:
        """Yield regular files, directories that are a directory dump, and whatever cannot be read. Links are not
        followed."""
        left = [self.path]
        while left:
            path = left.pop()
            try:
                status = path.stat(follow_symlinks=path == self.path)
                if stat.S_ISDIR(status.st_mode) and (path == self.path or not os.path.lexists(path / "toc.dat")):
                    left += sorted(path.iterdir(), reverse=True)
                elif stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                    yield path
            except OSError:
                yield path

    def open(self, path: Path) -> BinaryIO:
        """Open a file of the directory, which others may write to: no link on the way to it is followed.

        :raises OSError: it cannot be opened, or is not a regular file.
        """
        try:
            return os.fdopen(open_below(self.path, path.relative_to(self.path).as_posix()), "rb")
        except OSError as error:
            error.strerror = f"{path.name}: {reason(error)}"
            raise

    def read(self, path: Path) -> ExistingDump | None:
        """Read a dump to its end once: its digest is its identity. None: it is not a dump.

        :raises ConfigurationError: nothing says which database it was dumped from.
        :raises VerificationFailed: a directory with files that pg_dump never writes.
        :raises OSError: a file of it cannot be opened, or is not a regular file.
        """
        content = sniff(path, open_file=self.open)
        if content is None:
            return None
        database = None if content.cluster else content.database or self.database
        if database is None and not content.cluster:
            raise ConfigurationError(
                "cannot tell which database this script was dumped from",
                hint="Adopt the scripts of each database separately, with database= (--database).",
            )
        members = [path]
        if content.format == "directory":
            members = sorted(path.iterdir())
            check_member_names([member.name for member in members])
        modified = 0.0
        progress = Progress(self.context.log, f"hashing {path.name}")
        files = []
        for member in members:
            with self.open(member) as stream:
                modified = max(modified, os.fstat(stream.fileno()).st_mtime)
                meter = Meter(stream, on_bytes=progress.advance)
                while meter.read(_CHUNK):
                    self.context.cancel.check()
            files.append(FileDigest(member.name, meter.size, meter.sha256))
        started_at = self._started_at(content, datetime.fromtimestamp(modified, timezone.utc))
        return ExistingDump(self, path, content, Series(self.server, database), started_at, tuple(files))

    def _started_at(self, content: Dump, modified: datetime) -> datetime:
        if content.created is not None:
            created = content.created.replace(tzinfo=self.zone).astimezone(timezone.utc)
            # A dump that starts after its file was last written was made in another time zone than the given one.
            if created <= modified + timedelta(seconds=1):
                return created
        return modified.replace(microsecond=0)


@dataclass(frozen=True)
class ExistingDump:
    """A dump, its place in a repository, and the digests of its files."""

    directory: DumpsDirectory
    path: Path
    content: Dump
    series: Series
    started_at: datetime
    files: tuple[FileDigest, ...]

    @property
    def sha256(self) -> str:
        return directory_sha256(self.files) if self.content.format == "directory" else self.files[0].sha256

    @property
    def id(self) -> str:
        # The same dump gets the same id, so that a second run recognizes it.
        return layout.backup_id(self.started_at, seed=self.sha256)

    def is_in(self, other: Evidence) -> bool:
        """Return whether a backup holds this dump."""
        return other.require_manifest().artifact.sha256 == self.sha256

    def open(self, file: FileDigest) -> BinaryIO:
        """Open one of its files again.

        :raises OSError: it cannot be opened, or is not a regular file.
        """
        return self.directory.open(self.path / file.path if self.content.format == "directory" else self.path)

    def describe(self, name: str) -> dict[str, object]:
        """Return what adopt reports of it, as plain JSON. :param name: its path below the directory."""
        return {
            "path": name,
            "series": self.series.path,
            "id": self.id,
            "format": self.content.format,
            "started_at": self.started_at.isoformat(),
            "size": sum(file.size for file in self.files),
        }


def reason(error: OSError) -> str:
    """Return what the operating system says, in lower case."""
    return (error.strerror or type(error).__name__).lower()
