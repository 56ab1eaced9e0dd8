"""Statements that end at a deadline, or when the task is canceled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from airflow_pgbackup.errors import ToolError
from airflow_pgbackup.postgres.connection.interrupt import interrupt
from airflow_pgbackup.postgres.tools.deadline import Deadline

_LONGEST = 2**31 - 1  # milliseconds, the largest statement_timeout
_GRACE = 2.0  # seconds for the server to report that a statement has reached its timeout


@contextmanager
def interruptible(session: psycopg.Connection[Any], what: str, deadline: Deadline) -> Iterator[None]:
    """Cancel the statements that run in a ``with`` of this at the deadline, or when its flag is set.

    :param what: names the statements in errors, ``COPY``.
    :raises ToolError: the server reported an error, or ended the session.
    :raises Canceled, DeadlineExceeded: the statements were canceled. Do not use the session again.
    """
    deadline.check()
    left = deadline.remaining()
    unregister = deadline.cancel.on_set(lambda: interrupt(session, last=True))
    timer = _timer(session, left)
    try:
        _set_timeout(session, 0 if left == float("inf") else max(1, min(int(left * 1000), _LONGEST)))
        yield
        _set_timeout(session, 0)
    except psycopg.errors.QueryCanceled:
        deadline.cancel.check()
        raise deadline.exceeded() from None
    except psycopg.Error as error:
        deadline.check()
        raise failed(what, str(error)) from None
    finally:
        unregister()
        if timer:
            timer.cancel()


def _timer(session: psycopg.Connection[Any], left: float) -> threading.Timer | None:
    """Start the timer for a server that does not end the statement at its timeout."""
    if left > threading.TIMEOUT_MAX - _GRACE:
        return None
    timer = threading.Timer(left + _GRACE, lambda: interrupt(session, last=True))
    timer.daemon = True
    timer.start()
    return timer


def failed(what: str, message: str) -> ToolError:
    """Return the error for a message of the server."""
    line = " ".join(message.split())
    return ToolError(f"{what} failed: {line}", tool=what, exit_code=None, stderr=[line])


def _set_timeout(session: psycopg.Connection[Any], milliseconds: int) -> None:
    session.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", [str(milliseconds)])
