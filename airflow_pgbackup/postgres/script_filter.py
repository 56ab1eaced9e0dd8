"""A script on its way to psql, less some of its statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airflow_pgbackup.postgres.sqllexer import CHUNK, CopyData, Event, Readable, SqlLexer

_PIECE = 1 << 16


class ScriptFilter:
    """The parts of a script as streams, byte for byte but for what is left out.

    :param route: called with each event in turn, COPY data by its statement: the number of the part that it belongs
        to, or None to leave it out. White space goes with what follows it.
    """

    def __init__(self, source: Readable, route: Callable[[Event], int | None]) -> None:
        self._tee = _Tee(source)
        self._route = route
        self._pieces = self._run()
        self._next: tuple[int, bytes] | None = None

    def part(self, number: int) -> Readable:
        """The stream of one part. Parts are read in their order, each to its end; one may be empty."""
        return _Part(self, number)

    def finish(self) -> None:
        """Read on to the end of the script, whatever is left of it."""
        for _ in self._pieces:
            pass

    def take(self, number: int) -> bytes:
        """The next piece of a part; empty at its end."""
        if self._next is None:
            self._next = next(self._pieces, None)
        if self._next is None or self._next[0] != number:
            return b""
        data, self._next = self._next[1], None
        return data

    def _run(self) -> Iterator[tuple[int, bytes]]:
        lexer = SqlLexer(self._tee)
        waiting, part = bytearray(), 0
        for event in lexer:
            number = self._route(event)
            if number is not None and number != part:
                if waiting:
                    yield part, bytes(waiting)
                waiting, part = bytearray(), number
            for _ in self._steps(event):
                data = self._tee.take(lexer.offset)
                if number is not None:
                    waiting += data
                    if len(waiting) >= _PIECE:
                        yield part, bytes(waiting)
                        waiting = bytearray()
        waiting += self._tee.take(lexer.offset)
        if waiting:
            yield part, bytes(waiting)

    @staticmethod
    def _steps(event: Event) -> Iterator[None]:
        yield
        if isinstance(event, CopyData):
            for _ in event.chunks():
                yield
            yield


class _Part:
    def __init__(self, script: ScriptFilter, number: int) -> None:
        self._script = script
        self._number = number
        self._left = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        """Between one byte and `size`, as comes at hand; empty at the end."""
        if not self._left:
            self._left = memoryview(self._script.take(self._number))
        if size < 0:
            size = len(self._left)
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data


class _Tee:
    """What the lexer has read, until it is taken."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._buffer = bytearray()
        self._base = 0

    def read(self, size: int = CHUNK, /) -> bytes:
        data = self._source.read(size)
        self._buffer += data
        return data

    def take(self, offset: int) -> bytes:
        """All that is before an offset of the stream and was not taken yet."""
        count = offset - self._base
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._base = offset
        return data
