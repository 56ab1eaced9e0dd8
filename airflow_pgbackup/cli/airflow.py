"""The commands as ``airflow pgbackup …``. ``provider_info`` names this module; it needs Airflow 3.2."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from typing import IO, Any, NoReturn

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand

from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.vocabulary import (
    AWS_CONN_ID,
    CONNECTION,
    DESCRIPTION,
    DESTINATION_AWS_CONN_ID,
    POSTGRES_CONN_ID,
    Argument,
    Command,
)


def get_cli_commands() -> list[CLICommand]:
    """Return the command group. Airflow calls this whenever it runs one of its commands."""
    return [GroupCommand(name="pgbackup", help=DESCRIPTION, subcommands=[_action(c) for c in COMMANDS])]


def with_connections(command: Command) -> Command:
    """Return the command with the options that name Airflow's connections."""
    flags = {flag for argument in command.arguments for flag in argument.flags}
    more = (
        *((AWS_CONN_ID,) if "repository" in flags else ()),
        *((DESTINATION_AWS_CONN_ID,) if "--to" in flags else ()),
        *((POSTGRES_CONN_ID,) if CONNECTION[0] in command.arguments else ()),
    )
    return replace(command, arguments=(*command.arguments, *more))


def _action(command: Command) -> ActionCommand:
    command = with_connections(command)
    return ActionCommand(
        name=command.name,
        help=command.help,
        description=command.description,
        func=partial(_run, command),
        args=(*(_arg(argument) for argument in command.arguments), _Parsing(command)),
    )


def _arg(argument: Argument) -> Arg:
    return Arg(flags=argument.flags, **argument.options)  # type: ignore[no-untyped-call]


class _Parsing(Arg):
    """Make the parser of a command behave like that of ``pgbackup``; this is an argument only in form. If the arguments
    are wrong, Airflow's own parser prints its help to stdout, where ``--json`` promises JSON.
    """

    def __init__(self, command: Command) -> None:
        super().__init__(flags=("--",))  # type: ignore[no-untyped-call]
        self._command = command

    def add_to_parser(self, parser: ArgumentParser) -> None:
        parse_known_args = parser.parse_known_args

        def parse(args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Namespace, list[str]]:
            from airflow_pgbackup.cli.parser import arrange

            given = arrange(self._command, sys.argv[1:] if args is None else args, os.environ)
            found, unknown = parse_known_args(given, namespace)
            if unknown:
                parser.error(f"unrecognized arguments: {' '.join(unknown)}")
            return found, unknown

        parser.allow_abbrev = False
        parser.error = partial(_refuse, parser)  # type: ignore[method-assign]
        parser.parse_known_args = parse  # type: ignore[assignment]


def _refuse(parser: ArgumentParser, message: str) -> NoReturn:
    from airflow_pgbackup.cli.usage import UsageError, show_usage_error

    sys.exit(show_usage_error(UsageError(parser, message), sys.argv))


def _run(command: Command, arguments: Namespace) -> None:
    from airflow_pgbackup.cli.airflow_program import AirflowProgram
    from airflow_pgbackup.cli.run import run

    with _results_alone_on_stdout() as stdout:
        status = run(command, arguments, AirflowProgram(), stdout)
    sys.exit(status)


@contextmanager
def _results_alone_on_stdout() -> Iterator[IO[str] | None]:
    """Yield a stream to the real stdout, and redirect all other writes to stdout, such as Airflow's log, to stderr."""
    sys.stdout.flush()
    try:
        stdout = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        yield None
        return
    try:
        with (
            open(stdout, "w", encoding=sys.stdout.encoding, errors="backslashreplace", closefd=False) as stream,
            redirect_stdout(sys.stderr),
        ):
            yield stream
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
