"""The command line: ``pgbackup …``, which works without Airflow, and the same commands as ``airflow pgbackup …``.

Each command calls one verb of :mod:`airflow_pgbackup.backup`; ``cmd_<verb>.py`` holds it.
Exit status: :data:`EXIT_STATUS`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from airflow_pgbackup.cli.definition import COMMANDS, DESCRIPTION, EXIT_STATUS
from airflow_pgbackup.text import printable

__all__ = ["EXIT_STATUS", "main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the program's name; by default those of this process.
    :return: the exit status, see :data:`EXIT_STATUS`.
    """
    parser = _Parser(prog="pgbackup", description=DESCRIPTION, allow_abbrev=False)
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        below = subparsers.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in command.arguments:
            below.add_argument(*argument.flags, **argument.options)
        below.set_defaults(command=command)
    parsed = parser.parse_args(arguments)
    if not hasattr(parsed, "command"):
        parser.print_help(sys.stderr)
        return EXIT_STATUS["usage"]
    from airflow_pgbackup.cli.run import run

    return run(parsed.command, parsed)
