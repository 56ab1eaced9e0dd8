"""Backup sets: which backups one run made of the databases of a server, and what is missing.

A set is a folder ``<server>/@sets/<set id>/`` with files ``set-<UTC>-<complete|partial>.json``. Files are added and
never overwritten; the newest one counts. A set is not a backup: it names backups, which are verified, copied and
removed separately. The databases of a set are not one snapshot: each was dumped on its own, at its own time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.json_document import Content, Document, moment
from airflow_pgbackup.repository.layout import Series, backup_folder, encode_segment, is_key, parse_backup_id
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.set_layout import SetName, set_folder

KIND = "pgbackup set"


@dataclass(frozen=True, kw_only=True)
class SetMember:
    """One backup of a set.

    :param series: the folder of its series, names percent-encoded, as in references.
    :param database: None for the globals.
    :param size: bytes of the artifact.
    :param sha256: its digest, as in the backup's manifest.
    :param key: the artifact's key.
    :param level: at which it was verified when the set was written; None: it was not.
    """

    series: str
    id: str
    database: str | None
    size: int
    sha256: str
    key: str
    level: str | None

    @property
    def name(self) -> str:
        """The backup's folder below the repository."""
        return f"{self.series}/{self.id}"

    @property
    def parsed_series(self) -> Series:
        return Series.parse(self.series)

    @property
    def identity(self) -> tuple[Series, str]:
        """As :attr:`.catalogue.Backup.identity`."""
        return self.parsed_series, self.id

    @classmethod
    def of(cls, manifest: Manifest, level: str | None) -> SetMember:
        """Return a backup as a member of a set.

        :param level: at which it is verified; None: it is not.
        """
        return cls(
            series=manifest.series.path,
            id=manifest.id,
            database=manifest.series.database,
            size=manifest.artifact.size,
            sha256=manifest.artifact.sha256,
            key=manifest.artifact_key,
            level=level,
        )

    @classmethod
    def decode(cls, content: Content) -> SetMember:
        return cls(
            series=content["series"],
            id=content["id"],
            database=content["database"],
            size=int(content["size"]),
            sha256=content["sha256"],
            key=content["key"],
            level=content["level"],
        )


@dataclass(frozen=True)
class Absent:
    """A database that is not in a set, and why."""

    database: str
    reason: str

    @classmethod
    def decode(cls, content: Content) -> Absent:
        return cls(content["database"], content["reason"])


@dataclass(frozen=True, kw_only=True)
class BackupSet(Document):
    """What one run made of the databases of a server.

    :param status: ``complete`` or ``partial``: something is missing.
    :param started_at: of the run, aware UTC, whole seconds: that of the id.
    :param finished_at: when this was written.
    :param globals: the backup of roles and tablespaces. None with ``globals_missing`` None: not requested.
    :param globals_missing: why the globals that were requested are not in the set.
    :param databases: in the order in which to restore them, largest first.
    :param missing: databases that were to be dumped and have no usable backup of this run.
    :param left_out: databases that were not to be dumped: templates, those that accept no connections, excluded ones.
    :param dropped: databases of the server's previous set that no longer exist.
    """

    schema: ClassVar[str] = "set"
    format_version: str = "1.0"
    kind: str = KIND
    id: str
    server: str
    status: str
    started_at: datetime
    finished_at: datetime
    server_version: str
    origin: Mapping[str, object] = field(default_factory=dict)
    globals: SetMember | None
    globals_missing: str | None = None
    databases: tuple[SetMember, ...]
    missing: tuple[Absent, ...] = ()
    left_out: tuple[Absent, ...] = ()
    dropped: tuple[str, ...] = ()
    snapshot: bool = False
    """Always False: the databases are not one snapshot."""

    @classmethod
    def _decode(cls, content: Content, unknown: Content) -> BackupSet:
        return cls(
            format_version=content["format_version"],
            unknown=unknown,
            id=content["id"],
            server=content["server"],
            status=content["status"],
            started_at=moment(content["started_at"]),
            finished_at=moment(content["finished_at"]),
            server_version=content["server_version"],
            origin=content["origin"],
            globals=None if content["globals"] is None else SetMember.decode(content["globals"]),
            globals_missing=content["globals_missing"],
            databases=tuple(SetMember.decode(each) for each in content["databases"]),
            missing=tuple(Absent.decode(each) for each in content["missing"]),
            left_out=tuple(Absent.decode(each) for each in content["left_out"]),
            dropped=tuple(content["dropped"]),
        )

    @property
    def members(self) -> tuple[SetMember, ...]:
        """All its backups, in the order in which to restore them: the globals first."""
        return (*((self.globals,) if self.globals else ()), *self.databases)

    @property
    def location(self) -> str:
        """Its folder in the repository."""
        return set_folder(self.server, self.id)

    @property
    def name(self) -> SetName:
        """The name of its file."""
        return SetName(self.finished_at, self.status)

    def _contradiction(self) -> str | None:
        try:
            encode_segment(self.server)
        except ConfigurationError as error:
            return error.message
        if self.started_at != parse_backup_id(self.id):
            return f"{self.id} did not start at {self.started_at.isoformat()}"
        if (self.status == "partial") != bool(self.missing or self.globals_missing):
            return f"it is {self.status}, and {len(self.missing) + bool(self.globals_missing)} backups are missing"
        if self.globals and self.globals_missing:
            return "its globals are both present and missing"
        for member in self.members:
            series = _parsed(member.series)
            expected = Series(self.server, member.database, None if member is not self.globals else "globals")
            if series != expected or (member.database is None) != (member is self.globals):
                return f"{member.series!r} is not the series of a member of this set"
            if not (is_key(member.key) and member.key.startswith(f"{backup_folder(series, member.id)}/")):
                return f"{member.key!r} is not a key of backup {member.name}"
        names = [member.database for member in self.databases]
        names += [each.database for each in (*self.missing, *self.left_out)]
        if len(set(names)) < len(names):
            return "it lists a database twice"
        return None


def _parsed(path: str) -> Series | None:
    try:
        return Series.parse(path)
    except ValueError:
        return None
