"""Describe an error for the user: what failed, what to do about it, and the exit status, without a Python exception."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Container, Sequence, Set
from dataclasses import dataclass, replace

from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.errors import (
    Canceled,
    ConfigurationError,
    MappingError,
    NotProven,
    PgBackupError,
    VerificationFailed,
)
from airflow_pgbackup.postgres.connection.server_errors import server_hint
from airflow_pgbackup.repository.local.errors import hint, reason

_STATUS: tuple[tuple[type[PgBackupError], str], ...] = (
    (NotProven, "not proven"),
    (VerificationFailed, "check failed"),
    (ConfigurationError, "usage"),
)
_REPORT = "This is a defect. Run the command again with --debug and report what it prints, with the command."
_UTF8 = "Use a UTF-8 locale, such as LC_ALL=C.UTF-8, and names in UTF-8."
_LONGEST = 300
_PARAMETER = re.compile(r"(?<!-o )(?<!\[pgbackup\] )\b[a-z]+(?:_[a-z]+)+\b")
_MODE = re.compile(r"(?<!--)\bmode (into_empty|into_existing|create|replace)\b")
# Parameters of operators that the command line has under another name, or as the opposite.
_PHRASES = (
    ("init_repository=True or ", ""),
    ("pass minimum_level=None", "give --minimum-level none"),
    ("set terminate_sessions", "omit --keep-sessions"),
    ("Set terminate_sessions", "Omit --keep-sessions"),
    (
        "Pass server= as in the dumps; by default it is the connection id.",
        "Give --server, the first part of the series.",
    ),
)
_AWS_CONNECTION = "key and secret of the AWS connection, or the environment of this worker"
_AWS_VARIABLES = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws"

INTERRUPTED = "Interrupted"


@dataclass(frozen=True)
class Failure:
    """What ended a command.

    :param kind: the class of the error in :mod:`airflow_pgbackup.errors`; Interrupted; InternalError; else that of
        Python or of a library, such as OSError.
    :param problems: all that a verification found, or that is wrong with a file of the user.
    :param lines: the message in several lines, if the error has several problems.
    """

    kind: str
    message: str
    hint: str | None
    status: int
    problems: Sequence[str] = ()
    lines: Sequence[str] = ()

    def with_flags(self, names: Container[str]) -> Failure:
        """Return this failure with a hint for the command line: ``no_owner``, an operator's parameter, is
        ``--no-owner`` there.

        :param names: the command's own arguments.
        """
        if self.hint is None:
            return self
        hint = self.hint
        for phrase, ours in _PHRASES:
            hint = hint.replace(phrase, ours)
        if "aws_conn_id" not in names:
            hint = hint.replace(_AWS_CONNECTION, _AWS_VARIABLES)
        options = _tool_options(names) if _PARAMETER.search(hint) else frozenset[str]()

        def flag(found: re.Match[str]) -> str:
            if found[0] in names:
                return f"--{found[0].replace('_', '-')}"
            return f"-o {found[0]}" if found[0] in options else found[0]

        hint = _PARAMETER.sub(flag, hint)
        return replace(self, hint=_MODE.sub(r"--mode \1", hint) if "mode" in names else hint)

    def as_json(self) -> dict[str, object]:
        """Return the document that ``--json`` prints."""
        error: dict[str, object] = {"kind": self.kind, "message": self.message, "hint": self.hint}
        if self.problems:
            error["problems"] = list(self.problems)
        return {"error": {**error, "exit_status": self.status}}


def _tool_options(names: Container[str]) -> Set[str]:
    """Return the options that ``-o`` of the command takes."""
    if "option" not in names:
        return frozenset()
    from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions, RestoreOptions

    if "globals" in names:  # of restore
        return RestoreOptions.table().keys()
    return DumpOptions.table().keys() | (DumpAllOptions.table().keys() if "cluster" in names else set())


def failure_of(error: BaseException) -> Failure:
    """Return what to say about an error of any class."""
    if isinstance(error, KeyboardInterrupt | Canceled):
        return Failure(INTERRUPTED, "interrupted", None, EXIT_STATUS["interrupted"])
    if isinstance(error, PgBackupError):
        name = next((name for kind, name in _STATUS if isinstance(error, kind)), "failed")
        problems = error.problems if isinstance(error, VerificationFailed | MappingError) else ()
        lines = problems if isinstance(error, MappingError) else ()
        return Failure(type(error).__name__, error.message, error.hint, EXIT_STATUS[name], problems, lines)
    found = _of_the_system(error)
    if found is None:
        message = f"internal error: {type(error).__name__}: {_line(error)}"
        return Failure("InternalError", message, _REPORT, EXIT_STATUS["internal error"])
    kind, message, advice = found
    return Failure(kind, message, advice, EXIT_STATUS["failed"])


def _of_the_system(error: BaseException) -> tuple[str, str, str | None] | None:
    """Return kind, message and hint of an error that the system or a server caused; None if it is a defect of ours."""
    library = type(error).__module__.partition(".")[0]
    # Those of libraries first: some of them are also OSErrors.
    if library in ("botocore", "boto3", "s3transfer", "urllib3"):
        return library, f"the S3 client failed: {_line(error)}", "Check the endpoint, the credentials and the network."
    if library == "psycopg":
        return library, f"PostgreSQL reports: {_line(error)}", server_hint(error)
    if isinstance(error, ImportError):
        return "ImportError", f"cannot import {error.name}: {_line(error)}", "Reinstall airflow-pgbackup."
    if isinstance(error, OSError):
        return "OSError", *_of_the_file_system(error)
    if isinstance(error, UnicodeEncodeError):
        text = error.object[error.start : error.end]
        return "UnicodeError", f"text that cannot be encoded as {error.encoding}: {text!r}", _UTF8
    if isinstance(error, UnicodeDecodeError):
        text = repr(error.object[error.start : error.end])[1:]
        return "UnicodeError", f"bytes that are not {error.encoding}: {text}", _UTF8
    if isinstance(error, MemoryError):
        advice = "Give the process more memory (ulimit -v, the container's limit), or fewer parallel jobs."
        return "MemoryError", "out of memory", advice
    if isinstance(error, RecursionError):
        return "RecursionError", "the input is nested too deeply", "Run again with --debug to see where."
    return None


def _of_the_file_system(error: OSError) -> tuple[str, str | None]:
    if error.errno == errno.ENOENT and error.filename in (None, "", "."):
        try:
            os.getcwd()  # noqa: PTH109  without the import of pathlib
        except OSError:
            return "the current directory does not exist", "Change to a directory that exists."
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return ": ".join((" -> ".join(names), reason(error)) if names else (reason(error),)), hint(error.errno)


def _line(error: BaseException) -> str:
    """Return the error's first line, of a length for reading: further ones may quote statements and rows."""
    first = (str(error).strip().split("\n") or [""])[0].strip() or "no message"
    return first if len(first) <= _LONGEST else f"{first[:_LONGEST]}…"
