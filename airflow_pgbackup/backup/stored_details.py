"""The details of a verification as they are stored beside an encrypted backup: without text from its contents."""

from __future__ import annotations

from dataclasses import replace

from airflow_pgbackup.backup.sql_checks import SQL_CHECK
from airflow_pgbackup.postgres.tools.quoted_values import is_of_server, without_values
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Check, Verification

_DIFFERS = "its definition differs"
_HINT = ". HINT: "
_ERROR = "ERROR:  "


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
        detail = _outcome(detail, check.result)
    elif check.name == "note" and detail.startswith(SQL_CHECK):
        before, _, after = detail.partition("': ")
        detail = f"{before}': {_outcome(after, 'notproven')}"
    elif check.result != "pass":
        detail = _without_quoted(detail)
    return replace(check, detail=detail)


def _definition(detail: str) -> str:
    before, found, _ = detail.partition(f"{_DIFFERS}: ")
    return f"{before}{_DIFFERS}" if found else detail


def _outcome(detail: str, result: str) -> str:
    """Return the first column of an SQL check alone, or its error."""
    word, others, _ = detail.partition(", {")
    return word if others or result != "notproven" else _without_quoted(detail)


def _without_quoted(detail: str) -> str:
    message, hint, rest = detail.partition(_HINT)
    prefix = "" if is_of_server(message) else _ERROR  # which decides what counts as quoted
    return (without_values(prefix + message) or f"{prefix}…").removeprefix(prefix) + hint + rest
