"""The values in a request's seed, which must be equal in each process."""

from __future__ import annotations

import subprocess
import sys

PRINT_SEED = """
import json
from functools import partial
from pathlib import Path
from airflow_pgbackup.operators._seed import _plain

class Thing:
    def method(self): ...

def function(): ...

class Slot:
    __slots__ = ()

padding = [Thing() for _ in range(int(__import__("sys").argv[1]))]
values = [
    function, lambda: None, partial(function, Thing(), a=lambda: 1), Thing().method, Thing, len,
    {Thing(), Path("a"), "b", 1}, {"a", "b", "c"}, frozenset({Slot(), (1, Slot())}), {"k": [Thing()]},
]
print(json.dumps([_plain(each) for each in values]))
"""


def seed_of(objects: int, hash_seed: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", PRINT_SEED, str(objects)],
        env={"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout.splitlines()[-1]  # fmt: skip


def test_a_seed_is_equal_in_two_processes() -> None:
    first = seed_of(3, "1")
    assert first == seed_of(5000, "2")
    assert " at 0x" not in first
    assert "__main__.function" in first
