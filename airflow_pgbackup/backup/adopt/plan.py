"""The plan of an adoption: each dump that was found, the backup that it becomes, and why other files are skipped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_pgbackup.backup.adopt.backup_time import NAME, BackupTime
from airflow_pgbackup.backup.adopt.found_dump import FoundDump
from airflow_pgbackup.backup.adopt.name_times import NameTime
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series

_MANY = 3  # dumps of one day by their files, where one a day is usual
_MANY_SERIES = 5


@dataclass(frozen=True)
class PlannedDump:
    """A dump, and the backup that it becomes.

    :param time: when it was made.
    :param name_time: the time in its name; None without one.
    :param database_from: ``dump``, ``name``, ``--database`` or ``--database-pattern``.
    :param present: the repository has it.
    :param notes: what somebody should look at.
    :param stem: see :func:`.stem`.
    """

    dump: FoundDump
    series: Series
    time: BackupTime
    name_time: NameTime | None
    database_from: str
    present: bool = False
    notes: tuple[str, ...] = ()
    stem: str | None = None

    @property
    def id(self) -> str:
        # The same dump of the same time gets the same id, so that a second run recognizes it.
        return layout.backup_id(self.time.at, seed=self.dump.sha256)

    @property
    def time_pattern(self) -> str | None:
        """The pattern of its name, if the time in that counts."""
        return self.name_time.pattern if self.name_time and self.time.source == NAME else None

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
            "time_pattern": self.time_pattern,
            "size": self.dump.size,
            "present": self.present,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Skipped:
    """A file that is not adopted.

    :param name: its path below the source.
    :param unreadable: it may be a dump.
    :param named: the user named it.
    """

    name: str
    source: str
    reason: str
    unreadable: bool = False
    named: bool = False

    def describe(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {"path": self.name, "source": self.source, "reason": self.reason}


@dataclass
class AdoptionPlan:
    """What adopt will do with each dump.

    :ivar dumps: ordered by series and time.
    :ivar skipped: in the order in which they were found.
    """

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
        return dict(Counter(p.time_pattern for p in self.dumps if p.time_pattern))

    @property
    def warnings(self) -> list[str]:
        """What to look at before the plan is carried out."""
        files: dict[Series, list[datetime]] = {}
        for planned in self.dumps:
            if planned.time.by_file:
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
                    f"the files of {len(times)} dumps of {series} were all last written on one day, perhaps when "
                    "they were copied"
                )
        return warnings + self._equal_times() + self._single_dumps()

    def _equal_times(self) -> list[str]:
        times = Counter((p.series, p.time.at) for p in self.dumps if not p.time.by_file)
        equal: Counter[Series] = Counter()
        for (series, _), number in times.items():
            equal[series] += number if number > 1 else 0
        return [
            f"{number} dumps of {series} have the same time as another; --time-pattern reads the time of day from "
            "their names"
            for series, number in equal.items()
            if number
        ]

    def _single_dumps(self) -> list[str]:
        numbers = Counter(planned.series for planned in self.dumps)
        single = {p.series for p in self.dumps if p.database_from == "name" and numbers[p.series] == 1}
        if len(single) < _MANY_SERIES or len(single) * 2 < len(numbers):
            return []
        first = min(str(series) for series in single)
        return [f"{len(single)} series have one dump each, as {first}; --database-pattern names their databases"]

    def describe(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {
            "found": [planned.describe() for planned in self.dumps],
            "skipped": [skipped.describe() for skipped in self.skipped],
            "patterns": self.patterns,
            "warnings": self.warnings,
        }
