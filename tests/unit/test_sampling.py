"""The combinations that ``make test`` runs have every value of every parameter, and few of them twice."""

from __future__ import annotations

from collections import Counter
from itertools import product
from types import SimpleNamespace
from typing import Any

from tests.sampling import left_out


class Item(SimpleNamespace):
    __hash__ = object.__hash__


def chosen(**parameters: list[object]) -> list[dict[str, object]]:
    combinations = [dict(zip(parameters, values, strict=True)) for values in product(*parameters.values())]
    items: list[Any] = [Item(callspec=SimpleNamespace(params=each)) for each in combinations]
    others = left_out(items)
    return [item.callspec.params for item in items if item not in others]


def test_every_value_is_chosen() -> None:
    found = chosen(version=[15, 16, 18], form=["plain", "custom", "tar", "directory"], kind=["a", "b"])
    assert len(found) == 4
    assert {each["version"] for each in found} == {15, 16, 18}
    assert {each["form"] for each in found} == {"plain", "custom", "tar", "directory"}
    assert Counter(each["kind"] for each in found) == {"a": 2, "b": 2}


def test_a_long_list_is_spread_over_a_short_one() -> None:
    found = chosen(version=[15, 18], case=[*range(10)])
    assert Counter(each["version"] for each in found) == {15: 5, 18: 5}
    assert len(found) == 10


def test_nothing_of_one_parameter_is_left_out() -> None:
    assert len(chosen(case=[*range(7)])) == 7
