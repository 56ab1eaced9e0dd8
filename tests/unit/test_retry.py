"""Whether a retry can help after an error."""

from __future__ import annotations

import pickle

import pytest

from airflow_pgbackup import errors
from airflow_pgbackup.errors import ConnectError, PgBackupError, RestoreError, ToolError
from airflow_pgbackup.retry import Retry


@pytest.mark.parametrize(
    ("message", "retry"),
    [
        ('FATAL:  database "app" does not exist', "never"),
        ("pg_dump: error: no matching tables were found", "never"),
        ("ERROR:  permission denied for table payment", "never"),
        ("aborting because of server version mismatch", "never"),
        ('FATAL:  password authentication failed for user "backup"', "once"),
        ("fe_sendauth: no password supplied", "once"),
        ("ERROR:  canceling statement due to lock timeout", "soon"),
        ("ERROR:  canceling statement due to conflict with recovery", "soon"),
        ("FATAL:  sorry, too many clients already", "soon"),
        ("Connection refused", "later"),
        ("could not translate host name", "later"),
        ("server closed the connection unexpectedly", "later"),
        ('relation "public.film" does not exist', "later"),  # dropped while pg_dump ran
        ("could not open output file: Permission denied", "later"),
    ],
)
def test_by_the_message_of_postgresql(message: str, retry: Retry) -> None:
    assert ConnectError(message).retry == RestoreError(message).retry == retry
    assert ToolError(message, tool="pg_dump", exit_code=1).retry == retry
    assert PgBackupError(message).retry == "later"


def test_by_the_class() -> None:
    found = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, PgBackupError) and not issubclass(kind, ToolError)
        if kind("it failed").permanent
    }
    invalid_requests = {name for name in found if issubclass(getattr(errors, name), errors.ConfigurationError)}
    assert {"ConfigurationError", "OptionError", "ClientError"} <= invalid_requests
    assert found - invalid_requests >= {"RepositoryMismatch", "ManifestError", "VerificationFailed"}
    assert not found & {"ConnectError", "DiskError", "NotProven", "RepositoryError", "BackupNotFound", "Canceled"}


def test_the_code_that_raises_knows_better_and_pickling_keeps_it() -> None:
    error = PgBackupError("access denied", retry="once")
    assert error.retry == "once"
    error.retry = "never"
    assert pickle.loads(pickle.dumps(error)).permanent
