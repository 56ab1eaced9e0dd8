"""A custom archive on its way to pg_restore: no block is passed on before its start was checked.

pg_restore does not compare the blocks of an archive with its table of contents. One that somebody has changed could
have SQL in place of large objects, a second block for an entry, or a chunk of a negative length, which overruns the
memory of pg_restore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airflow_pgbackup.byte_streams import LimitedReader, Readable
from airflow_pgbackup.postgres.archive.custom_format import BLOBS, INT, CustomArchive, ExpectedBlocks, head_of_chunk
from airflow_pgbackup.postgres.archive.toc import Toc
from airflow_pgbackup.postgres.sql.window import CHUNK, Window


def checked_blocks(source: Readable, toc: Toc) -> Iterator[bytes]:
    """Yield the bytes of a custom archive, each block once its start was checked by :class:`.ExpectedBlocks`.

    :param source: positioned at the header.
    :param toc: its table of contents, at least the entries with data.
    :raises VerificationFailed: the archive is truncated or damaged, or somebody has changed it.
    """
    head = LimitedReader(source, toc.size)
    while data := head.read(CHUNK):
        yield data
    archive = CustomArchive(source, what="the archive", toc=toc)
    archive.window = window = _PassingWindow(source, offset=toc.size)
    expected = ExpectedBlocks(toc.entries)
    while block := expected.next(archive):
        if block[0] == BLOBS:
            while archive.large_object():
                yield from _chunks(archive, window)
        else:
            yield from _chunks(archive, window)
    yield from window.passed()
    yield window.buffer
    while data := source.read(CHUNK):
        yield data


def check_blocks(source: Readable, toc: Toc, on_step: Callable[[], None]) -> None:
    """Check an archive that pg_restore will open by its name; otherwise as :func:`checked_blocks`.

    :param on_step: called at each piece; may raise.
    """
    for _ in checked_blocks(source, toc):
        on_step()


class _PassingWindow(Window):
    """Keeps the bytes that it discards, which were checked, until they are passed on."""

    def __init__(self, source: Readable, *, offset: int) -> None:
        super().__init__(source, CHUNK, offset=offset)
        self._passed: list[bytes] = []

    def fill(self, keep_from: int, *, least: int = 0) -> bool:
        before = self.buffer
        filled = super().fill(keep_from, least=least)
        if filled and keep_from:
            self._passed.append(before[:keep_from])
        return filled

    def passed(self) -> list[bytes]:
        """Return the bytes that were discarded since the last call."""
        passed, self._passed = self._passed, []
        return passed


def _chunks(archive: CustomArchive, window: _PassingWindow) -> Iterator[bytes]:
    """Move behind the chunk of length 0. There may be millions of chunks, as pg_dump writes one for each row."""
    owed = 0  # bytes of the last chunk that were not read yet
    while True:
        buffer, end = window.buffer, window.position + owed
        last = len(buffer) - INT
        sign, length = 0, 1
        while end <= last:
            sign, length = head_of_chunk(buffer, end)
            if sign or length <= 0:
                break
            end += INT + length
        if sign or length < 0:
            archive.fail("a chunk has a negative length")
        if length == 0:
            window.position = end + INT
            yield from window.passed()
            return
        window.position = min(end, len(buffer))
        owed = end - window.position
        if not window.fill(window.position):
            archive.fail("the file ends inside its data")
        yield from window.passed()
