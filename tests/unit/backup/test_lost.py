"""Which versions show that a file was overwritten."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_pgbackup.backup.lost import find_overwritten
from airflow_pgbackup.repository.protection import Version

START = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)


def history(key: str, written: str) -> list[Version]:
    """The versions of a key, newest first, from letters in the order of their writing: ``-`` is a delete marker."""
    oldest_first = [
        Version(
            key=key,
            id=f"{key}{number}",
            modified=START + timedelta(minutes=number),
            latest=number == len(written),
            deleted=letter == "-",
            etag="" if letter == "-" else letter,
        )
        for number, letter in enumerate(written, 1)
    ]
    return oldest_first[::-1]


@pytest.mark.parametrize(
    ("written", "first", "above"),
    [
        ("ab", 1, [2]),
        ("abc", 1, [3, 2]),
        ("a-bc", 3, [4]),
        ("a", None, []),
        ("aa", None, []),
        ("aba", None, []),
        ("ab-", None, []),
        ("ab-a", None, []),
        ("--", None, []),
    ],
)
def test_overwritten_since_the_last_deletion(written: str, first: int | None, above: list[int]) -> None:
    found = [
        (file.first.id, [version.id for version in file.above]) for file in find_overwritten(history("k", written))
    ]
    assert found == ([] if first is None else [(f"k{first}", [f"k{number}" for number in above])])


def test_each_key_for_itself() -> None:
    versions = [*history("a", "xy"), *history("b", "x"), *history("c", "y"), *history("d", "xy")]
    assert [file.first.key for file in find_overwritten(versions)] == ["a", "d"]
