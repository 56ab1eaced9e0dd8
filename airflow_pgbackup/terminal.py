"""The only way to a terminal: it shows text from outside, and never interprets it."""

from __future__ import annotations

import logging
import os
from typing import Any

from rich.console import Console
from rich.text import Text

from airflow_pgbackup.text import printable


class Terminal(Console):
    """A console that shows every str literally, escaped by :func:`printable`: no markup, no emoji codes.

    That includes a str in the cell of a table. Styles come from arguments and from :func:`styled`.
    After its reader has closed the pipe (``| head``), output is dropped and the program continues: neither the work nor
    its exit status depends on the reader.

    :param stderr: write to stderr, not to stdout.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        # rich drops only colors for NO_COLOR, and keeps bold; a reader who sets it wants neither.
        super().__init__(stderr=stderr, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")

    @property
    def can_redraw(self) -> bool:
        """Whether lines may be redrawn: not in a pipe, nor where control characters are unwanted."""
        return self.is_terminal and not self.is_dumb_terminal and not os.environ.get("NO_COLOR")

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        """Escape a str. rich calls this for every str, also inside a table."""
        return Text(printable(text), style=style, justify=justify, overflow=overflow)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except BrokenPipeError:  # of a version of rich without on_broken_pipe
            self.on_broken_pipe()

    def write(self, line: str) -> None:
        """Write a line without wrapping it, as rich would."""
        if self.quiet:
            return
        try:
            self.file.write(f"{line}\n")
            self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Drop all further output. rich calls this; its own version ends the process."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())  # what is still buffered is flushed at the end of the process
        os.close(nowhere)

    def say(self, *parts: str | Text, style: str | None = None) -> None:
        """Print the parts as one line, of any length."""
        self.print(*parts, sep="", style=style, soft_wrap=True)


class LogLines(logging.Handler):
    """Write warnings of :mod:`logging` to a terminal, above its spinner."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).split("\n"):
            self._terminal.say(line, style="dim")


def styled(text: str, style: str) -> Text:
    """Return `text`, escaped, in a style of rich's."""
    return Text(printable(text), style=style)
