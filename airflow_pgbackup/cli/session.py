"""A run of one command: its arguments, its terminals, and the context that it gives to a verb."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rich.text import Text

from airflow_pgbackup.backup.context import RunContext, discard
from airflow_pgbackup.backup.progress import LogProgress
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.program import Program
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.terminal import Terminal
from airflow_pgbackup.text import printable_json

if TYPE_CHECKING:
    from airflow_pgbackup.cli.progress_bars import Bars

_INTERVAL = 10.0  # seconds between the progress lines of a step


@dataclass
class Session:
    """What a command works with. Results go to stdout, progress and warnings to stderr.

    :param arguments: as parsed.
    :param program: the one whose command line was typed.
    :ivar status: the exit status of a command that raises no error.
    :ivar makes: whether the work that was begun makes something, which is removed when it is interrupted.
    """

    arguments: argparse.Namespace
    out: Terminal
    err: Terminal
    program: Program = field(default_factory=Program)
    settings: Settings = field(default_factory=Settings)
    cancel: Cancel = field(default_factory=Cancel)
    status: int = EXIT_STATUS["done"]
    makes: bool = False

    def __post_init__(self) -> None:
        self._bars: Bars | None = None
        if self.err.can_redraw:
            from airflow_pgbackup.cli.progress_bars import Bars  # rich's live display is of no use in a pipe

            self._bars = Bars(self.err)

    @property
    def context(self) -> RunContext:
        """The context for a verb."""
        origin = {"command": self.program.name, "hostname": socket.gethostname(), "uid": os.geteuid()}
        progress = self._bars or LogProgress(self.log, interval=_INTERVAL)
        return RunContext(settings=self.settings, cancel=self.cancel, log=self.log, progress=progress, origin=origin)

    def context_for(self, *, dry_run: bool) -> RunContext:
        """Return the context for a verb whose dry run returns its plan: the log would print it twice."""
        return replace(self.context, log=discard) if dry_run else self.context

    def log(self, line: str) -> None:
        """Print a log line to stderr."""
        self.err.say(line, style="dim")

    def result(self, value: object, *shown: str | Text | Listing) -> None:
        """Print the result: ``value`` as JSON with ``--json``, else the lines and records for people."""
        if self.arguments.json:
            # Not by rich, which would wrap it.
            ascii_only = (self.out.encoding or "").lower() != "utf-8"
            self.out.write(printable_json(json.dumps(value, indent=2, ensure_ascii=ascii_only, default=str)))
            return
        self.show(*shown)

    def show(self, *shown: str | Text | Listing) -> None:
        """Print lines and records for people to stdout. None is broken, except records on a narrow terminal."""
        for each in shown:
            if isinstance(each, str | Text):
                self.out.say(each)
            elif self.out.is_terminal:
                for line in each.lines(self.out.width):
                    self.out.say(line)
            else:
                self.out.write("\n".join(each.plain()))

    @contextmanager
    def working(self, what: str, *, makes: bool = False) -> Iterator[None]:
        """Show ``what`` and bars of the verb's steps while the ``with`` lasts, where stderr is a terminal; log lines
        pass above them.

        :param makes: whether this makes something that is removed when it is interrupted.
        """
        self.makes = makes
        if self._bars:
            with self._bars.shown(what):
                yield
        else:
            yield
