"""A tool's stderr: without the statements and rows that it quotes, and the line that names the cause."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.tools.quoted_values import (
    is_odd,
    is_of_server,
    is_translated,
    opens_value,
    without_values,
)

LONGEST_LINE = 2000  # characters: long enough for any message, short enough for a log

INTERLEAVED = r"(?:(?:pg_\w+): ?)*"
"""The names of programs before a message, as a pattern.

With several jobs, processes write to one pipe, each the name of the program and the message in writes of their own
(``pg_log_generic_v`` of logging.c), so a line may begin with the name twice and the next one without it.
"""

# A message of a tool begins with its name (src/common/logging.c), one of psql about a script with file and line, and a
# message of the server through libpq with a severity.
_MESSAGE = re.compile(
    r"(?:pg_\w+|psql|createdb|dropdb|vacuumdb|initdb|postgres): "
    r"|psql:.*:\d+: "
    r"|(?:ERROR|FATAL|PANIC|WARNING|NOTICE|INFO|LOG|DEBUG\d?|HINT): "
)
# What begins a message after one of the server: the tool's name is before each, unless the line is a value's.
_OF_TOOL = re.compile(r"(?:pg_\w+|psql): |psql:.*:\d+: ")
# "Command was:" and "Query was:" of pg_dump and pg_restore; and the server's fields that quote rows and statements, as
# libpq writes them (PQresultErrorMessage, also after "Error message from server:").
_QUOTING = re.compile(
    rf"{INTERLEAVED}(?:[\w.-]+: )?(?:detail: )?(?:Command|Query) was: "
    r"|(?:psql:.*:\d+: )?(?:DETAIL|CONTEXT|QUERY|STATEMENT|LINE \d+): "
)
# The columns of a key, without their values: ri_ReportViolation() and _bt_check_unique() in src/backend.
_KEY = re.compile(
    r"(?:psql:.*:\d+: )?DETAIL: +(Key \(.*?\)=)\(.*?"
    r"(\) (?:already exists|is duplicated|is not present in table \".*\"|is still referenced from table \".*\")\.?)?\Z"
)
_ADDED = re.compile(r"(DETAIL|HINT): +(.*)")

_ERROR = re.compile(r"\b(?:error|fatal|ERROR|FATAL|PANIC): ")
# Errors that are only a consequence of another one.
_CONSEQUENCE = re.compile(
    r"pg_dump failed on database|worker process died unexpectedly|errors ignored on restore"
    r"|PQgetResult\(\) failed|PQgetCopyData\(\) failed|query failed: *$|could not execute query: *$"
)
_HARMLESS = re.compile(r"\b(?:WARNING|NOTICE|INFO|LOG|DEBUG\d?): |: warning: ")
_PREFIX = re.compile(
    r"^(?:pg_\w+: ?(?=pg_))*[\w.-]+: (?:(?:error|fatal|detail|warning): )?(?:Error message from server: )?"
)


class StderrFilter:
    """Removes the lines of one tool's stderr that quote statements or rows, which can span many lines.

    :param hide_values: remove from the server's messages also what they quote themselves; see :mod:`.quoted_values`.
    """

    def __init__(self, *, hide_values: bool = False) -> None:
        self._hide_values = hide_values
        self._quoting = False
        self._of_server = False
        self._translated = False
        self._open_quotes: set[bool] = set()  # whether a value continues: both, where nobody can tell

    def keep(self, line: str) -> str | None:
        """Return the line, stripped and cut to :data:`LONGEST_LINE`; None if it quotes data or is empty.

        A DETAIL about a key keeps its columns, not their values.

        The line is not escaped, so that names in it can be matched; code that shows it must use
        :func:`airflow_pgbackup.text.printable`.
        """
        if self._hide_values and self._continues(line):
            return None
        if _QUOTING.match(line):
            self._quoting = True
            if match := _KEY.match(line.rstrip()):
                return f"DETAIL:  {match[1]}(…{match[2] or ')'}"
        elif self._quoting and _MESSAGE.match(line):
            self._quoting = False
        if self._quoting:
            return None
        if self._hide_values:
            self._of_server = is_of_server(line, translated=True)
            self._translated = is_translated(line)
            self._open_quotes = {opens_value(line)}
            line = without_values(line) or ""
        line = line.strip()
        if len(line) > LONGEST_LINE:
            line = line[:LONGEST_LINE] + " …"
        return line or None

    def _continues(self, line: str) -> bool:
        """Return whether a line continues a message of the server, and perhaps a value that looks like a message."""
        if not self._of_server:
            return False
        open_quote, odd = True in self._open_quotes, is_odd(line, translated=self._translated)
        if _QUOTING.match(line):
            # A field of the message, where COPY quotes the value once more, or a line of the value that looks like one.
            as_field = line.startswith("CONTEXT: ") and odd
            self._open_quotes = {as_field, not odd} if open_quote else {as_field}
            self._quoting = self._quoting or open_quote
            return open_quote
        if open_quote or not _OF_TOOL.match(line):
            self._open_quotes = {each ^ odd for each in self._open_quotes}
            return True
        return False


def errors_of(lines: Sequence[str]) -> list[str]:
    """Return the errors among the lines, without those that are only a consequence of another one."""
    return [line for line in lines if _ERROR.search(line) and not _CONSEQUENCE.search(line)]


def detail_and_hint(lines: Sequence[str], cause: str) -> tuple[str | None, str | None]:
    """Return the DETAIL and the HINT that the server sent after the line with the cause."""
    found: dict[str, str] = {}
    last = max((number for number, line in enumerate(lines) if cause and cause in line), default=len(lines))
    for line in lines[last + 1 :]:
        match = _ADDED.match(line)
        if match is None:
            break
        found[match[1]] = match[2].rstrip(".")
    return found.get("DETAIL"), found.get("HINT")


def most_useful(lines: Sequence[str]) -> tuple[str, str | None]:
    """Return the line that names the cause, without the tool's prefix and the final period, and a hint or None.

    That is an error for which there is a hint, or else such a line that is neither a warning nor a notice, or else the
    last error that is not only a consequence of another one.
    """
    if errors := errors_of(lines):
        lines = [line for line in lines if not _CONSEQUENCE.search(line)]
    for line in (*reversed(errors), *(line for line in reversed(lines) if not _HARMLESS.search(line))):
        if hint := hint_for(line):
            return _PREFIX.sub("", line).strip().rstrip("."), hint
    for line in (*reversed(errors), *reversed(lines)):
        return _PREFIX.sub("", line).strip().rstrip("."), None
    return "", None
