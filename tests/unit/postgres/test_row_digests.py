"""Counting and hashing rows in pieces gives the same result as at once."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.postgres.archive.row_digests import RowHasher, RowSet, TableDigester

ROWS = st.lists(st.binary(max_size=6).filter(lambda row: b"\n" not in row), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def row_set(rows: list[bytes], cuts: list[int] | None = None) -> RowSet:
    hasher = RowHasher()
    for piece in pieces(b"".join(row + b"\n" for row in rows), cuts or []):
        hasher.update(piece)
    return hasher.finish()


@given(rows=ROWS, cuts=st.lists(st.integers(0, 60), max_size=8))
def test_the_size_of_the_pieces_does_not_matter(rows: list[bytes], cuts: list[int]) -> None:
    data = b"".join(row + b"\n" for row in rows)
    digester = TableDigester()
    for piece in pieces(data, cuts):
        digester.update(piece)
    assert (digester.rows, digester.bytes) == (len(rows), len(data))
    assert digester.sha256 == hashlib.sha256(data).hexdigest()
    assert row_set(rows, cuts) == row_set(rows)


@given(rows=ROWS, other=ROWS, data=st.data())
def test_row_sets_are_equal_only_for_the_same_rows_in_any_order(
    rows: list[bytes], other: list[bytes], data: st.DataObject
) -> None:
    assert row_set(data.draw(st.permutations(rows))) == row_set(rows)
    assert (row_set(other) == row_set(rows)) == (sorted(other) == sorted(rows))
    assert row_set(rows).rows == len(rows)
