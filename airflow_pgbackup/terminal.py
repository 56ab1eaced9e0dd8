"""The only way to a terminal: it shows text from outside, and never interprets it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

from rich.console import Console
from rich.text import Text

from airflow_pgbackup.errors import DiskError
from airflow_pgbackup.text import printable


class Terminal(Console):
    """A console that shows every str literally, escaped by :func:`printable`: no markup, no emoji codes.

    That includes a str in the cell of a table. Styles come from arguments and from :func:`styled`.
    After its reader has closed the pipe (``| head``), output is dropped and the program continues: neither the work nor
    its exit status depends on the reader. The same holds for all that cannot be written to stderr, such as a log on a
    full disk.

    :param stderr: write to stderr, not to stdout.
    :param file: write to this file instead of stdout.
    """

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None) -> None:
        # rich drops only colors for NO_COLOR, and keeps bold; a reader who sets it wants neither.
        color_system: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
        super().__init__(stderr=stderr, file=file, highlight=False, color_system=color_system)

    @property
    def can_redraw(self) -> bool:
        """Whether lines may be redrawn: not in a pipe, nor where control characters are unwanted."""
        return self.is_terminal and not self.is_dumb_terminal and not os.environ.get("NO_COLOR")

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        """Escape a str. rich calls this for every str, also inside a table."""
        return Text(printable(text), style=style, justify=justify, overflow=overflow)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does.

        :raises DiskError: stdout cannot be written, for another reason than that its reader has left.
        """
        with self._dropping():
            super().print(*objects, **options)

    def write(self, line: str) -> None:
        """Write a line without wrapping it, as rich would.

        :raises DiskError: as :meth:`print`.
        """
        if self.quiet:
            return
        with self._dropping():
            self.file.write(f"{line}\n")
            self.file.flush()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.on_broken_pipe()
            if not (self.stderr or isinstance(error, BrokenPipeError)):
                why = (error.strerror or type(error).__name__).lower()
                raise DiskError(
                    f"cannot write to stdout: {why}", hint="Free some space, or send the output elsewhere."
                ) from error

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
