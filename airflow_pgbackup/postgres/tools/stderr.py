"""What a tool says on stderr: without the statements and rows that it quotes, and the line that matters most."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_pgbackup.postgres.connection.hints import hint_for

LONGEST_LINE = 2000  # characters; enough for any message, and a log stays readable

# Every message of a tool begins with its name (src/common/logging.c), psql's over a script with file and line; what
# the server says through libpq begins with a severity.
_MESSAGE = re.compile(
    r"(?:pg_\w+|psql|createdb|dropdb|vacuumdb|initdb|postgres): "
    r"|psql:.*:\d+: "
    r"|(?:ERROR|FATAL|PANIC|WARNING|NOTICE|INFO|LOG|DEBUG\d?|HINT): "
)
# "Command was:", "Query was:" of pg_dump and pg_restore; the server's fields that quote rows and statements, as libpq
# writes them (PQresultErrorMessage, also behind "Error message from server:").
_QUOTING = re.compile(
    r"(?:[\w.-]+: )?(?:detail: )?(?:Command|Query) was: "
    r"|(?:psql:.*:\d+: )?(?:DETAIL|CONTEXT|QUERY|STATEMENT|LINE \d+): "
)
# Which key it was, without its value: ri_ReportViolation() and _bt_check_unique() in src/backend.
_KEY = re.compile(
    r"(?:psql:.*:\d+: )?DETAIL: +(Key \(.*?\)=)\(.*?"
    r"(\) (?:already exists|is duplicated|is not present in table \".*\"|is still referenced from table \".*\")\.?)?\Z"
)
_ADDED = re.compile(r"(DETAIL|HINT): +(.*)")

_ERROR = re.compile(r"\b(?:error|fatal|ERROR|FATAL|PANIC): ")
# Errors that only follow from another one, which says more.
_CONSEQUENCE = re.compile(
    r"pg_dump failed on database|worker process died unexpectedly|errors ignored on restore"
    r"|PQgetResult\(\) failed|PQgetCopyData\(\) failed|query failed: *$|could not execute query: *$"
)
_PREFIX = re.compile(r"^[\w.-]+: (?:(?:error|fatal|detail|warning): )?(?:Error message from server: )?")


class StderrFilter:
    """Line after line of one tool's stderr, without those that quote statements or rows, also over many lines."""

    def __init__(self) -> None:
        self._quoting = False

    def keep(self, line: str) -> str | None:
        """Return the line, stripped and not too long; None where it quotes data or is empty.

        Of a DETAIL about a key the columns are kept, and the value is not.

        It is as the tool wrote it, so that names in it can be matched: :func:`airflow_pgbackup.text.printable` is for
        whoever shows it.
        """
        if _QUOTING.match(line):
            self._quoting = True
            if match := _KEY.match(line.rstrip()):
                return f"DETAIL:  {match[1]}(…{match[2] or ')'}"
        elif self._quoting and _MESSAGE.match(line):
            self._quoting = False
        if self._quoting:
            return None
        line = line.strip()
        if len(line) > LONGEST_LINE:
            line = line[:LONGEST_LINE] + " …"
        return line or None


def errors_of(lines: Sequence[str]) -> list[str]:
    """The errors among them that are no mere consequence of another."""
    return [line for line in lines if _ERROR.search(line) and not _CONSEQUENCE.search(line)]


def detail_and_hint(lines: Sequence[str], cause: str) -> tuple[str | None, str | None]:
    """What the server adds to an error, behind the line that has it."""
    found: dict[str, str] = {}
    last = max((number for number, line in enumerate(lines) if cause and cause in line), default=len(lines))
    for line in lines[last + 1 :]:
        match = _ADDED.match(line)
        if match is None:
            break
        found[match[1]] = match[2].rstrip(".")
    return found.get("DETAIL"), found.get("HINT")


def most_useful(lines: Sequence[str]) -> tuple[str, str | None]:
    """The line that names the cause, without the tool's own prefix and final stop, and a hint or None.

    The last error that is no mere consequence of another; where the hints know a line, that one before all others.
    """
    errors = errors_of(lines)
    for line in (*reversed(errors), *reversed(lines)):
        if hint := hint_for(line):
            return _PREFIX.sub("", line).strip().rstrip("."), hint
    for line in (*reversed(errors), *reversed(lines)):
        return _PREFIX.sub("", line).strip().rstrip("."), None
    return "", None
