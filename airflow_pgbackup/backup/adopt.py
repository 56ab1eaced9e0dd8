"""adopt: copy existing dumps from a directory into a repository, each with a manifest, so that they count as backups.

The dumps are copied; the directory is not changed. A field of the manifest that a dump does not state stays empty.
Adopted backups are unverified, as all new ones: ``verify`` says more about them.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from airflow_pgbackup.backup.attempt import Attempt, attempt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.existing_dumps import DumpsDirectory, ExistingDump, reason
from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.restore_command import restore_command
from airflow_pgbackup.errors import AlreadyExists, BackupNotFound, ConfigurationError, NotProven, VerificationFailed
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import find_zone
from airflow_pgbackup.repository.catalogue import PIN_FILE
from airflow_pgbackup.repository.evidence import Evidence, is_whole, read_evidence
from airflow_pgbackup.repository.manifest import Artifact, ClientInfo, Compression, DatabaseSource, Manifest

_UNKNOWN = "0"
"""The version of a dump that does not state one: older than every client."""


def adopt(
    *,
    repository: Repository,
    directory: Path,
    server: str,
    database: str | None = None,
    time_zone: str = "UTC",
    dry_run: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Adopt all dumps in a directory and its subdirectories. A second run adopts what is new.

    :param server: the first part of their series.
    :param database: of plain scripts that do not name their database; without it those are skipped. Archives and
        scripts made with ``--create`` name it.
    :param time_zone: of the machine that made the dumps, for the time in archives; a script has the time of its file.
    :return: plain JSON::

        {"adopted": [reference, …], "present": [reference, …] (adopted before),
         "found": [{"path", "series", "id", "format", "started_at", "size"}], "skipped": [{"path", "reason"}]}

        ``path`` is relative to the directory. For a dry run the first two are empty.
    :raises ConfigurationError: no such directory or time zone.
    :raises RepositoryError: the repository failed; what was adopted before stays.
    """
    if not directory.is_dir():
        raise ConfigurationError(f"{directory} is not a directory on this machine")
    context = context or RunContext()
    dumps = DumpsDirectory(directory, server, database, find_zone(time_zone), context)
    repository.uuid  # noqa: B018  raises if there is no repository, before hours of hashing
    adopted: list[dict[str, object]] = []
    present: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    skipped: list[dict[str, object]] = []

    def skip(name: str, why: str) -> None:
        skipped.append({"path": name, "reason": why})
        context.log(f"skipped {name}: {why}")

    for path in dumps.candidates():
        context.cancel.check()
        name = path.relative_to(directory).as_posix()
        try:
            dump = dumps.read(path)
        except (VerificationFailed, NotProven, ConfigurationError) as error:
            skip(name, str(error))
            continue
        except OSError as error:
            skip(name, f"cannot be read: {reason(error)}")
            continue
        if dump is None:
            skip(name, "not a dump of PostgreSQL")
            continue
        found.append(dump.describe(name))
        if dry_run:
            continue
        try:
            is_new, evidence = _Adoption(repository, dump, name, server, context).run()
        except (AlreadyExists, VerificationFailed) as error:
            skip(name, str(error))
        except OSError as error:
            skip(name, f"changed during the operation: {reason(error)}")
        else:
            (adopted if is_new else present).append(reference_of(repository, evidence))
    return {"adopted": adopted, "present": present, "found": found, "skipped": skipped}


@dataclass
class _Adoption:
    """One dump on its way into the repository."""

    repository: Repository
    dump: ExistingDump
    name: str
    server: str
    context: RunContext

    def run(self) -> tuple[bool, Evidence]:
        """Copy the dump, manifest last.

        :return: False and the backup, if it was adopted before.
        :raises AlreadyExists: another backup has its id, or the adopted backup is incomplete.
        """
        dump = self.dump
        with suppress(BackupNotFound):
            found = read_evidence(self.repository, dump.series, dump.id)
            if not (is_whole(found) and dump.is_in(found)):
                standing = "is another dump" if is_whole(found) else found.backup.standing
                raise AlreadyExists(
                    f"backup {dump.series}/{dump.id} exists already, and {standing}",
                    hint=f"Delete {self.repository.location(found.backup.folder)} and adopt it again.",
                )
            return False, found
        with attempt(self.repository, dump.series, dump.id, self.context.log) as mine:
            manifest = self._manifest(mine)
            for file, named in zip(dump.files, manifest.artifact.files, strict=True):
                key = manifest.key(named)
                mine.written.append(key)
                with dump.open(file) as stream:
                    self.repository.write(
                        key, stream, size_hint=file.size, sha256=file.sha256, cancel=self.context.cancel
                    )
            self.context.cancel.check()
            found = mine.commit(manifest, dump.is_in)
        if not mine.has_made(found):
            return False, found
        self.context.log(f"adopted {dump.path.name} as {dump.series}/{dump.id}, {human_bytes(manifest.artifact.size)}")
        return True, found

    def _manifest(self, mine: Attempt) -> Manifest:
        dump, content = self.dump, self.dump.content
        by = None if content.format == "plain" else "pg_dump"  # who compressed a script is unknown
        name = _artifact_name(dump, self.server)
        artifact = Artifact(
            name=name,
            format=content.format,
            compression=Compression(content.compression, None, by if content.compression else None),
            size=sum(file.size for file in dump.files),
            sha256=dump.sha256,
            files=dump.files if content.format == "directory" else (replace(dump.files[0], path=name),),
            attempt=mine.name,
        )
        server_version = content.server_version or _UNKNOWN
        now = datetime.now(timezone.utc).replace(microsecond=0)
        return Manifest(
            repository=self.repository.uuid,
            series=dump.series,
            id=dump.id,
            kind="cluster" if content.cluster else "database",
            started_at=dump.started_at,
            finished_at=dump.started_at,
            duration_seconds=0.0,
            artifact=artifact,
            source=DatabaseSource(
                database=dump.series.database,
                server_version=server_version,
                server_version_num=_number(server_version),
                size_bytes=None,
                encoding=None,
                host=None,
            ),
            client=ClientInfo("pg_dumpall" if content.cluster else "pg_dump", content.dump_version or _UNKNOWN, ""),
            options={},
            origin={"adopted_from": self.name, "adopted_at": now.isoformat()},
            restore_command=restore_command(
                artifact=artifact.name,
                format=content.format,
                compression=content.compression if content.format == "plain" else None,
                database=dump.series.database,
                create=content.create,
            ),
        )


def _artifact_name(dump: ExistingDump, server: str) -> str:
    """Return the dump's own name, where a repository allows it: people know their dumps by their names."""
    name = dump.path.name
    taken = name in (layout.MANIFEST_FILE, PIN_FILE) or name.startswith((".", "verification-"))
    if not taken and name.isprintable() and "\\" not in name and layout.is_key(name):
        return name
    return layout.artifact_name(
        layout.DEFAULT_ARTIFACT,
        database=dump.series.database,
        server=server,
        started_at=dump.started_at,
        format=dump.content.format,
        compression=dump.content.compression if dump.content.format == "plain" else None,
    )


def _number(version: str) -> int:
    """Return a version as ``server_version_num`` has it: ``18.4`` is 180004, ``9.6.24`` is 90624."""
    parts = [int(part) for part in re.findall("[0-9]+", version)] + [0, 0]
    return parts[0] * 10000 + (parts[1] if parts[0] >= 10 else parts[1] * 100 + parts[2])
