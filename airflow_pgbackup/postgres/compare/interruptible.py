"""Statements of a session of ours that end when the task is asked to stop, and at a deadline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from airflow_pgbackup.errors import DeadlineExceeded, ToolError
from airflow_pgbackup.postgres.tools.cancel import Cancel

_LONGEST = 2**31 - 1  # milliseconds that a setting holds


@contextmanager
def interruptible(session: psycopg.Connection[Any], what: str, *, cancel: Cancel, until: float) -> Iterator[None]:
    """Run statements of a session inside.

    :param what: names them in errors, ``COPY``.
    :param until: by :func:`time.monotonic`.
    :raises ToolError: the server refused, or ended the session.
    :raises Cancelled, DeadlineExceeded: it was stopped. The session is of no use then.
    """

    def interrupt() -> None:
        with contextlib.suppress(psycopg.Error, OSError):
            session.cancel()

    cancel.check()
    left = max(1, min(int((until - time.monotonic()) * 1000), _LONGEST)) if until != float("inf") else 0
    unregister = cancel.on_set(interrupt)
    try:
        _set_timeout(session, left)
        yield
        _set_timeout(session, 0)
    except psycopg.errors.QueryCanceled:
        cancel.check()
        raise DeadlineExceeded(f"{what} did not end within its deadline", tool=what, exit_code=None) from None
    except psycopg.Error as error:
        cancel.check()
        raise failed(what, str(error)) from None
    finally:
        unregister()


def failed(what: str, said: str) -> ToolError:
    """The error for what a server said."""
    line = " ".join(said.split())
    return ToolError(f"{what} failed: {line}", tool=what, exit_code=None, stderr=[line])


def _set_timeout(session: psycopg.Connection[Any], milliseconds: int) -> None:
    session.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", [str(milliseconds)])
