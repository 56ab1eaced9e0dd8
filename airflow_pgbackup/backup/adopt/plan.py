"""The plan of an adoption: each dump that was found, the backup that it becomes, and why other files are skipped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_pgbackup.backup.adopt.backup_time import MTIME, BackupTime
from airflow_pgbackup.backup.adopt.found_dump import FoundDump
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series

_MANY = 3  # dumps of one day by their files, where one a day is usual


@dataclass(frozen=True)
class PlannedDump:
    """A dump, and the backup that it becomes.

    :ivar time: when it was made.
    :ivar time_pattern: that its name was read with, None without a time in it.
    :ivar database_from: ``dump``, ``name``, ``--database`` or ``--database-pattern``.
    :ivar present: the repository has it.
    :ivar notes: what somebody should look at.
    """

    dump: FoundDump
    series: Series
    time: BackupTime
    time_pattern: str | None
    database_from: str
    present: bool = False
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        # The same dump of the same time gets the same id, so that a second run recognizes it.
        return layout.backup_id(self.time.at, seed=self.dump.sha256)

    def describe(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {
            "path": self.dump.name,
            "source": self.dump.source.label,
            "series": self.series.path,
            "database_from": self.database_from,
            "id": self.id,
            "format": self.dump.content.format,
            "compression": self.dump.content.compression,
            "started_at": self.time.at.isoformat(),
            "time_from": self.time.source,
            "time_pattern": self.time_pattern if self.time.source == "name" else None,
            "size": self.dump.size,
            "present": self.present,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Skipped:
    """A file that is not adopted. :ivar name: its path below the source."""

    name: str
    source: str
    reason: str

    def describe(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {"path": self.name, "source": self.source, "reason": self.reason}


@dataclass
class Plan:
    """:ivar dumps: ordered by series and time.
    :ivar skipped: in the order in which they were found."""

    repository: Repository
    server: str
    dumps: list[PlannedDump] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def to_adopt(self) -> list[PlannedDump]:
        """Those that the repository does not have."""
        return [planned for planned in self.dumps if not planned.present]

    @property
    def patterns(self) -> dict[str, int]:
        """The patterns of the names whose time counts, and the number of names."""
        return dict(Counter(p.time_pattern for p in self.dumps if p.time_pattern and p.time.source == "name"))

    @property
    def warnings(self) -> list[str]:
        """What to look at before the plan is carried out."""
        files: dict[Series, list[datetime]] = {}
        for planned in self.dumps:
            if planned.time.source == MTIME:
                files.setdefault(planned.series, []).append(planned.time.at)
        warnings = []
        if by_mtime := sum(map(len, files.values())):
            warnings.append(
                f"the time of {by_mtime} of {len(self.dumps)} dumps is that of the file, which a copy changes; "
                "--time-pattern reads it from the name"
            )
        for series, times in files.items():
            if len(times) >= _MANY and max(times) - min(times) < timedelta(days=1):
                warnings.append(
                    f"the files of {len(times)} dumps of {series} have times of one day: copying lost their own"
                )
        return warnings

    def describe(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {
            "found": [planned.describe() for planned in self.dumps],
            "skipped": [skipped.describe() for skipped in self.skipped],
            "patterns": self.patterns,
            "warnings": self.warnings,
        }
