"""The parser of ``pgbackup``, made from :mod:`.definition`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from airflow_pgbackup import __version__
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.usage import UsageError, show_usage_error, write
from airflow_pgbackup.cli.vocabulary import (
    DEBUG,
    DESCRIPTION,
    EXIT_STATUS,
    REPOSITORY,
    REPOSITORY_VARIABLE,
    Command,
)
from airflow_pgbackup.text import did_you_mean


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:  # here, where the command is known, and not in the parser above it
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise UsageError(self, message)


class _Help(argparse.HelpFormatter):
    """Fills each line of a description, and breaks none inside a word; argparse's own classes do one or the other."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        wrapper = textwrap.TextWrapper(
            width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        return "\n".join(wrapper.fill(line) for line in text.split("\n"))


class _CommandList(_Help):
    """Has room for the longest command; argparse forgets that commands are indented."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = max(len(command.name) for command in COMMANDS) + 2 * self._indent_increment


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; a parsed namespace has ``command`` if one was given."""
    parser = _Parser(prog="pgbackup", description=DESCRIPTION, allow_abbrev=False, formatter_class=_CommandList)
    parser.add_argument("--version", action="version", version=f"pgbackup {__version__}")
    parser.add_argument(*DEBUG.flags, **DEBUG.options)
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        below = subparsers.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            allow_abbrev=False,
            formatter_class=_Help,
        )
        for argument in command.arguments:
            below.add_argument(*argument.flags, **argument.options)
        below.set_defaults(command=command)
    return parser


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace | int:
    """Return the parsed arguments; the exit status if they are wrong, or no command is among them."""
    given = debug_behind_command(arguments)
    parser = make_parser()
    try:
        if given and not given[0].startswith("-"):
            _require_command(parser, given[0])
        parsed = parser.parse_args(with_default_repository(given, environ))
    except UsageError as error:
        if "arguments are required" in error.message and _lacks_default_repository(given, environ):
            error.hint = f"Set {REPOSITORY_VARIABLE} to leave out REPOSITORY. {error.hint}"
        return show_usage_error(error, given)
    except (SystemExit, OSError) as end:  # --help and --version; an OSError only from argparse before Python 3.11.4
        if write(sys.stdout) and isinstance(end, SystemExit):
            raise
        write(sys.stderr, "pgbackup: cannot write to stdout\n")
        return EXIT_STATUS["failed"]
    if not hasattr(parsed, "command"):
        write(sys.stderr, parser.format_help())
        return EXIT_STATUS["usage"]
    return parsed


def _lacks_default_repository(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    command = next((one for one in COMMANDS if [one.name] == list(arguments[:1])), None)
    return command is not None and command.arguments[0] is REPOSITORY and not environ.get(REPOSITORY_VARIABLE)


def _require_command(parser: argparse.ArgumentParser, name: str) -> None:
    names = [command.name for command in COMMANDS]
    if name not in names:
        raise UsageError(parser, f"unknown command {name!r}", hint=did_you_mean(name, names))


def debug_behind_command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``--debug`` behind the command, where argparse keeps it."""
    first, rest = list(arguments[:1]), list(arguments[1:])
    return [*rest[:1], *first, *rest[1:]] if first == [*DEBUG.flags] else [*first, *rest]


def with_default_repository(arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the arguments as :func:`arrange` does.

    :param arguments: the command, and its arguments.
    """
    command = next((one for one in COMMANDS if [one.name] == list(arguments[:1])), None)
    if command is None:
        return list(arguments)
    return [command.name, *arrange(command, arguments[1:], environ)]


def arrange(command: Command, arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the arguments of a command with the repository of the environment where REPOSITORY is left out, and its
    positional arguments together: argparse refuses an optional one behind an option, ``show prod/crm --json 20261122``.
    """
    filled = fill_in_repository(command, arguments, environ)
    positions = list(_positionals(command, filled))
    end = [filled.index("--")] if "--" in filled else []
    if not positions or {*range(positions[0], positions[-1])} <= {*positions, *end}:
        return filled
    flags = {flag for argument in command.arguments for flag in argument.flags} | {*DEBUG.flags, "--help"}
    options = filled[: end[0]] if end else filled
    if any(text.startswith("--") and text.partition("=")[0] not in flags for text in options):
        return filled  # whose error names the unknown option before what follows it
    together = [filled[at] for at in positions]
    if end:
        return [*(text for at, text in enumerate(filled) if at not in (*positions, *end)), "--", *together]
    # Before the options that follow: the last of them may lack its value, and must not take the repository for it.
    first = positions[0]
    return [*filled[:first], *together, *(text for at, text in enumerate(filled) if at > first and at not in positions)]


def fill_in_repository(command: Command, arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the arguments of a command with the repository of the environment where REPOSITORY is left out.

    argparse cannot decide that: ``show prod/crm 20261122`` would take ``prod/crm`` for the repository.
    """
    default = environ.get(REPOSITORY_VARIABLE)
    if not default or command.arguments[0].flags != ("repository",):
        return list(arguments)
    positions = list(_positionals(command, arguments))
    takes_paths = command.arguments[1].flags == ("sources",)
    if positions and _is_repository(arguments[positions[0]], takes_paths) and not (takes_paths and len(positions) == 1):
        return list(arguments)
    at = positions[0] if positions else 0
    if "--" in arguments[:at]:
        at = list(arguments).index("--") + 1
    return [*arguments[:at], default, *arguments[at:]]


def _positionals(command: Command, arguments: Sequence[str]) -> Iterator[int]:
    """Yield the numbers of the arguments that are neither options nor their values."""
    with_value = {
        flag
        for argument in command.arguments
        if not str(argument.options.get("action", "")).startswith("store_")
        for flag in argument.flags
    }
    value_follows = only_positionals = False
    for number, text in enumerate(arguments):
        if value_follows:
            value_follows = False
        elif only_positionals or not text.startswith("-") or text == "-":
            yield number
        elif text == "--":
            only_positionals = True
        else:
            value_follows = _awaits_value(text, with_value)


def _awaits_value(option: str, with_value: Collection[str]) -> bool:
    """Return whether the value is the next argument, as behind ``--to`` and ``-yd``, not in ``--to=…``, ``-Uname``."""
    if option.startswith("--"):
        return option in with_value
    letters = option[1:]
    first = next((at for at, letter in enumerate(letters) if f"-{letter}" in with_value), None)
    return first == len(letters) - 1


def _is_repository(text: str, takes_paths: bool) -> bool:
    """Return whether the text is meant as REPOSITORY. A path is not a valid one, but counts unless the command takes
    paths, because its error says what to write instead."""
    return "://" in text or (not takes_paths and text.startswith(("/", ".", "~")))
