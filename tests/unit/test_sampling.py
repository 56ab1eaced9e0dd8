"""The combinations that ``make test`` runs have every value of every parameter, and few of them twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.sampling import ALL, left_out, sample


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


TESTS = """
import pytest

@pytest.mark.every_value
@pytest.mark.parametrize("a", [1, 2, 3])
@pytest.mark.parametrize("b", [1, 2])
def test_marked(a, b): pass

@pytest.mark.parametrize("a", [1, 2])
@pytest.mark.parametrize("b", [1, 2])
def test_not_marked(a, b): pass
"""


def test_what_make_test_selects(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_collection_modifyitems, pytest_configure")
    (tmp_path / "test_some.py").write_text(TESTS)
    for setting, selected in (("", 3), ("1", 6)):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", tmp_path]
        env = {**os.environ, "PYTHONPATH": str(root), "PYTEST_ADDOPTS": "", ALL: setting}
        found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
        assert (found.count("::test_marked["), found.count("::test_not_marked[")) == (selected, 4), found


def test_a_sample_has_the_first_and_the_last_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALL, raising=False)
    assert list(sample(range(10), 4)) == [0, 4, 8, 9]
    assert list(sample("abc", 2)) == ["a", "c"]
    assert list(sample([], 2)) == []
    monkeypatch.setenv(ALL, "1")
    assert list(sample(range(10), 4)) == [*range(10)]
