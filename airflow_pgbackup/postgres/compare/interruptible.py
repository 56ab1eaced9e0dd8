"""Statements of a session of ours that end when the task is asked to stop, and at a deadline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from airflow_pgbackup.errors import ToolError
from airflow_pgbackup.postgres.tools.deadline import Deadline

_LONGEST = 2**31 - 1  # milliseconds that a setting holds


@contextmanager
def interruptible(session: psycopg.Connection[Any], what: str, deadline: Deadline) -> Iterator[None]:
    """Run statements of a session inside.

    :param what: names them in errors, ``COPY``.
    :raises ToolError: the server refused, or ended the session.
    :raises Canceled, DeadlineExceeded: it was stopped. The session is of no use then.
    """

    def interrupt() -> None:
        with contextlib.suppress(psycopg.Error, OSError):
            session.cancel()

    deadline.check()
    left = deadline.remaining()
    unregister = deadline.cancel.on_set(interrupt)
    try:
        _set_timeout(session, 0 if left == float("inf") else max(1, min(int(left * 1000), _LONGEST)))
        yield
        _set_timeout(session, 0)
    except psycopg.errors.QueryCanceled:
        deadline.cancel.check()
        raise deadline.exceeded() from None
    except psycopg.Error as error:
        deadline.cancel.check()
        raise failed(what, str(error)) from None
    finally:
        unregister()


def failed(what: str, said: str) -> ToolError:
    """The error for what a server said."""
    line = " ".join(said.split())
    return ToolError(f"{what} failed: {line}", tool=what, exit_code=None, stderr=[line])


def _set_timeout(session: psycopg.Connection[Any], milliseconds: int) -> None:
    session.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", [str(milliseconds)])
