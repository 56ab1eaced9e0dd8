"""make campaign: run every part, one after the other, and collect what each found.

``python -m tests.campaign.run [--only PART …] [--quick] [--results DIRECTORY]``. A part is a process of its own; its
output goes into ``PART.log``, its result into ``PART.json``. The exit status is 0 only if no part found a violation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Part:
    """:param long, quick: its arguments in the long run, and with ``--quick``."""

    module: str
    long: tuple[str, ...]
    quick: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.module.rpartition(".")[2].removeprefix("bench_")


PARTS = (
    Part("tests.campaign.matrix", ("--rounds", "592"), ("--rounds", "20")),
    Part("tests.campaign.matrix_tasks", ("--rounds", "36"), ("--rounds", "2")),
    Part("tests.campaign.crash_points", (), ("--verb", "prune")),
    Part("tests.campaign.clocks", (), ("--rounds", "2")),
    Part("tests.campaign.fuzz", ("--minutes", "120"), ("--executions", "50")),
    Part("tests.campaign.regression_database", (), ()),
    Part("tests.campaign.soak", ("--minutes", "60"), ("--minutes", "5")),
    Part("benchmarks.bench_scale", (), ("--rounds", "1", "--scale", "0.02")),
    Part("tests.campaign.flakes", ("--times", "10"), ("--times", "1")),
    Part("tests.campaign.mutation", (), ("--part", "retention")),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(".")[0])
    names = [part.name for part in PARTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a few cases of each part")
    parser.add_argument("--results", type=Path, default=ROOT / ".campaign", metavar="DIRECTORY")
    given = parser.parse_args(arguments)
    given.results.mkdir(parents=True, exist_ok=True)
    bad = []
    for part in PARTS:
        if part.name in given.only and not run(part, given.results, quick=given.quick):
            bad.append(part.name)
    print(f"violations, or no result: {', '.join(bad)}" if bad else "no violation")
    return 1 if bad else 0


def run(part: Part, results: Path, *, quick: bool) -> bool:
    """Run one part, and return whether it ended well and found no violation."""
    result, log = results / f"{part.name}.json", results / f"{part.name}.log"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", part.module, *(part.quick if quick else part.long), "--json", str(result)]
    print(f"{time.strftime('%H:%M:%S')} {' '.join(command[1:])}", flush=True)
    with log.open("w") as output:
        status = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if not result.exists():
        print(f"  no result, exit status {status}; see {log}", flush=True)
        return False
    found = json.loads(result.read_text())
    outcomes = ", ".join(f"{count:,} {name}" for name, count in found.get("outcomes", {}).items())
    print(f"  {found.get('cases', 0):,} cases in {found['seconds']:,.0f} s: {outcomes or 'see the result'}", flush=True)
    for violation in found.get("violations", []):
        print(f"  VIOLATED: {violation['what']}\n    {violation['case']}", flush=True)
    return status == 0 and not found.get("violations")


if __name__ == "__main__":
    sys.exit(main())
