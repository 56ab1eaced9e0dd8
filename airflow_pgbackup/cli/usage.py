"""Arguments that no command takes: an error of argparse as an error of ours, and how it is shown."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.text import printable, printable_json


class UsageError(ConfigurationError):
    """The arguments are invalid; argparse's own message.

    :param parser: the one that refused the arguments.
    """

    def __init__(self, parser: argparse.ArgumentParser, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or f"Run {parser.prog} --help to see the arguments.")
        self.prog, self.usage = parser.prog, parser.format_usage()


def show_usage_error(error: UsageError, arguments: Sequence[str]) -> int:
    """Show the usage and the error on stderr, and with ``--json`` among the arguments as JSON on stdout.

    :return: the exit status.
    """
    from airflow_pgbackup.cli.failure import failure_of

    write(sys.stderr, f"{error.usage}{error.prog}: {printable(error.message)}\nhint: {error.hint}\n")
    if "--json" in arguments:
        write(sys.stdout, printable_json(json.dumps(failure_of(error).as_json(), indent=2)) + "\n")
    return EXIT_STATUS["usage"]


def write(stream: TextIO | None, text: str = "") -> bool:
    """Write and flush. What cannot be written is dropped, also at the end of the process.

    :param stream: None if it is closed.
    :return: False if it could not be written, for another reason than that the reader has left.
    """
    if stream is None:
        return True
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:  # the reader has left, or the disk is full
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return isinstance(error, BrokenPipeError)
    return True
