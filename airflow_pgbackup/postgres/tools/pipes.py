"""This process's ends of a tool's stdin, stdout and stderr."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.postgres.tools.stderr import StderrFilter

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 1 << 20
_PIECE = 1 << 18
_TICK = 500  # milliseconds
_TAIL_LINES = 50
_LONGEST_UNBROKEN = 1 << 16  # bytes of stderr without a line end
# The longest pause between two reads of stderr, in seconds: PostgreSQL's programs write each line on its own, with
# --verbose hundreds of thousands of them, and to wake for each takes longer than to read it.
_GATHER = 0.01
_SHORTEST_GATHER = 0.0001


def wait_for(pipe: IO[bytes], *, given_up: Callable[[], bool]) -> bool:
    """Wait until a pipe has data or has ended; return False if `given_up` does first.

    :param given_up: returns True when nothing more can come, even if a process outside the tool's group holds the pipe.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while not poll.poll(_TICK):
        if given_up():
            return False
    return True


class ToolOutput(io.RawIOBase):
    """A tool's stdout: ``read(n)`` returns `n` bytes until the end, and raises there if the tool failed.

    It raises instead of returning the last, short piece, because boto3 takes a short read for the end and reads no
    more. Every later read raises again.

    :param at_end: waits for the tool's end, and raises if the tool failed.
    :param given_up: as for :func:`wait_for`.
    """

    def __init__(self, pipe: IO[bytes], *, at_end: Callable[[], None], given_up: Callable[[], bool]) -> None:
        self._pipe = pipe
        self._at_end = at_end
        self._given_up = given_up
        self._buffer = memoryview(bytearray(_PIECE))
        self._lock = threading.Lock()  # boto3 reads in a thread: close no descriptor that is being read

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        pieces = []
        left = sys.maxsize if size < 0 else size
        with self._lock:
            while left and (count := self._read_some(min(left, _PIECE))):
                pieces.append(bytes(self._buffer[:count]))
                left -= count
        if left:
            self._at_end()
        return b"".join(pieces)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _read_some(self, size: int) -> int:
        # Into one buffer: reading into new bytes of this size, and shrinking them, takes three times as long.
        if self._pipe.closed or not wait_for(self._pipe, given_up=self._given_up):
            return 0
        return os.readv(self._pipe.fileno(), [self._buffer[:size]])

    def close(self) -> None:
        with self._lock:
            self._pipe.close()


class StderrLog:
    """Reads a tool's stderr to its end, so that the tool never waits for it; :meth:`run` is for a thread.

    :ivar tail: the last lines, without statements and rows.
    :ivar error: the error that `on_line` raised; after it, `on_line` is not called again.
    """

    def __init__(self, on_line: Callable[[str], None] | None, *, hide_values: bool = False) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.error: Exception | None = None
        self._on_line = on_line
        self._filter = StderrFilter(hide_values=hide_values)

    def run(self, pipe: IO[bytes], given_up: Callable[[], bool]) -> None:
        rest, pause = b"", _GATHER
        with pipe:
            while wait_for(pipe, given_up=given_up) and (data := pipe.read(_LONGEST_UNBROKEN)):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LONGEST_UNBROKEN:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._add(line)
                # A tool waits where the pipe is full.
                pause = (
                    max(pause / 2, _SHORTEST_GATHER) if len(data) > _LONGEST_UNBROKEN // 2 else min(2 * pause, _GATHER)
                )
                time.sleep(pause)
        self._add(rest)

    def _add(self, raw: bytes) -> None:
        line = self._filter.keep(raw.decode(errors="replace"))
        if not line:
            return
        self.tail.append(line)
        if self._on_line and not self.error:
            try:
                self._on_line(line)
            except Exception as error:  # noqa: BLE001  raised at the end: an unread pipe would stop the tool
                self.error = error


class StdinFeeder:
    """Feeds a source to a tool, and ends its input only at the source's own end; :meth:`run` is for a thread.

    :ivar error: the error that reading the source raised.
    """

    def __init__(self, source: Readable, *, on_error: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._source = source
        self._on_error = on_error

    def run(self, pipe: IO[bytes]) -> None:
        try:
            while data := self._source.read(CHUNK):
                if not _write(pipe, data):
                    return
            pipe.close()
        except BaseException as error:  # noqa: BLE001  raised by whoever waits for the tool's end
            # The pipe stays open until the tool is dead: at the end of its input psql would commit what it has read.
            self.error = error
            self._on_error()


def _write(pipe: IO[bytes], data: bytes) -> bool:
    """Return False if the tool has closed its stdin; its exit status shows why."""
    view = memoryview(data)
    try:
        while view:
            view = view[pipe.write(view) :]
    except (BrokenPipeError, ValueError):  # ValueError: this process has closed it, because the tool has ended
        return False
    return True
