"""COPY's output. Of a server on this machine through a named pipe: the server writes it, and we read it.

What comes over a connection costs the server the protocol, psql another pass over every row, and us a lexer to find
the tables again: together more than the COPY itself. ``COPY … TO 'file'`` takes a superuser.
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
_LOOK = 0.5  # seconds between two looks whether to stop


def copy_out(
    session: psycopg.Connection[Any],
    statement: bytes,
    take: Callable[[bytes], object],
    *,
    pipe: Path,
    deadline: Deadline,
) -> None:
    """Run a COPY to a pipe and pass on what comes out of it.

    :param statement: its beginning, up to ``TO``; in the encoding of the session.
    :param take: gets the data, in pieces that may end anywhere.
    :param pipe: where :func:`named_pipe` has made one.
    :raises ToolError: the server refused, or ended the session.
    :raises Canceled, DeadlineExceeded: it was stopped.
    """
    # Opened before the server does, and without waiting for that, which may never come.
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(OSError):  # over /proc/sys/fs/pipe-max-size
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _CHUNK)
        session.pgconn.send_query(statement)
        _pump(session.pgconn, descriptor, take, deadline)
    finally:
        os.close(descriptor)  # a server that still writes gets an error, and ends


def copy_over(
    session: psycopg.Connection[Any],
    statement: sql.Composed,
    take: Callable[[bytes], object],
    *,
    deadline: Deadline,
) -> None:
    """Run a COPY to STDOUT and pass on what comes over the connection: of a server on another machine.

    :param take, deadline: as for :func:`copy_out`.
    :raises ToolError, Canceled, DeadlineExceeded: as there.
    """
    with (
        interruptible(session, "COPY", deadline),
        session.cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        pieces, size = [], 0
        for piece in copy:  # a row each
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
            ready = {key.fd for key, _ in selector.select(_LOOK if running else 0)}
            deadline.check()
            if reading and descriptor in ready:
                data = _read(descriptor, buffer)
                if data:
                    take(data)
                elif data is not None:
                    reading = False  # the server has closed its end
                    selector.unregister(descriptor)
            elif not running:
                reading = False  # it never opened it
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
    wrong = None
    while result := connection.get_result():
        if result.status != pq.ExecStatus.COMMAND_OK:
            wrong = result.get_error_message("utf-8")
    if wrong:
        raise failed("COPY", wrong)


@contextmanager
def named_pipe(folder: Path) -> Iterator[Path]:
    """A pipe that whoever may enter the folder may write to: the server may be another user."""
    path = folder / f"copy-{secrets.token_hex(8)}"
    os.mkfifo(path, 0o600)
    try:
        path.chmod(0o622)
        yield path
    finally:
        path.unlink(missing_ok=True)
