"""Millions of large objects are sorted in little memory."""

from __future__ import annotations

import hashlib
import random
import tracemalloc

import pytest

from airflow_pgbackup.postgres.archive import summary
from airflow_pgbackup.postgres.archive.summary import LargeObjects


def added(oids: list[int]) -> LargeObjects:
    objects = LargeObjects()
    for oid in oids:
        objects.add(oid, oid % 1000, oid.to_bytes(16, "big") * 2)
    return objects


@pytest.mark.parametrize("count", [0, 1, 100, 101, 2345])
def test_they_are_ordered_by_oid(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(summary, "_RUN", 28 * 100)
    oids = random.Random(count).sample(range(1, 2**32), count)
    expected = [(oid, oid % 1000, f"{oid:032x}") for oid in sorted(oids)]
    objects = added(oids)
    assert list(objects) == list(objects) == expected
    lines = "".join(f"{oid} {size} {sha256}\n" for oid, size, sha256 in expected)
    assert objects.digest == added(sorted(oids)).digest == hashlib.sha256(lines.encode()).hexdigest()


def test_sorting_them_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_RUN", 28 << 10)
    objects = added(random.Random(1).sample(range(1, 2**32), 20_000))
    tracemalloc.start()
    try:
        next(iter(objects))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 20, "20,000 tuples would take 3.8 MB"
