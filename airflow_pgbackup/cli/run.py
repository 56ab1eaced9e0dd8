"""Around every command: what goes where on the terminal, errors as two lines, the exit status."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape

from airflow_pgbackup.cli import commands
from airflow_pgbackup.cli.definition import EXIT_STATUS, Command
from airflow_pgbackup.errors import Cancelled, ConfigurationError, NotProven, PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.cancel import Cancel
from airflow_pgbackup.settings import Settings, load


@dataclass
class Session:
    """What a command has at hand. Results go to stdout, everything said on the way to stderr.

    :param arguments: as given.
    :ivar status: the exit status, where a command that ends well has something to say by it.
    """

    arguments: argparse.Namespace
    settings: Settings
    out: Console
    err: Console
    cancel: Cancel = field(default_factory=Cancel)
    status: int = EXIT_STATUS["done"]

    def log(self, line: str) -> None:
        self.err.print(f"[dim]{escape(line)}[/]", soft_wrap=True, highlight=False)

    def result(self, value: object, *shown: RenderableType) -> None:
        """JSON where that is asked for, else what people read."""
        if self.arguments.json:
            # Not by rich, which would wrap it.
            print(json.dumps(value, indent=2, ensure_ascii=False, default=str))
            return
        for each in shown:
            self.out.print(each, soft_wrap=isinstance(each, str), highlight=False)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A spinner with what is being done, where stderr is a terminal; lines of the log pass above it."""
        if self.err.is_terminal:
            with self.err.status(escape(what)):
                yield
        else:
            yield


def run(command: Command, arguments: argparse.Namespace) -> int:
    """:return: the exit status; errors have been printed."""
    err = Console(stderr=True)
    previous: Any = signal.getsignal(signal.SIGTERM)
    try:
        session = Session(arguments, load(), Console(), err)

        def stop(_number: int, _frame: FrameType | None) -> None:
            session.cancel.set()

        previous = signal.signal(signal.SIGTERM, stop)
        function: Callable[[Session], None] = getattr(commands, command.function)
        function(session)
        return session.status
    except PgBackupError as error:
        err.print(f"[bold red]pgbackup {command.name}:[/] {escape(error.message)}", soft_wrap=True, highlight=False)
        if error.hint:
            err.print(f"[bold]hint:[/] {escape(error.hint)}", soft_wrap=True, highlight=False)
        return _status(error)
    except KeyboardInterrupt:
        err.print(f"pgbackup {command.name}: interrupted; nothing half-done is left", highlight=False)
        return EXIT_STATUS["interrupted"]
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return EXIT_STATUS["done"]
    finally:
        signal.signal(signal.SIGTERM, previous)


def _status(error: PgBackupError) -> int:
    for kind, name in (
        (Cancelled, "interrupted"),
        (NotProven, "not proven"),
        (VerificationFailed, "not good"),
        (ConfigurationError, "usage"),
    ):
        if isinstance(error, kind):
            return EXIT_STATUS[name]
    return EXIT_STATUS["failed"]
