"""Read the output of COPY: from a server on this machine through a named pipe, from any other over the connection.

Over a connection, the server and the client library handle every row as a protocol message, which takes longer than the
COPY itself. A pipe avoids that, but ``COPY … TO 'file'`` requires a superuser.
https://www.postgresql.org/docs/current/sql-copy.html
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq, sql

from airflow_pgbackup.postgres.compare.interruptible import failed, interruptible
from airflow_pgbackup.postgres.tools.deadline import Deadline

_CHUNK = 1 << 20
_PIECE = 1 << 18
_POLL_SECONDS = 0.5  # between two checks of the deadline


def copy_out(
    session: psycopg.Connection[Any],
    statement: bytes,
    take: Callable[[bytes], object],
    *,
    pipe: Path,
    deadline: Deadline,
) -> None:
    """Run a COPY to a named pipe, and pass its output on.

    :param statement: ``COPY … TO 'pipe'``, in the encoding of the session.
    :param take: called with the data, in pieces that may end anywhere.
    :param pipe: made by :func:`named_pipe`.
    :raises ToolError: the server reported an error, or ended the session.
    :raises Canceled, DeadlineExceeded: the COPY was stopped.
    """
    # Opened before the server opens it, and without waiting for the server, which may never open it.
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(OSError):  # over /proc/sys/fs/pipe-max-size
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _CHUNK)
        session.pgconn.send_query(statement)
        _pump(session.pgconn, descriptor, take, deadline)
    finally:
        os.close(descriptor)  # a server that still writes gets an error, and stops


def copy_over(
    session: psycopg.Connection[Any],
    statement: sql.Composed,
    take: Callable[[bytes], object],
    *,
    deadline: Deadline,
) -> None:
    """Run a COPY to STDOUT, and pass on its output, which comes over the connection. For a server on another machine.

    :param take, deadline: as for :func:`copy_out`.
    :raises ToolError, Canceled, DeadlineExceeded: as there.
    """
    with (
        interruptible(session, "COPY", deadline),
        session.cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        pieces, size = [], 0
        for piece in copy:  # one row
            pieces.append(piece)
            size += len(piece)
            if size >= _CHUNK:
                take(b"".join(pieces))
                pieces, size = [], 0
        take(b"".join(pieces))


def _pump(connection: pq.abc.PGconn, descriptor: int, take: Callable[[bytes], object], deadline: Deadline) -> None:
    running = reading = True
    buffer = memoryview(bytearray(_PIECE))
    with selectors.PollSelector() as selector:  # select() itself takes no descriptor above 1023
        selector.register(descriptor, selectors.EVENT_READ)
        selector.register(connection.socket, selectors.EVENT_READ)
        while running or reading:
            # Once the server has ended the COPY, all that it wrote is in the pipe.
            ready = {key.fd for key, _ in selector.select(_POLL_SECONDS if running else 0)}
            deadline.check()
            if reading and descriptor in ready:
                data = _read(descriptor, buffer)
                if data:
                    take(data)
                elif data is not None:
                    reading = False  # the server has closed its end
                    selector.unregister(descriptor)
            elif not running:
                reading = False  # the server never opened the pipe
            if running and connection.socket in ready:
                connection.consume_input()
                if not connection.is_busy():
                    _finish(connection)
                    running = False
                    selector.unregister(connection.socket)


def _read(descriptor: int, buffer: memoryview) -> bytes | None:
    try:
        return bytes(buffer[: os.readv(descriptor, [buffer])])
    except BlockingIOError:
        return None


def _finish(connection: pq.abc.PGconn) -> None:
    error = None
    while result := connection.get_result():
        if result.status != pq.ExecStatus.COMMAND_OK:
            error = result.get_error_message("utf-8")
    if error:
        raise failed("COPY", error)


@contextmanager
def named_pipe(directory: Path) -> Iterator[Path]:
    """Make a named pipe for the length of a ``with``.

    Every user who can enter the directory can write to it, since the server may run as another user.
    """
    path = directory / f"copy-{secrets.token_hex(8)}"
    os.mkfifo(path, 0o600)
    try:
        path.chmod(0o622)
        yield path
    finally:
        path.unlink(missing_ok=True)
