"""The commands as ``airflow pgbackup …``. ``provider_info`` names this module; it needs Airflow 3.2."""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand

from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.vocabulary import DESCRIPTION, Argument, Command


def get_cli_commands() -> list[CLICommand]:
    """Return the command group. Airflow calls this whenever it runs one of its commands."""
    return [GroupCommand(name="pgbackup", help=DESCRIPTION, subcommands=[_action(c) for c in COMMANDS])]


def _action(command: Command) -> ActionCommand:
    return ActionCommand(
        name=command.name,
        help=command.help,
        description=command.description,
        func=partial(_run, command),
        args=tuple(_arg(argument) for argument in command.arguments),
    )


def _arg(argument: Argument) -> Arg:
    return Arg(flags=argument.flags, **argument.options)  # type: ignore[no-untyped-call]


def _run(command: Command, arguments: Namespace) -> None:
    from airflow_pgbackup.cli.run import run

    sys.exit(run(command, arguments))
