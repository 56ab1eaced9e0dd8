"""The details of a verification as they are stored beside an encrypted backup: without text from its contents."""

from __future__ import annotations

import re
from dataclasses import replace

from airflow_pgbackup.backup.sql_checks import SQL_CHECK
from airflow_pgbackup.postgres.tools.quoted_values import is_of_server, without_values
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Check, Verification

_DIFFERS = "its definition differs"
_HINT = ". HINT: "
_ERROR = "ERROR:  "
_FIRST = re.compile(r"(?:true|false|NULL)(?=, \{|;|\Z)")
_NOTE = re.compile(rf"({SQL_CHECK} (?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"): )(.*)", re.DOTALL)


def stored_details(report: Verification, manifest: Manifest) -> Verification:
    """Return the verification of an encrypted backup without columns of SQL checks, values that the server's errors
    quote, and text of definitions. Others stay as they are."""
    if manifest.artifact.encryption is None:
        return report
    return replace(
        report,
        checks=tuple(map(_check, report.checks)),
        differences=tuple(replace(each, detail=_definition(each.detail)) for each in report.differences),
    )


def _check(check: Check) -> Check:
    if check.detail is None or check.name == "integrity":
        return check
    detail = _definition(check.detail)
    if check.name.startswith(SQL_CHECK):
        detail = _outcome(detail)
    elif check.name == "note":
        if match := _NOTE.fullmatch(detail):
            detail = match[1] + _outcome(match[2])
        elif is_of_server(detail, translated=True):
            detail = _without_quoted(detail)
    elif check.result != "pass":
        detail = _without_quoted(detail)
    return replace(check, detail=detail)


def _definition(detail: str) -> str:
    before, found, _ = detail.partition(f"{_DIFFERS}: ")
    return f"{before}{_DIFFERS}" if found else detail


def _outcome(detail: str) -> str:
    """Return the first column of an SQL check alone, or its error."""
    match = _FIRST.match(detail)
    return match[0] if match else _without_quoted(detail, _ERROR)


def _without_quoted(detail: str, prefix: str = "") -> str:
    message, hint, rest = detail.partition(_HINT)
    if not is_of_server(message):
        prefix = _ERROR  # which decides what counts as quoted
    return (without_values(prefix + message) or f"{prefix}…").removeprefix(prefix) + hint + rest
