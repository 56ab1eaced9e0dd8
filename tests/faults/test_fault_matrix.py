"""A sample of the matrix of operations and faults; ``make campaign`` runs all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.campaign.matrix import OPERATIONS, pairs, run_round
from tests.campaign.matrix_faults import FAULTS
from tests.campaign.matrix_world import World, make_world

SAMPLE = [
    ("dump -F directory", "disk full: size limit"),
    ("dump -F tar", "S3: applied, reply lost"),
    ("dump -F custom", "SIGKILL to program and supervisors"),
    ("upload", "S3: 200 with an error body, applied"),
    ("restore create", "backend terminated"),
    ("refresh", "SIGKILL to the program"),
    ("prune", "S3: expired credentials"),
    ("adopt --move", "Input/output error, repository"),
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with make_world(("directory", "custom"), encryption=[False]) as world:
        world.durations = {operation.name: 1.0 for operation in OPERATIONS}
        yield world


@pytest.mark.parametrize(("operation", "fault"), SAMPLE)
def test_round(operation: str, fault: str, world: World) -> None:
    pair = next(one for one in pairs(1) if (one[0].name, one[1].name) == (operation, fault))
    result = run_round(world, 1, SAMPLE.index((operation, fault)), pair)
    assert result.violations == [], result.case


def test_every_operation_and_every_fault_has_its_turn() -> None:
    every = pairs(1)
    assert {operation.name for operation, _ in every} == {operation.name for operation in OPERATIONS}
    assert {fault.name for _, fault in every} == {fault.name for fault in FAULTS}
    assert set(every) == set(pairs(2))
