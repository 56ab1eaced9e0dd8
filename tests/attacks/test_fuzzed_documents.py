"""A sample of ``tests/campaign/fuzz.py``: changed manifests, mappings, keys, listings are read or refused clearly."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from campaign.fuzzing import documents, listings
from campaign.fuzzing.engine import Target, Violation, execute, fuzz
from campaign.fuzzing.mutations import json_values, some_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_pgbackup.errors import ManifestError

TARGETS = {target.name: target for target in (*documents.TARGETS, *listings.TARGETS)}
_FEW = {"listing": 6, "local-listing": 4}


@cache
def seeds(name: str) -> list[bytes]:
    return list(TARGETS[name].seeds())


@pytest.mark.parametrize("name", TARGETS)
def test_a_valid_input_is_accepted_and_a_changed_one_breaks_nothing(name: str) -> None:
    target = TARGETS[name]
    assert any(execute(target, data).startswith("accepted") for data in seeds(name))

    @settings(max_examples=_FEW.get(name, 30), derandomize=True, database=None)
    @given(random=st.randoms(use_true_random=False), number=st.integers(0, len(seeds(name)) - 1))
    def changed(random: Random, number: int) -> None:
        execute(target, target.mutate(random, seeds(name)[number], seeds(name)))

    changed()


def _breaks_at_a_comma(data: bytes) -> str:
    if b"," in data:
        raise ValueError("found a comma")
    raise ManifestError("no comma", hint="Add one.")


def test_a_violation_is_found_and_its_input_made_small() -> None:
    broken = Target("broken", lambda: [b"abcdefgh"], some_bytes, _breaks_at_a_comma, (ManifestError,), (__name__,))
    found = fuzz(broken, seed=1, executions=2000)
    assert list(found.violations.values()) == [b","]
    assert "ValueError at test_fuzzed_documents.py" in next(iter(found.violations))
    assert found.outcomes["refused: ManifestError"] > 1000


def test_a_message_that_a_terminal_would_obey_is_a_violation() -> None:
    def run(data: bytes) -> str:
        error = ManifestError("x")
        error.__class__ = type("Raw", (ManifestError,), {"__str__": lambda self: "\x1b[2J"})
        raise error

    with pytest.raises(Violation, match="not printable"):
        execute(Target("raw", lambda: [b""], json_values, run, (ManifestError,), ()), b"")


def test_the_same_seed_gives_the_same_run() -> None:
    target = TARGETS["repository"]
    one, other = (fuzz(target, seed=5, executions=200) for _ in range(2))
    assert (one.outcomes, one.corpus, one.lines) == (other.outcomes, other.corpus, other.lines)
