"""Run the suite again and again while all cores are busy: a test that fails once in ten is broken.

``python -m tests.campaign.flakes --times 10``. The suite runs as ``make test ALL=1`` does, beside one busy process for
each core.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests import sampling
from tests.campaign.results import part_result, write_result

ROOT = Path(__file__).parents[2]
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+?(?:\[.*\])?)(?: - .*)?$", re.MULTILINE)
COUNTS = re.compile(r"(\d+) (passed|failed|error|skipped)")
BUSY = "while True: pass"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(".")[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("tests", nargs="*", default=["tests"], help="what to run, by default all")
    given = parser.parse_args(arguments)
    started, rows, failed = time.monotonic(), [], Counter[str]()
    for number in range(1, given.times + 1):
        began = time.monotonic()
        output = run_busily(given.tests)
        counts = {kind: int(count) for count, kind in COUNTS.findall(output.splitlines()[-1] if output else "")}
        names = sorted(set(FAILED.findall(output)))
        if not counts:
            names = names or ["the suite did not end: " + output[-300:]]
        failed.update(names)
        rows.append([number, counts.get("passed", 0), len(names), round(time.monotonic() - began)])
        print(f"run {number}: {counts} in {rows[-1][-1]} s {' '.join(names)}", flush=True)
    found = part_result(
        "flakes",
        seconds=time.monotonic() - started,
        parameters={"times": given.times, "busy processes": os.cpu_count(), "tests": " ".join(given.tests)},
        cases=sum(row[1] + row[2] for row in rows),
        outcomes={"passed": sum(row[1] for row in rows), "failed": sum(row[2] for row in rows)},
        violations=[
            {"case": f"make test PYTEST='{name}'", "what": f"{name} failed in {count} of {given.times} runs"}
            for name, count in failed.items()
        ],
        tables={"Runs of the suite": (["run", "passed", "failed", "seconds"], rows)},
    )
    write_result(found, given.json)
    return 1 if failed else 0


def run_busily(tests: Sequence[str]) -> str:
    """Run the tests beside a busy process for each core, and return pytest's output."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            busy = subprocess.Popen([sys.executable, "-c", BUSY])
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        command = [sys.executable, "-m", "pytest", "-q", "--color=no", "-n", "3", "--dist", "worksteal", *tests]
        env = {**os.environ, sampling.ALL: "1"}
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode(errors="replace").rstrip()


if __name__ == "__main__":
    sys.exit(main())
