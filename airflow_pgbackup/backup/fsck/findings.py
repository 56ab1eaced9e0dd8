"""The findings and the report of :func:`~airflow_pgbackup.backup.fsck.run.fsck`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from airflow_pgbackup.backup.lost import LostFile
from airflow_pgbackup.repository.catalogue import Leftover
from airflow_pgbackup.repository.entry import UnfinishedWrite

ERROR, WARNING, NOTE = "error", "warning", "note"
_NOT_REPAIRED = "It stays for the reason given. Once that no longer applies, run fsck with --repair again."
_ORDER = (ERROR, WARNING, NOTE)

CODES = frozenset(
    {
        "artifact_extra",
        "artifact_missing",
        "artifact_size",
        "attempt",
        "checksum",
        "clock",
        "deleted",
        "foreign_file",
        "incomplete",
        "manifest",
        "manifest_newer",
        "manifest_place",
        "manifest_repository",
        "manifest_unlisted",
        "not_regular",
        "overwritten",
        "pin",
        "read",
        "repository_file",
        "running",
        "servers",
        "set",
        "set_member",
        "temporary",
        "undecodable",
        "upload",
        "uploads_unlisted",
        "verification",
        "verification_name",
        "verification_other",
        "verification_time",
        "versions_unlisted",
        "versions_unread",
    }
)
"""Every code; docs/reference/fsck.md says what each stands for. Codes are stable: scripts may compare them."""

MOST_PER_CODE = 1000
"""Findings of one code that are kept; more are counted. All that can be repaired are kept."""


@dataclass(frozen=True)
class Fault:
    """One fault of a repository.

    :param severity: ``error``: a backup cannot be restored or its files are invalid; ``warning``: a person should act;
        ``note``: nothing to do.
    :param code: one of :data:`CODES`.
    :param key: the file or folder, relative to the repository; empty for the repository itself.
    :param message: what was found, lower case, no final period.
    :param hint: what to do.
    :param repair: what a repair does about it; None: nothing, a person must act.
    :param repaired: a repair has done that.
    """

    severity: str
    code: str
    key: str
    message: str
    hint: str
    repair: str | None = None
    repaired: bool = False

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        after = f"; {self.repair}" if self.repaired else f". HINT: {self.hint}"
        return f"{'repaired' if self.repaired else self.severity}[{self.code}] {where}{self.message}{after}"

    def as_json(self) -> dict[str, object]:
        """Return the finding as plain JSON."""
        return asdict(self)


@dataclass
class Faults:
    """Collects the findings; for those that can be repaired, also what a repair removes."""

    all: list[Fault] = field(default_factory=list)
    more: Counter[str] = field(default_factory=Counter)
    """By code, how many were counted only."""
    repairable: list[tuple[Fault, Leftover | UnfinishedWrite]] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)

    def error(self, code: str, key: str, message: str, hint: str) -> None:
        self._add(Fault(ERROR, code, key, message, hint))

    def warning(self, code: str, key: str, message: str, hint: str) -> None:
        self._add(Fault(WARNING, code, key, message, hint))

    def note(self, code: str, key: str, message: str, hint: str) -> None:
        self._add(Fault(NOTE, code, key, message, hint))

    def overwritten(self, file: LostFile, *, reverted: bool, keep: bool = False) -> None:
        """Add an error about a file that somebody overwrote; repaired, if its first version is back.

        :param keep: it is a manifest, and its first version is that of an incomplete backup.
        """
        first, last = file.first, file.above[0]
        message = f"was overwritten at {last.modified.isoformat()}; its first version is {first.id} of "
        hint = "Run fsck with --revert to bring it back, and find out who can write to the repository."
        if keep:
            hint = (
                "--revert leaves it: the backup is complete, and files that the first version names are missing. "
                "Two attempts may have committed at once, if the store has no conditional writes."
            )
        finding = Fault(ERROR, "overwritten", first.key, message + first.modified.isoformat(), hint)
        repair = "the first version is current again"
        self._add(replace(finding, repair=repair, repaired=True) if reverted else finding)

    def leftover(self, code: str, message: str, what: Leftover | UnfinishedWrite, repair: str) -> None:
        """Add a warning about something that a repair removes."""
        key = what.folder if isinstance(what, Leftover) else what.key
        finding = Fault(WARNING, code, key, message, "Run fsck with --repair, or prune, to remove it.", repair)
        self.repairable.append((finding, what))

    def extend(self, other: Faults) -> None:
        """Add all of another collection."""
        for finding in other.all:
            self._add(finding)
        self.more += other.more
        self.repairable += other.repairable

    def repair(self, act: Callable[[Leftover | UnfinishedWrite], str | None]) -> None:
        """Remove what can be repaired, and note what was removed.

        :param act: removes it; returns why it did not.
        """
        repaired: list[tuple[Fault, Leftover | UnfinishedWrite]] = []
        for finding, what in self.repairable:
            why = act(what)
            done = (
                replace(finding, repaired=True)
                if why is None
                else replace(finding, message=f"{finding.message}; {why}", hint=_NOT_REPAIRED)
            )
            repaired.append((done, what))
        self.repairable = repaired

    def sorted(self) -> tuple[Fault, ...]:
        """Return all findings: errors first, then by key."""
        every = [*self.all, *(finding for finding, _ in self.repairable)]
        return tuple(sorted(every, key=lambda one: (_ORDER.index(one.severity), one.key, one.code)))

    def _add(self, finding: Fault) -> None:
        self._counts[finding.code] += 1
        if self._counts[finding.code] > MOST_PER_CODE:
            self.more[finding.code] += 1
        else:
            self.all.append(finding)


@dataclass(frozen=True, kw_only=True)
class ReadShare:
    """The share of the artifacts that was re-hashed.

    :param share: as it was given, ``5%`` or ``3/20``.
    :param files, size: what was read; size in bytes.
    :param of_files, of_size: what all sound artifacts have.
    """

    share: str
    files: int
    size: int
    of_files: int
    of_size: int

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class FsckReport:
    """The report of a run of fsck.

    :param uuid: the repository's; None where repository.json does not give it.
    :param backups: folders with a manifest.
    :param series: that have one.
    :param files, size: of all folders of backups; size in bytes.
    :param read: None where nothing was asked to be read.
    :param more: by code, findings beyond :data:`MOST_PER_CODE`, which are counted only.
    :param swept: directories on this machine that killed processes left and a repair removed.
    """

    repository: str
    uuid: str | None
    checked_at: datetime
    repair: bool
    backups: int
    series: int
    files: int
    size: int
    findings: tuple[Fault, ...]
    more: tuple[tuple[str, int], ...] = ()
    read: ReadShare | None = None
    swept: tuple[str, ...] = ()

    def count(self, severity: str) -> int:
        """Return the number of findings of a severity that were not repaired. Findings beyond :data:`MOST_PER_CODE` of
        a code, which are only counted, are not included."""
        return sum(one.severity == severity and not one.repaired for one in self.findings)

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return not self.count(ERROR)

    def as_json(self) -> dict[str, object]:
        """Return the report as plain JSON."""
        return {
            "repository": self.repository,
            "repository_uuid": self.uuid,
            "checked_at": self.checked_at.isoformat(),
            "repair": self.repair,
            "backups": self.backups,
            "series": self.series,
            "files": self.files,
            "size": self.size,
            "read": self.read.as_json() if self.read else None,
            "sound": self.sound,
            "errors": self.count(ERROR),
            "warnings": self.count(WARNING),
            "findings": [one.as_json() for one in self.findings],
            "more": dict(self.more),
            "swept": list(self.swept),
        }
