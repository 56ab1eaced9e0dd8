"""The number of processors is that of the affinity, or of the container's CPU limit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from airflow_pgbackup.processors import usable_processors


@pytest.fixture(autouse=True)
def node_with_64_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))


def counted(directory: Path, group: str, limits: Mapping[str, str]) -> int:
    """Return the number of processors of a process in ``group``, in a tree of cgroups with these ``cpu.max``."""
    (directory / "proc/self").mkdir(parents=True)
    (directory / "proc/self/cgroup").write_text(group)
    for path, text in limits.items():
        file = directory / "cgroup" / path / "cpu.max"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return usable_processors(proc=directory / "proc", cgroups=directory / "cgroup")


@pytest.mark.parametrize(
    ("limit", "processors"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("max 100000\n", 64),
        ("9600000 100000\n", 64),
        ("not a limit\n", 64),
        ("0 0\n", 64),
    ],
)
def test_limit_of_the_container(limit: str, processors: int, tmp_path: Path) -> None:
    assert counted(tmp_path, "0::/\n", {".": limit}) == processors


def test_limit_of_a_group_above(tmp_path: Path) -> None:
    limits = {"kubepods/pod1": "300000 100000", "kubepods/pod1/worker": "max 100000"}
    assert counted(tmp_path, "0::/kubepods/pod1/worker\n", limits) == 3


def test_only_the_affinity_counts_without_cgroup_v2(tmp_path: Path) -> None:
    assert counted(tmp_path / "v1", "4:cpu:/kubepods/pod1\n", {"kubepods/pod1": "200000 100000"}) == 64
    assert usable_processors(proc=tmp_path / "none", cgroups=tmp_path) == 64
