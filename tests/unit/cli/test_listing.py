"""Records for people, at every width: nothing is cut, nothing is broken inside a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.cli.listing import Listing

ID = "20261122T020000Z-3f9ac1"


def shown(listing: Listing, width: int | None) -> list[str]:
    return listing.plain() if width is None else [line.plain for line in listing.lines(width)]


def retention(series: str = "prod/app") -> Listing:
    listing = Listing(("", "series", "backup", "why"), names=3)
    listing.add("keep", series, ID, "newest backup; last verified backup; daily 1/7 (2026-11-22)")
    listing.add("delete", series, ID.replace("22T", "21T"), "no rule keeps it")
    return listing


def test_one_line_each_without_a_terminal() -> None:
    assert shown(retention(), None) == [
        "        series    backup                   why",
        f"keep    prod/app  {ID}  newest backup; last verified backup; daily 1/7 (2026-11-22)",
        "delete  prod/app  20261121T020000Z-3f9ac1  no rule keeps it",
    ]
    assert len(shown(retention("s" * 200 + "/" + "d" * 200), None)) == 3


def test_the_last_column_is_wrapped_where_it_has_room() -> None:
    assert shown(retention(), 80) == [
        "        series    backup                   why",
        f"keep    prod/app  {ID}  newest backup; last verified backup;",
        " " * 43 + "daily 1/7 (2026-11-22)",
        "delete  prod/app  20261121T020000Z-3f9ac1  no rule keeps it",
    ]


def test_records_are_folded_where_it_has_none() -> None:
    assert shown(retention(), 60) == [
        f"keep  prod/app  {ID}",
        "    newest backup; last verified backup; daily 1/7",
        "    (2026-11-22)",
        "delete  prod/app  20261121T020000Z-3f9ac1",
        "    no rule keeps it",
    ]
    assert shown(retention("production-server.example.com/app"), 60)[:2] == [
        "keep  production-server.example.com/app",
        ID,
    ]


def test_a_number_has_its_name_where_its_record_is_folded() -> None:
    listing = Listing(("level", "rows", "recovery time"), names=1, labeled=(1, 2))
    listing.add("restore", "1,000", "0.5 s")
    listing.add("archive", "1,000", "")
    assert shown(listing, 18) == [
        "restore",
        "    rows 1,000,",
        "    recovery time",
        "    0.5 s",
        "archive",
        "    rows 1,000",
    ]
    assert shown(listing, None)[1] == "restore  1,000  0.5 s"


def test_numbers_are_aligned_to_the_right() -> None:
    listing = Listing(("name", "size", "state"), names=1, right=(1,))
    listing.add("a", "9 bytes", "x")
    listing.add("b", "10.0 KiB", "y")
    assert shown(listing, None)[1:] == ["a      9 bytes  x", "b     10.0 KiB  y"]


@given(st.integers(1, 130), st.lists(st.text("ab/-ö日", min_size=1, max_size=50), min_size=1, max_size=4))
def test_no_width_loses_or_breaks_a_word(width: int, names: list[str]) -> None:
    listing = Listing(("series", "backup", "state"), names=2)
    for name in names:
        listing.add(name, ID, "verified: archive, pinned")
    lines = shown(listing, width)
    words = [word.strip(",") for line in lines for word in line.split()]
    assert words.count(ID) == len(names)
    assert [word for word in words if word in names] == names


@pytest.mark.parametrize("width", [None, 20])
def test_escape_sequences_are_shown(width: int | None) -> None:
    listing = Listing(("name", "state"), names=1)
    listing.add("\x1b[2J", "x\x9b31m")
    assert "\x1b" not in "".join(shown(listing, width))
    assert "\x9b" not in "".join(shown(listing, width))
