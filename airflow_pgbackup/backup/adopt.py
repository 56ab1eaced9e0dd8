"""adopt: take an existing folder of dumps into a repository, each with a manifest, so that they count.

Every file and folder is told by its content; the dumps are copied, the folder is left as it is. What a manifest would
hold and a dump does not say stays empty. Whether they are any good is for ``verify`` to say, as with all others.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.backup.attempt import Attempt, attempt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.progress import Progress, human_bytes
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.restore_command import restore_command
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.errors import AlreadyExists, BackupNotFound, ConfigurationError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.member_names import check_member_names
from airflow_pgbackup.postgres.archive.sniff import Dump, sniff
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE
from airflow_pgbackup.repository.evidence import Evidence, is_whole, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import (
    Artifact,
    ClientInfo,
    Compression,
    DatabaseSource,
    FileDigest,
    Manifest,
    directory_sha256,
)
from airflow_pgbackup.repository.regular_files import open_below
from airflow_pgbackup.repository.retention import find_zone

_CHUNK = 1 << 20
_UNKNOWN = "0"
"""A version that a dump does not say: older than every client."""


def adopt(
    *,
    repository: Repository,
    folder: Path,
    server: str,
    database: str | None = None,
    time_zone: str = "UTC",
    dry_run: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Adopt all dumps in a folder and those below it. Running it again adopts what is new.

    :param server: the first part of their series.
    :param database: of the scripts that do not say which database they are of; those are skipped without it. Archives
        say it, and scripts made with ``--create``.
    :param time_zone: of the machine that made them, for the time in archives; a script's is that of its file.
    :return: plain JSON::

        {"adopted": [reference, …], "present": [reference, …] (adopted before),
         "found": [{"path", "series", "id", "format", "started_at", "size"}], "skipped": [{"path", "reason"}]}

        ``path`` is relative to the folder. For a dry run the first two are empty.
    :raises ConfigurationError: no such folder or time zone.
    :raises RepositoryError: the repository fails; what has been adopted so far stays.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder on this machine")
    context = context or RunContext()
    job = _Adoption(repository, folder, server, database, find_zone(time_zone), context.cancel, context.log)
    repository.uuid  # noqa: B018  raises where there is no repository, before hours of hashing
    adopted: list[dict[str, object]] = []
    present: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    skipped: list[dict[str, object]] = []
    for path in _candidates(folder):
        context.cancel.check()
        name = path.relative_to(folder).as_posix()
        try:
            dump = sniff(path, open_file=job.open)
            one = job.look(path, dump) if dump else None
            described = one.describe(name) if one else None
            reason = "not a dump of PostgreSQL"
        except (VerificationFailed, NotProven, ConfigurationError) as error:
            one, described, reason = None, None, str(error)
        except OSError as error:
            one, described, reason = None, None, f"cannot be read: {_reason(error)}"
        if one is None or described is None:
            skipped.append({"path": name, "reason": reason})
            context.log(f"skipped {name}: {reason}")
            continue
        found.append(described)
        if dry_run:
            continue
        try:
            taken, evidence = job.take(one)
        except (AlreadyExists, VerificationFailed, OSError) as error:
            reason = f"changed meanwhile: {_reason(error)}" if isinstance(error, OSError) else str(error)
            skipped.append({"path": name, "reason": reason})
            context.log(f"skipped {name}: {reason}")
        else:
            (adopted if taken else present).append(reference_of(repository, evidence))
    return {"adopted": adopted, "present": present, "found": found, "skipped": skipped}


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _candidates(folder: Path) -> Iterator[Path]:
    """Regular files, folders which are a directory dump, and those that cannot be looked into; links are not
    followed."""
    left = [folder]
    while left:
        path = left.pop()
        try:
            status = path.stat(follow_symlinks=path == folder)
            if stat.S_ISDIR(status.st_mode) and (path == folder or not os.path.lexists(path / "toc.dat")):
                left += sorted(path.iterdir(), reverse=True)
            elif stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                yield path
        except OSError:
            yield path


@dataclass(frozen=True)
class _Found:
    path: Path
    dump: Dump
    series: Series
    started_at: datetime
    files: tuple[FileDigest, ...]

    @property
    def sha256(self) -> str:
        return directory_sha256(self.files) if self.dump.format == "directory" else self.files[0].sha256

    @property
    def id(self) -> str:
        # The same dump gets the same id, so that a second run knows it.
        return layout.backup_id(self.started_at, seed=self.sha256)

    def is_in(self, other: Evidence) -> bool:
        return other.require_manifest().artifact.sha256 == self.sha256

    def describe(self, name: str) -> dict[str, object]:
        return {
            "path": name,
            "series": self.series.path,
            "id": self.id,
            "format": self.dump.format,
            "started_at": self.started_at.isoformat(),
            "size": sum(file.size for file in self.files),
        }


@dataclass
class _Adoption:
    repository: Repository
    folder: Path
    server: str
    database: str | None
    zone: tzinfo
    cancel: Cancel
    say: Callable[[str], None]

    def open(self, path: Path) -> BinaryIO:
        """A file of the folder, which others may write to: no link is followed on the way to it.

        :raises OSError: it cannot be opened, or is not a regular file.
        """
        try:
            return os.fdopen(open_below(self.folder, path.relative_to(self.folder).as_posix()), "rb")
        except OSError as error:
            error.strerror = f"{path.name}: {_reason(error)}"
            raise

    def look(self, path: Path, dump: Dump) -> _Found:
        """Read all of it once: its digest is its identity.

        :raises ConfigurationError: it does not say of which database it is.
        :raises VerificationFailed: a directory with files that pg_dump never writes.
        :raises OSError: a file of it cannot be opened, or is not a regular file.
        """
        database = None if dump.cluster else dump.database or self.database
        if database is None and not dump.cluster:
            raise ConfigurationError(
                "the script does not say of which database it is", hint="adopt such ones by themselves, with database="
            )
        members = [path]
        if dump.format == "directory":
            members = sorted(path.iterdir())
            check_member_names([member.name for member in members])
        modified = 0.0
        progress = Progress(self.say, f"hashing {path.name}")
        files = []
        for member in members:
            with self.open(member) as stream:
                modified = max(modified, os.fstat(stream.fileno()).st_mtime)
                meter = Meter(stream, on_bytes=progress.advance)
                while meter.read(_CHUNK):
                    self.cancel.check()
            files.append(FileDigest(member.name, meter.size, meter.sha256))
        started_at = self._started_at(dump, datetime.fromtimestamp(modified, timezone.utc))
        return _Found(path, dump, Series(self.server, database), started_at, tuple(files))

    def take(self, one: _Found) -> tuple[bool, Evidence]:
        """Copy it in, manifest last. False: it was adopted before.

        :raises AlreadyExists: something else has its id, or what was adopted is not whole any more.
        """
        with suppress(BackupNotFound):
            found = read_evidence(self.repository, one.series, one.id)
            if not (is_whole(found) and one.is_in(found)):
                standing = "is another dump" if is_whole(found) else found.backup.standing
                raise AlreadyExists(
                    f"backup {one.series}/{one.id} exists already, and {standing}",
                    hint=f"Delete {self.repository.location(found.backup.folder)} and adopt it again.",
                )
            return False, found
        with attempt(self.repository, one.series, one.id, self.say) as mine:
            manifest = self._manifest(one, mine)
            for file, named in zip(one.files, manifest.artifact.files, strict=True):
                key = manifest.key(named)
                mine.written.append(key)
                with self.open(one.path / file.path if one.dump.format == "directory" else one.path) as stream:
                    self.repository.write(key, stream, size_hint=file.size, sha256=file.sha256, cancel=self.cancel)
            self.cancel.check()
            found = mine.commit(manifest, one.is_in)
        if not mine.has_made(found):
            return False, found
        self.say(f"adopted {one.path.name} as {one.series}/{one.id}, {human_bytes(manifest.artifact.size)}")
        return True, found

    def _started_at(self, dump: Dump, modified: datetime) -> datetime:
        if dump.created is not None:
            created = dump.created.replace(tzinfo=self.zone).astimezone(timezone.utc)
            # A dump that begins after its file was last written was made in another zone than we were told.
            if created <= modified + timedelta(seconds=1):
                return created
        return modified.replace(microsecond=0)

    def _manifest(self, one: _Found, mine: Attempt) -> Manifest:
        dump = one.dump
        by = None if dump.format == "plain" else "pg_dump"  # who compressed a script, nobody knows
        name = _artifact_name(one, self.server)
        artifact = Artifact(
            name=name,
            format=dump.format,
            compression=Compression(dump.compression, None, by if dump.compression else None),
            size=sum(file.size for file in one.files),
            sha256=one.sha256,
            files=one.files if dump.format == "directory" else (replace(one.files[0], path=name),),
            attempt=mine.name,
        )
        server_version = dump.server_version or _UNKNOWN
        now = datetime.now(timezone.utc).replace(microsecond=0)
        return Manifest(
            repository=self.repository.uuid,
            series=one.series,
            id=one.id,
            kind="cluster" if dump.cluster else "database",
            started_at=one.started_at,
            finished_at=one.started_at,
            duration_seconds=0.0,
            artifact=artifact,
            source=DatabaseSource(
                database=one.series.database,
                server_version=server_version,
                server_version_num=_number(server_version),
                size_bytes=None,
                encoding=None,
                host=None,
            ),
            client=ClientInfo("pg_dumpall" if dump.cluster else "pg_dump", dump.dump_version or _UNKNOWN, ""),
            options={},
            origin={"adopted_from": one.path.relative_to(self.folder).as_posix(), "adopted_at": now.isoformat()},
            restore_command=restore_command(
                artifact=artifact.name,
                format=dump.format,
                compression=dump.compression if dump.format == "plain" else None,
                database=one.series.database,
                create=dump.create,
            ),
        )


def _artifact_name(one: _Found, server: str) -> str:
    """Its own name, where that can be one in a repository: people know their dumps by it."""
    name = one.path.name
    taken = name in (layout.MANIFEST_FILE, PIN_FILE) or name.startswith((".", "verification-"))
    if not taken and name.isprintable() and "\\" not in name and layout.is_key(name):
        return name
    return layout.artifact_name(
        layout.DEFAULT_ARTIFACT,
        database=one.series.database,
        server=server,
        started_at=one.started_at,
        format=one.dump.format,
        compression=one.dump.compression if one.dump.format == "plain" else None,
    )


def _number(version: str) -> int:
    """As ``server_version_num``: ``18.4`` is 180004, ``9.6.24`` is 90624."""
    parts = [int(part) for part in re.findall("[0-9]+", version)] + [0, 0]
    return parts[0] * 10000 + (parts[1] if parts[0] >= 10 else parts[1] * 100 + parts[2])
