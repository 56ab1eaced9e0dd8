"""Cutting a script into parts for psql, without its commands and some of its statements.

The commands that pg_dump and pg_dumpall write are not left to psql: each part of a script runs in a psql of its own,
connected to the database of the script's ``\\connect``. This protects nothing: see
:mod:`airflow_pgbackup.postgres.psql.guarded`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from airflow_pgbackup.byte_streams import PieceReader, Readable
from airflow_pgbackup.postgres.sql.lexer import (
    BYTE_ORDER_MARK,
    CHUNK,
    CopyData,
    Event,
    MetaCommand,
    SqlLexer,
    Statement,
)
from airflow_pgbackup.postgres.sql.names import connected_name

_PIECE = 1 << 16


class ScriptFilter:
    """The parts of a script as streams: byte for byte, without psql's commands and the events that `route` omits.

    The line end of a command stays, and settings are repeated: see :meth:`.SqlLexer.settings_before`.

    :param route: called with each event in turn; returns the number of its part, or None to omit it. COPY data is in
        the part of its statement, white space in the part of what follows it.
    :param instead: statements to replace, with their replacements.
    """

    def __init__(
        self, source: Readable, route: Callable[[Event], int | None], *, instead: Mapping[bytes, bytes] | None = None
    ) -> None:
        self._tee = _Tee(source)
        self._route = route
        self._instead = instead or {}
        self._pieces = self._run()
        self._next: tuple[int, bytes] | None = None

    def part(self, number: int) -> Readable:
        """Return the stream of one part. Read the parts in their order, each to its end; a part can be empty."""
        return PieceReader(iter(lambda: self.take(number), b""))

    def finish(self) -> None:
        """Read the rest of the script."""
        for _ in self._pieces:
            pass

    def take(self, number: int) -> bytes:
        """Return the next piece of a part; empty at its end."""
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
            settings = lexer.settings_before(event)
            for _ in self._steps(event):
                at_start, start = self._tee.offset == 0, event.offset - self._tee.offset
                data = self._tee.take(lexer.offset)
                if settings:
                    data, settings = data[:start] + settings + data[start:], b""
                if isinstance(event, MetaCommand):
                    data = data[: -len(data.lstrip())] + b"\n"
                elif isinstance(event, Statement) and event.text in self._instead:
                    data = data.removesuffix(event.text) + self._instead[event.text]
                if at_start:  # psql skips the mark in its first line only, and that is not this one
                    data = data.removeprefix(BYTE_ORDER_MARK)
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


def sessions(
    source: Readable,
    *,
    instead: Mapping[bytes, bytes] | None = None,
    omits: Callable[[Event], bool] = lambda event: False,
) -> Iterator[tuple[bytes | None, Readable]]:
    """Cut a script at its ``\\connect`` commands into one part for each session.

    :param instead: as for :class:`ScriptFilter`.
    :param omits: called with each event in turn; returns whether to omit it.
    :return: pairs of a database name, None for the first session, and the stream. Read each stream to its end before
        you take the next pair.
    :raises VerificationFailed: while reading, at a ``\\connect`` that pg_dump never writes.
    """
    names: list[bytes | None] = [None]

    def route(event: Event) -> int | None:
        if isinstance(event, MetaCommand) and event.name == b"connect":
            names.append(connected_name(event.argument))
        return None if omits(event) else len(names) - 1

    script = ScriptFilter(source, route, instead=instead)
    number = 0
    while number < len(names):
        yield names[number], script.part(number)
        number += 1


class _Tee:
    """Keeps what the lexer has read until it is taken.

    :ivar offset: of the first byte that was not taken yet.
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._buffer = bytearray()
        self.offset = 0

    def read(self, size: int = CHUNK, /) -> bytes:
        data = self._source.read(size)
        self._buffer += data
        return data

    def take(self, offset: int) -> bytes:
        """Return everything before an offset of the stream that was not taken yet."""
        count = offset - self.offset
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self.offset = offset
        return data
