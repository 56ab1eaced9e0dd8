"""Run one command: signals, errors as two lines, the exit status."""

from __future__ import annotations

import argparse
import io
import logging
import sys
import traceback
from importlib import import_module

from airflow_pgbackup.cli.interruption import Interruption
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS, Command
from airflow_pgbackup.errors import Canceled, ConfigurationError, NotProven, PgBackupError, VerificationFailed
from airflow_pgbackup.settings import load
from airflow_pgbackup.terminal import LogLines, Terminal, styled


def run(command: Command, arguments: argparse.Namespace) -> int:
    """Run a command and print its errors.

    :return: the exit status.
    """
    err = Terminal(stderr=True)
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr does: the locale may lack the letters of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    last_resort = logging.lastResort
    try:
        logging.lastResort = LogLines(err)
        session = Session(arguments, load(), Terminal(), err)
        interruption = Interruption(session.cancel, session.log)
        try:
            with interruption:
                # Imported by name, so that a command loads only what its own verb needs.
                import_module(f"airflow_pgbackup.cli.{command.module}").run(session)
        except (KeyboardInterrupt, Canceled):
            err.say(f"pgbackup {command.name}: {_interrupted(session, interruption)}")
            return EXIT_STATUS["interrupted"]
        return session.status
    except PgBackupError as error:
        err.say(styled(f"pgbackup {command.name}:", "bold red"), " ", error.message)
        if error.hint:
            err.say(styled("hint:", "bold"), " ", error.hint)
        return _status(error)
    except Exception:  # noqa: BLE001  a bug; its traceback may quote text from outside
        for line in traceback.format_exc().rstrip().split("\n"):
            err.say(line)
        return EXIT_STATUS["failed"]
    finally:
        logging.lastResort = last_resort


def _interrupted(session: Session, interruption: Interruption) -> str:
    if interruption.forced:
        return "interrupted; incomplete work may be left"
    return "interrupted; incomplete work was removed" if session.makes else "interrupted"


def _status(error: PgBackupError) -> int:
    for kind, name in (
        (NotProven, "not proven"),
        (VerificationFailed, "not good"),
        (ConfigurationError, "usage"),
    ):
        if isinstance(error, kind):
            return EXIT_STATUS[name]
    return EXIT_STATUS["failed"]
