"""Run one command: signals, an error as two lines or as JSON, the exit status."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from typing import IO, Any

from airflow_pgbackup.cli.failure import INTERRUPTED, failure_of
from airflow_pgbackup.cli.interruption import Interruption, leave
from airflow_pgbackup.cli.program import Program
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.vocabulary import DEBUG_VARIABLE, Command
from airflow_pgbackup.errors import DiskError
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.terminal import LogLines, Terminal, styled
from airflow_pgbackup.text import printable_json
from airflow_pgbackup.wording import spoken


def run(
    command: Command, arguments: argparse.Namespace, program: Program | None = None, stdout: IO[str] | None = None
) -> int:
    """Run a command and print its errors.

    :param program: the one whose command line was typed; None: ``pgbackup``.
    :param stdout: where results go; None: stdout.
    :return: the exit status.
    """
    program = program or Program()
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr does: the locale may lack the letters of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    out, err = Terminal(file=stdout), Terminal(stderr=True)
    debug = getattr(arguments, "debug", False) or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    session = Session(arguments, out, err, program)
    interruption = Interruption(session.cancel, session.log)
    try:
        with _stray_errors(err, debug), spoken(program.wording(command, arguments)):
            _require_values(command, arguments)
            session.settings = _with_keys(program.settings(), arguments)
            with interruption:
                # Imported by name, so that a command loads only what its own verb needs.
                import_module(f"airflow_pgbackup.cli.{command.module}").run(session)
            return session.status
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  none reaches the user
        if debug:
            _trace(err, error)
        failure = failure_of(error).with_flags(vars(arguments))
        if failure.kind == INTERRUPTED:
            failure = replace(failure, message=_interrupted(session, interruption))
        for line in failure.lines or [failure.message]:
            err.say(styled(f"{program.name} {command.name}:", "bold red"), " ", line)
        if failure.hint:
            err.say(styled("hint:", "bold"), " ", failure.hint)
        if arguments.json:
            with suppress(DiskError):  # it is the error, or a second one
                out.write(printable_json(json.dumps(failure.as_json(), indent=2)))
        return leave(failure.status) if failure.kind == INTERRUPTED else failure.status


def _require_values(command: Command, arguments: argparse.Namespace) -> None:
    """Require that no argument is given but empty, unless that is its default.

    :raises ConfigurationError: one is.
    """
    for argument in command.arguments:
        flag, default = argument.flags[0], argument.options.get("default")
        name = argument.options.get("dest", flag.lstrip("-").replace("-", "_"))
        value = vars(arguments).get(name)
        for one in value if isinstance(value, list) else [value]:
            if one != default:
                not_empty(name, one, written=flag if flag.startswith("-") else argument.options["metavar"])


def _with_keys(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """Return the settings with the keys of age that the command line gives."""
    if recipients := getattr(arguments, "recipient", None):
        settings = replace(settings, recipients=tuple(recipients))
    if identity := getattr(arguments, "identity", None):
        settings = replace(settings, identity_file=identity)
    return settings


def _interrupted(session: Session, interruption: Interruption) -> str:
    if interruption.forced:
        return "interrupted; incomplete work may be left"
    return "interrupted; incomplete work was removed" if session.makes else "interrupted"


@contextmanager
def _stray_errors(err: Terminal, debug: bool) -> Iterator[None]:
    """Show errors that no caller gets, those in threads and destructors, and warnings of libraries, as single lines."""
    hooks, last_resort = (threading.excepthook, sys.unraisablehook), logging.lastResort

    def stray(found: Any) -> None:
        if found.exc_value is None:
            return
        if debug:
            _trace(err, found.exc_value)
        err.say(f"warning: {failure_of(found.exc_value).message}", style="dim")

    logging.lastResort = LogLines(err)
    threading.excepthook = sys.unraisablehook = stray
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        logging.lastResort = last_resort


def _trace(err: Terminal, error: BaseException) -> None:
    for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
        err.say(line)  # a line may quote text from outside
