"""Which combinations of parameters, and which points of a long series, ``make test`` tries.

A test whose parameters are versions, formats and stores has many combinations. If it is marked ``every_value``,
``make test`` runs just enough of them that each value of each parameter occurs once. A test that injects a fault at
each of thousands of points tries a :func:`sample` of them. ``make test ALL=1`` and ``make campaign`` run all.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import pytest

Point = TypeVar("Point")

ALL = "PGBACKUP_TEST_ALL"
MARK = "every_value"


def select(items: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests to run, in their order, and the others."""
    every = list(items)
    groups: dict[str, list[pytest.Function]] = {}
    for item in every:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and item.get_closest_marker(MARK):
            groups.setdefault(item.nodeid.partition("[")[0], []).append(item)
    others = {item for group in groups.values() for item in left_out(group)}
    return [item for item in every if item not in others], [item for item in every if item in others]


def left_out(items: Sequence[pytest.Function]) -> set[pytest.Function]:
    """Return the combinations of a test that can be left out without losing a value.

    Every process of a run must choose the same ones, so nothing here depends on the order of a set.
    """
    values = {item: {(name, repr(value)) for name, value in item.callspec.params.items()} for item in items}
    missing = set().union(*values.values())
    used: Counter[tuple[str, str]] = Counter()
    others = list(items)
    while missing:
        best = max(others, key=lambda item: (len(values[item] & missing), -sum(used[value] for value in values[item])))
        others.remove(best)
        missing -= values[best]
        used.update(values[best])
    return set(others)


def sample(points: Sequence[Point], one_in: int) -> Sequence[Point]:
    """Return every ``one_in``-th point and the last one; with ``ALL=1``, all points."""
    if all_combinations():
        return points
    return [*points[: len(points) - 1 : one_in], *points[-1:]]


def all_combinations() -> bool:
    """Return whether all are asked for."""
    return bool(os.environ.get(ALL))
