"""Messages of a server without the values that they quote, as ``invalid input syntax for type integer: "…"``."""

from __future__ import annotations

import re

# The server translates its messages, also the severity, to which libpq adds a colon and two blanks.
_SERVER = re.compile(r"\b(ERROR|FATAL|PANIC|WARNING|NOTICE|INFO|LOG|DEBUG\d?|HINT): +|:  +")
_QUOTE = '["«»“”„「」]'
_NAME = r'"[^"]*"'
# They quote names only: ExecConstraints() in execMain.c, ExecFindPartition(), domain_check_input(), _bt_check_unique().
_OF_NAMES = re.compile(
    rf"new row for relation {_NAME} violates (?:check|partition) constraint(?: {_NAME})?"
    rf"|null value in column {_NAME} of relation {_NAME} violates not-null constraint"
    rf"|value for domain \S+ violates check constraint {_NAME}"
    rf"|duplicate key value violates unique constraint {_NAME}"
    rf"|insert or update on table {_NAME} violates foreign key constraint {_NAME}"
    rf"|no partition of relation {_NAME} found for row"
    rf"|permission denied for \w+ \S+"
)
# A value may have quotes and line breaks, so what follows the first quote is hidden, except for these endings.
_QUOTED = re.compile(
    _QUOTE + r'.*?((?<=")(?: does not exist| not recognized| is out of range for type [a-z ]+)\.?)?\Z', re.DOTALL
)


def is_of_server(line: str, *, translated: bool = False) -> bool:
    """Return whether a line begins a message of the server, alone or after that of a tool.

    :param translated: the message may have a severity in another language than English.
    """
    match = _SERVER.search(line)
    return match is not None and (translated or match[1] is not None)


def is_odd(line: str, *, translated: bool = False) -> bool:
    """Return whether a line opens a quote that it does not close, or closes one that it does not open."""
    return (len(re.findall(_QUOTE, line)) if translated else line.count('"')) % 2 == 1


def is_translated(line: str) -> bool:
    """Return whether the message of the server in a line is in another language than English."""
    match = _SERVER.search(line)
    if match is None:
        return False
    quote = re.search(_QUOTE, line[match.end() :])
    return match[1] is None or (quote is not None and quote[0] != '"')


def opens_value(line: str) -> bool:
    """Return whether the next lines continue a value that a message of the server quotes."""
    match = _SERVER.search(line)
    return match is not None and is_odd(line[match.end() :], translated=is_translated(line))


def without_values(line: str) -> str | None:
    """Return a line of a tool's stderr without quoted text in the server's error, unless that can be names only.

    Of a message with a severity in another language, only the severity is left.

    :return: None for a warning, a notice or a hint of the server: a function writes what it wants there.
    """
    match = _SERVER.search(line)
    if match is None:
        return line
    if match[1] is None:
        return line[: match.end()] + "…"
    if match[1] not in ("ERROR", "FATAL", "PANIC"):
        return None
    text = line[match.end() :]
    if _OF_NAMES.fullmatch(text.rstrip().rstrip(".")):
        return line
    return line[: match.end()] + _QUOTED.sub(r'"…"\1', text, count=1)
