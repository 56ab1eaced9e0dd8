"""Our ends of a tool's three pipes."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
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


def wait_for(pipe: IO[bytes], *, given_up: Callable[[], bool]) -> bool:
    """Wait until something can be read from a pipe, its end too.

    :param given_up: True when nothing more can come, though a stranger still holds the pipe open; then False.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while not poll.poll(_TICK):
        if given_up():
            return False
    return True


class ToolOutput(io.RawIOBase):
    """``read(n)`` returns `n` bytes until the end of a tool's stdout, and raises there when the tool did not do well.

    At the end it raises instead of returning the last, short piece: to boto3 a short read is the end, and it asks no
    more. It goes on raising when asked again.

    :param at_end: waits for the tool's end; raises how it failed.
    :param given_up: as for :func:`wait_for`.
    """

    def __init__(self, pipe: IO[bytes], *, at_end: Callable[[], None], given_up: Callable[[], bool]) -> None:
        self._pipe = pipe
        self._at_end = at_end
        self._given_up = given_up
        self._buffer = memoryview(bytearray(_PIECE))
        self._lock = threading.Lock()  # boto3 reads in a thread: never close a descriptor that is being read

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

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _read_some(self, size: int) -> int:
        # Into one buffer: a read into new bytes of this size, most of them given back, takes three times as long.
        if self._pipe.closed or not wait_for(self._pipe, given_up=self._given_up):
            return 0
        return os.readv(self._pipe.fileno(), [self._buffer[:size]])

    def close(self) -> None:
        with self._lock:
            self._pipe.close()


class StderrLog:
    """Keeps stderr flowing, whatever happens to the lines; :meth:`run` is a thread's.

    :ivar tail: the last lines, without statements and rows.
    :ivar error: what `on_line` raised; it was not called again.
    """

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.error: Exception | None = None
        self._on_line = on_line
        self._filter = StderrFilter()

    def run(self, pipe: IO[bytes], given_up: Callable[[], bool]) -> None:
        rest = b""
        with pipe:
            while wait_for(pipe, given_up=given_up) and (data := pipe.read(_LONGEST_UNBROKEN)):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LONGEST_UNBROKEN:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._add(line)
        self._add(rest)

    def _add(self, raw: bytes) -> None:
        line = self._filter.keep(raw.decode(errors="replace"))
        if not line:
            return
        self.tail.append(line)
        if self._on_line and not self.error:
            try:
                self._on_line(line)
            except Exception as error:  # noqa: BLE001  raised at the end: a full pipe would stop the tool
                self.error = error


class StdinFeeder:
    """Gives a source to a tool, and an end of input only when the source came to its own; :meth:`run` is a thread's.

    :ivar error: what reading the source raised.
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
        except BaseException as error:  # noqa: BLE001  raised where the tool's end is waited for
            # The pipe stays open until the tool is dead: at a clean end psql would commit what it got so far.
            self.error = error
            self._on_error()


def _write(pipe: IO[bytes], data: bytes) -> bool:
    """False when the tool wants no more; its exit status says why."""
    view = memoryview(data)
    try:
        while view:
            view = view[pipe.write(view) :]
    except (BrokenPipeError, ValueError):  # ValueError: closed by us, as the tool is gone
        return False
    return True
