"""Read the output of COPY: from a server on this machine through a named pipe, from any other over the connection, and
of several small tables together.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.abc import Buffer

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


def copy_several(
    session: psycopg.Connection[Any],
    query: bytes,
    takes: Sequence[Callable[[bytes], object]],
    *,
    deadline: Deadline,
) -> None:
    """Run several COPY to STDOUT in one query, and pass on the output of each. For small tables, where a pipe or a
    round trip for each would take longer than reading its rows.

    :param query: one COPY for each of `takes`, in the encoding of the session.
    :param takes, deadline: as for :func:`copy_out`.
    :raises ToolError, Canceled, DeadlineExceeded: as there.
    """
    connection = session.pgconn
    with selectors.PollSelector() as selector:

        def wait() -> None:
            while not selector.select(_POLL_SECONDS):
                deadline.check()
            deadline.check()
            connection.consume_input()

        connection.send_query(query)
        selector.register(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while connection.flush():
            wait()
        selector.modify(connection.socket, selectors.EVENT_READ)
        error, done = None, 0
        while True:
            while connection.is_busy():
                wait()
            deadline.check()
            result = connection.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.COPY_OUT and done < len(takes):
                _take_rows(connection, takes[done], wait)
                done += 1
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                error = result.get_error_message("utf-8")
            elif result.status != pq.ExecStatus.COMMAND_OK:
                raise failed("COPY", f"unexpected answer of the server: {pq.ExecStatus(result.status).name}")
        if error or done < len(takes):
            raise failed("COPY", error or f"the server sent {done} of {len(takes)} tables")


def _take_rows(connection: pq.abc.PGconn, take: Callable[[bytes], object], wait: Callable[[], None]) -> None:
    """Pass on the output of the COPY whose answer has begun."""
    rows: list[Buffer] = []
    held = 0
    while True:
        size, row = connection.get_copy_data(1)
        if size < 0:  # the end, or an error, which the next result has
            break
        if size == 0:
            wait()
            continue
        rows.append(row)
        held += size
        if held >= _CHUNK:
            take(b"".join(rows))
            rows, held = [], 0
    take(b"".join(rows))


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
