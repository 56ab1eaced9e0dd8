"""Counting and hashing rows in pieces gives the same result as at once."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive import row_digests
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


THREE = [b"1\ta\tx", b"2\t\\N\ty", b"3\tc\tz"]
CUTS: list[list[int]] = [[], [1], [6], [8], [5, 6, 7], list(range(30))]


@pytest.mark.parametrize("cuts", CUTS)
def test_rows_in_pieces(cuts: list[int]) -> None:
    data = b"".join(row + b"\n" for row in THREE)
    counted, uncounted = TableDigester(), TableDigester(count=False)
    for piece in pieces(data, cuts):
        counted.update(piece)
        uncounted.update(piece)
    assert (counted.rows, counted.bytes, counted.sha256) == (3, len(data), hashlib.sha256(data).hexdigest())
    assert (uncounted.rows, uncounted.bytes, uncounted.sha256) == (0, len(data), counted.sha256)
    assert row_set(THREE, cuts) == row_set(THREE[::-1])
    assert row_set(THREE, cuts).rows == 3
    assert row_set(THREE, cuts).counts is None, "they are counted on request"
    for other in (THREE[:2], [*THREE, THREE[0]], [*THREE[:2], THREE[0]], [*THREE[:2], b"3\tc\tZ"]):
        assert row_set(THREE, cuts) != row_set(other)


@pytest.mark.parametrize("cuts", CUTS)
def test_blocks_with_their_columns_in_another_order_have_the_same_rows(cuts: list[int]) -> None:
    hasher = RowHasher()
    hasher.begin_block(("id", "name", "note"))
    hasher.update(b"1\ta\tx\n")
    hasher.begin_block(("note", "id", "name"))
    for piece in pieces(b"y\t2\t\\N\nz\t3\tc\n\t5\te f\n", cuts):
        hasher.update(piece)
    hasher.begin_block(("id", "name", "note"))
    for piece in pieces(b"4\td\tw\n", cuts):
        hasher.update(piece)
    assert hasher.finish() == row_set([*THREE, b"5\te f\t", b"4\td\tw"])


def test_a_block_with_other_columns_is_taken_as_it_is() -> None:
    hasher = RowHasher()
    for columns, row in ((("id", "name"), b"1\ta"), (("name", "other"), b"2\tb"), (("name", "id"), b"c\t3")):
        hasher.begin_block(columns)
        hasher.update(row + b"\n")
    assert hasher.finish() == row_set([b"1\ta", b"2\tb", b"3\tc"])


def test_a_row_longer_than_postgresql_can_write_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_digests, "_LONGEST_ROW", 2000)
    hasher = RowHasher()
    hasher.begin_block(("a", "b"))
    hasher.begin_block(("b", "a"))
    hasher.update(b"p" * 1000)
    hasher.update(b"q" * 1000)
    hasher.update(b"\tz\n")
    hasher.update(b"p" * 2000)
    with pytest.raises(VerificationFailed) as raised:
        hasher.update(b"q")
    assert raised.value.message == "a row has more than 2,000 bytes, PostgreSQL's limit"
    assert hasher.finish() == row_set([b"z\t" + b"p" * 1000 + b"q" * 1000])


def test_the_digest_is_the_sum_of_the_hashes_of_the_rows() -> None:
    assert row_set([]) == RowSet(0, "0" * 32)
    assert row_set([b"a"]) == RowSet(1, hashlib.blake2b(b"a", digest_size=16).hexdigest())


def counts(*rows: bytes, count: bool = True) -> RowSet:
    hasher = RowHasher(count=count)
    for row in rows:
        hasher.update(row + b"\n")
    return hasher.finish()


def test_a_set_contains_another_with_each_row_at_least_as_often() -> None:
    have = counts(b"a", b"a", b"b")
    assert [have.contains(counts(*rows)) for rows in ([], [b"a"], [b"b", b"a", b"a"])] == [True] * 3
    assert [have.contains(counts(*rows)) for rows in ([b"c"], [b"b", b"b"], [b"a", b"b", b"c"])] == [False] * 3
    assert have.contains(counts(b"a", count=False)) is None
    assert counts(b"a", count=False).contains(have) is None


def test_rows_are_counted_up_to_a_number_of_distinct_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_digests, "_MAX_COUNTED", 2)
    assert counts(b"a", b"b", b"a", b"b").contains(counts(b"a", b"b")) is True
    assert counts(b"a", b"b", b"c", b"a").contains(counts(b"a")) is None
    assert counts(b"a", b"b", b"c", b"a") == counts(b"c", b"a", b"b", b"a")
