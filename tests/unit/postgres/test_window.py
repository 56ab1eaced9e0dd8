"""A buffer that moves along a stream."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.postgres.sql.window import Window

MIB = 1024**2


class Pieces(io.BytesIO):
    """Returns at most so many bytes for each read, as a pipe does."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._most if size is None or size < 0 else min(size, self._most))


@given(st.binary(max_size=300), st.integers(1, 50), st.integers(1, 50), st.lists(st.integers(1, 120)))
def test_the_window_shows_the_bytes_of_the_stream(data: bytes, most: int, chunk: int, steps: list[int]) -> None:
    window, at = Window(Pieces(data, most), chunk), 0
    for step in steps:
        assert window.offset == at
        assert window.peek(step) == data[at : at + step]
        taken = min(step // 2, len(data) - at)
        window.position += taken
        at += taken


@pytest.mark.parametrize("most", [64 * 1024, MIB, 512 * MIB])
def test_a_row_of_256_mib_takes_a_time_linear_in_its_length(most: int) -> None:
    """Joining each piece to all before it would copy about 100 GB."""
    size, start = 256 * MIB, time.thread_time()
    assert len(Window(Pieces(bytes(size), most)).peek(size)) == size
    window = Window(Pieces(bytes(size), most))
    while window.fill(0):
        pass
    assert len(window.buffer) == size
    assert time.thread_time() - start < 15
