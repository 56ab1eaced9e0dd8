"""Cancel what a session runs, even if the server does not answer."""

from __future__ import annotations

import _thread
import contextlib
import os
import socket
import threading
import time
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

_PATIENCE = 2.0
"""Seconds for the cancel request, and for the end of the last statement: Airflow's KILL can come 5 s after its TERM."""

_OBEYS_WITHIN = 30.0
"""Seconds for the end of another statement: what it has begun, such as deleting files, may have to be completed."""

_PAUSE = 0.5
"""Seconds that a caller who goes on using the session waits for the request, which must not hit a later statement."""

_INTERVAL = 0.1  # seconds


def interrupt(session: psycopg.Connection[Any], *, last: bool = False) -> None:
    """Cancel the running statement of a session. Call it from any thread, or from a signal handler; raises no error.

    ``PQcancel()`` waits without limit for a server or a proxy that does not answer. So threads of their own send the
    request, and shut the connection down if the request fails or takes too long, or if the statement goes on. The
    statement then ends with an OperationalError.

    :param last: the session is not used after this statement: return at once, and shut the connection down soon.
    """
    try:
        wire = socket.socket(fileno=os.dup(session.fileno()))  # the session's own can be closed, and its number reused
    except (psycopg.Error, OSError):  # closed already
        return
    sent = threading.Event()
    try:
        # Not threading.Thread: its start() takes a lock that the interrupted code may hold.
        _thread.start_new_thread(_send_in_time, (session, wire, sent, last))
    except RuntimeError:  # too many threads
        _shut_down(wire)
        return
    if not last:
        sent.wait(_PAUSE)


def _send_in_time(session: psycopg.Connection[Any], wire: socket.socket, sent: threading.Event, last: bool) -> None:
    end, failed = time.monotonic() + _PATIENCE, threading.Event()
    try:
        _thread.start_new_thread(_send, (session, sent, failed))
    except RuntimeError:
        failed.set()
        sent.set()
    arrived = sent.wait(_PATIENCE) and not failed.is_set()
    if last:
        time.sleep(max(end - time.monotonic(), 0))
    if last or not arrived or not _ends(session):
        _shut_down(wire)
    wire.close()


def _send(session: psycopg.Connection[Any], sent: threading.Event, failed: threading.Event) -> None:
    try:
        session.cancel_safe(timeout=_PATIENCE)  # with libpq before 17, it waits longer
    except (psycopg.Error, OSError):
        failed.set()
    finally:
        sent.set()


def _ends(session: psycopg.Connection[Any]) -> bool:
    """Return whether a session stops running a statement; False also if each of these moments was in another one."""
    end = time.monotonic() + _OBEYS_WITHIN
    while session.pgconn.transaction_status == TransactionStatus.ACTIVE:
        if time.monotonic() > end:
            return False
        time.sleep(_INTERVAL)
    return True


def _shut_down(wire: socket.socket) -> None:
    with contextlib.suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)
