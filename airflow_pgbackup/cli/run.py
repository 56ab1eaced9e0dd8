"""Around every command: what goes where on the terminal, errors as two lines, the exit status."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from rich.table import Table

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.cli import commands
from airflow_pgbackup.cli.definition import EXIT_STATUS, Command
from airflow_pgbackup.errors import Canceled, ConfigurationError, NotProven, PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.settings import Settings, load
from airflow_pgbackup.terminal import LogLines, Terminal, styled
from airflow_pgbackup.text import printable_json


@dataclass
class Session:
    """What a command has at hand. Results go to stdout, everything said on the way to stderr.

    :param arguments: as given.
    :ivar status: the exit status, where a command that ends well has something to say by it.
    """

    arguments: argparse.Namespace
    settings: Settings
    out: Terminal
    err: Terminal
    cancel: Cancel = field(default_factory=Cancel)
    status: int = EXIT_STATUS["done"]

    @property
    def context(self) -> RunContext:
        """What the verbs are given."""
        origin = {"command": "pgbackup", "hostname": socket.gethostname(), "uid": os.geteuid()}
        return RunContext(settings=self.settings, cancel=self.cancel, log=self.log, origin=origin)

    def log(self, line: str) -> None:
        self.err.say(line, style="dim")

    def result(self, value: object, *shown: str | Table) -> None:
        """JSON where that is asked for, else what people read: tables, and lines."""
        if self.arguments.json:
            # Not by rich, which would wrap it.
            ascii_only = (sys.stdout.encoding or "").lower() != "utf-8"
            self.out.write(printable_json(json.dumps(value, indent=2, ensure_ascii=ascii_only, default=str)))
            return
        for each in shown:
            if isinstance(each, str):
                self.out.say(each)
            else:
                self.out.print(each)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A spinner with what is being done, where stderr is a terminal; lines of the log pass above it."""
        if self.err.is_terminal:
            with self.err.status(styled(what, "")):
                yield
        else:
            yield


def run(command: Command, arguments: argparse.Namespace) -> int:
    """:return: the exit status; errors have been printed."""
    err = Terminal(stderr=True)
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr is: the locale may lack the letters of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    previous: Any = signal.getsignal(signal.SIGTERM)
    last_resort = logging.lastResort
    try:
        logging.lastResort = LogLines(err)
        session = Session(arguments, load(), Terminal(), err)

        def stop(number: int, frame: FrameType | None) -> None:
            # As Ctrl-C does, which also ends what looks at no flag: a store that does not answer.
            if not session.cancel.is_set():  # a second one does not interrupt the cleaning up
                session.cancel.set()
                signal.default_int_handler(number, frame)

        previous = signal.signal(signal.SIGTERM, stop)
        function: Callable[[Session], None] = getattr(commands, command.function)
        function(session)
        return session.status
    except PgBackupError as error:
        err.say(styled(f"pgbackup {command.name}:", "bold red"), " ", error.message)
        if error.hint:
            err.say(styled("hint:", "bold"), " ", error.hint)
        return _status(error)
    except KeyboardInterrupt:
        err.say(f"pgbackup {command.name}: interrupted; nothing half-done is left")
        return EXIT_STATUS["interrupted"]
    except Exception:  # noqa: BLE001  a fault of ours, whose traceback quotes what it was about
        for line in traceback.format_exc().rstrip().split("\n"):
            err.say(line)
        return EXIT_STATUS["failed"]
    finally:
        logging.lastResort = last_resort
        signal.signal(signal.SIGTERM, previous)


def _status(error: PgBackupError) -> int:
    for kind, name in (
        (Canceled, "interrupted"),
        (NotProven, "not proven"),
        (VerificationFailed, "not good"),
        (ConfigurationError, "usage"),
    ):
        if isinstance(error, kind):
            return EXIT_STATUS[name]
    return EXIT_STATUS["failed"]
