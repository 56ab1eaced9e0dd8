"""What :func:`~airflow_pgbackup.backup.check.check` finds, and the session through which it looks at a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from airflow_pgbackup.errors import PgBackupError

if TYPE_CHECKING:
    pass

ERROR, WARNING = "error", "warning"

_SHOWN = 3  # objects named in a message; a finding has them all
_QUERY_TIMEOUT = "30s"  # all of it are catalogs; who waits longer waits for a lock on one
_LOST = "the session was lost on the way: the server's log says why"


@dataclass(frozen=True)
class Finding:
    """One thing that would stop or spoil a backup.

    :param severity: ``error``: the dump would fail, or miss what it is asked for; ``warning``: somebody should know.
    :param code: what kind of thing, one word; ``docs/reference/findings.md`` lists them.
    :param message: what was found, lower case, no final stop.
    :param hint: what to do.
    :param objects: the tables, schemas, databases … that it is about, quoted as SQL wants them.
    :param database: the database it is about, None for the server or the repository.
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
    """Takes them down."""

    all: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """What is said of every database is taken down once."""
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

    def failed(self, code: str, error: PgBackupError, default_hint: str, database: str | None = None) -> None:
        """What one of our own errors says, as a finding."""
        self.error(code, " ".join(error.message.split()), error.hint or default_hint, database=database)

    def sorted(self) -> list[Finding]:
        """Errors first, else in the order in which they were found."""
        return sorted(self.all, key=lambda finding: finding.severity != ERROR)


def named(objects: Sequence[str]) -> str:
    """A list for a message, its first members."""
    more = len(objects) - _SHOWN
    return ", ".join(objects[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
