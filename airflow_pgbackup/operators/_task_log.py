"""The task log: each line at its level, and failures in lines that fit into Airflow's log view."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.text import printable

WIDTH = 100
"""Characters of a line that Airflow's log view shows; it does not wrap lines."""

# A tool's messages begin with its name (src/common/logging.c), the server's with a severity, psql's about a script with
# file and line; ours begin with "warning: ".
_SEVERITY = re.compile(
    r"(?:pg_\w+: |psql:.*?:\d+: |(?:psql|createdb|dropdb|vacuumdb|initdb|postgres): )?"
    r"(?:(?P<error>error|fatal|ERROR|FATAL|PANIC)|(?P<warning>warning|WARNING)|(?P<more>detail|hint|DETAIL|HINT)): "
)


class TaskLog:
    """Writes to a task's log; every line is escaped by :func:`airflow_pgbackup.text.printable`.

    :param logger: of the operator.
    """

    def __init__(self, logger: Any) -> None:
        self._log = logger
        self._levels = {"error": logger.error, "warning": logger.warning}
        self._latest = logger.info

    def line(self, line: str) -> None:
        """Write a line of a verb or of a tool: errors and warnings at their levels, all others at INFO.

        A DETAIL or HINT has the level of the message before it.
        """
        match = _SEVERITY.match(line)
        if match is None or match.lastgroup != "more":
            self._latest = self._levels.get(match.lastgroup or "", self._log.info) if match else self._log.info
        self._latest(printable(line))

    def failure(self, error: PgBackupError) -> None:
        """Write the message and the hint at ERROR: they stand before the exception, which the log view cuts."""
        wrapped(self._log.error, error.message)
        if error.hint:
            wrapped(self._log.error, f"hint: {error.hint}")


def wrapped(write: Any, text: str) -> None:
    """Write a text in lines of at most :data:`WIDTH` characters; a longer word, such as a path, stays in one piece."""
    lines = textwrap.wrap(
        printable(text), WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    for line in lines:
        write(line)
