"""Findings: what :func:`~airflow_pgbackup.backup.check.check` reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.text import first_of

ERROR, WARNING = "error", "warning"

SHOWN = 3
"""Objects that a message names; :class:`Finding` has all of them."""


@dataclass(frozen=True)
class Finding:
    """One problem that would prevent or compromise a backup.

    :param severity: ``error``: the dump would fail or be incomplete; ``warning``: the dump succeeds, but check this.
    :param code: identifies the kind of problem; ``docs/reference/findings.md`` lists all codes.
    :param message: what was found: lower case, no final period.
    :param hint: what to do about it.
    :param objects: the tables, schemas, databases and so on concerned, quoted as in SQL.
    :param database: the database concerned; None for the server or the repository.
    """

    severity: str
    code: str
    message: str
    hint: str
    objects: tuple[str, ...] = ()
    database: str | None = None

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}. HINT: {self.hint}"

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "objects": list(self.objects)}


@dataclass
class Findings:
    """Collects findings."""

    all: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Add a finding, once: a problem of the server shows up again in every database."""
        if finding not in self.all:
            self.all.append(finding)

    def error(
        self, code: str, message: str, hint: str, objects: Sequence[str] = (), database: str | None = None
    ) -> None:
        self.add(Finding(ERROR, code, message, hint, tuple(objects), database))

    def warning(
        self, code: str, message: str, hint: str, objects: Sequence[str] = (), database: str | None = None
    ) -> None:
        self.add(Finding(WARNING, code, message, hint, tuple(objects), database))

    def add_error(self, code: str, error: PgBackupError, default_hint: str, database: str | None = None) -> None:
        """Add an exception as a finding.

        :param default_hint: used where the exception has no hint.
        """
        self.error(code, " ".join(error.message.split()), error.hint or default_hint, database=database)

    def sorted(self) -> list[Finding]:
        """Return errors before warnings, each in the order in which they were found."""
        return sorted(self.all, key=lambda finding: finding.severity != ERROR)


def first_named(objects: Sequence[str]) -> str:
    """Return the first objects of a list for a message: ``a, b, c and 4 more``."""
    return first_of(objects, SHOWN)
