"""A third Ctrl-C ends the process, also while a thread waits for a store that does not answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_pgbackup

PACKAGE = Path(airflow_pgbackup.__file__).parent

# A verb was interrupted while a thread of a pool waits.
LEAVES = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from airflow_pgbackup.cli.interruption import leave
ThreadPoolExecutor(1, thread_name_prefix=sys.argv[1]).submit(time.sleep, 600)
sys.exit(leave(130))
"""

POOLS = [
    (str(module.relative_to(PACKAGE)), pool)
    for module in sorted(PACKAGE.rglob("*.py"))
    for pool in re.findall(r"\bThreadPoolExecutor\((.*)\)", module.read_text())
]


def test_a_thread_of_ours_is_not_waited_for() -> None:
    assert subprocess.run([sys.executable, "-c", LEAVES, "pgbackup-dump"], timeout=120).returncode == 130


@pytest.mark.parametrize(("module", "pool"), POOLS)
def test_every_pool_has_threads_of_ours(module: str, pool: str) -> None:
    """By their name."""
    name = re.search(r'thread_name_prefix=("pgbackup|name)', pool)
    assert name, f"{module}: ThreadPoolExecutor({pool})"
