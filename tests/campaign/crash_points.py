"""Kill each verb at each of its steps, and look at what is left and whether a retry mends it.

    python -m tests.campaign.crash_points [--verb prune]... [--store local|s3] [--step 7]
                                          [--retry same|fresh|none|all] [--most N] [--json FILE]

A verb first runs to its end, and its process enumerates its steps (see :mod:`.steps`). Then it runs once more for each
step, in a world of its own, and kills itself there by SIGKILL. After each kill all older backups are as they were, what
is listed verifies, the target of a restore holds all of the old or all of the new, and no process survives. Then the
verb runs again, as a retry of the same task or as a new call: it succeeds, and exactly the right backups are listed.
In every third case it does not run again. At last a sweep after the grace period leaves nothing else behind.

Exit status 1 if anything of that is violated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .crash_case import Case, Ended, adopt_orphans
from .crash_verbs import VERBS
from .crash_world import Servers, World, start
from .results import part_result, write_result

RETRIES = ("same", "fresh", "none")
"""A retry of the same task, as Airflow does it; a call that knows nothing of the one that was killed; and none."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verb", action="append", choices=VERBS, help="only this one; may be repeated")
    parser.add_argument("--store", choices=("local", "s3"), help="only repositories there")
    parser.add_argument("--step", type=int, help="only this step")
    parser.add_argument(
        "--retry", choices=(*RETRIES, "all"), help="this kind of retry after each kill (default: in turn)"
    )
    parser.add_argument("--most", type=int, metavar="N", help="at most N steps of each verb, evenly spread")
    parser.add_argument("--scripts", action="store_true", help="plain backups; only verbs that need no PostgreSQL")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    names = [
        (name, store)
        for name, verb in VERBS.items()
        for store in verb.stores
        if name in (arguments.verb or VERBS) and store in (arguments.store or store)
        if not (arguments.scripts and verb.postgres)
    ]
    adopt_orphans()
    campaign = Campaign(arguments.step, arguments.retry, arguments.most)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash-", dir="/tmp") as directory:
        stores = {store for _, store in names}
        with start(postgres=not arguments.scripts, s3="s3" in stores, directory=Path(directory)) as servers:
            campaign.servers = servers
            for name, store in names:
                campaign.verb(name, store)
    seconds = time.monotonic() - begun
    report = campaign.report(seconds, {name: value for name, value in vars(arguments).items() if name != "json"})
    print(
        f"{report['cases']} cases in {seconds:.0f} s, {len(campaign.violations)} violations: {dict(campaign.outcomes)}"
    )
    write_result(report, arguments.json)
    return 1 if campaign.violations else 0


@dataclass
class Campaign:
    only_step: int | None
    retry: str | None
    most: int | None
    servers: Servers = field(init=False)
    violations: list[dict[str, str]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    rows: list[list[object]] = field(default_factory=list)
    cases: int = 0
    steps: dict[str, list[str]] = field(default_factory=dict)

    def verb(self, name: str, store: str) -> None:
        """Kill a verb at each of its steps."""
        begun, violations = time.monotonic(), len(self.violations)
        full = self.case(name, store, None, "same")
        self.steps[name if store == "local" else f"{name} in {store}"] = full.steps
        killed = 0
        for turn, number in enumerate([self.only_step] if self.only_step else spread(len(full.steps), self.most)):
            for retry in RETRIES if self.retry == "all" else [self.retry or RETRIES[(turn + number) % 3]]:
                ended = self.case(name, store, number, retry)
                killed += ended.killed
        seconds = time.monotonic() - begun
        wrong = len(self.violations) - violations
        self.rows.append([name, store, len(full.steps), killed, wrong, round(seconds)])
        print(f"{name} in {store}: {len(full.steps)} steps, {killed} kills, {wrong} violations, {seconds:.0f} s")

    def case(self, name: str, store: str, number: int | None, retry: str) -> Ended:
        """Run a verb in a new world, to its end or to a step; run it again, and check."""
        self.cases += 1
        verb = VERBS[name]
        world = World(self.servers, store, self.cases, versioned=verb.versioned)
        command = f"--verb {name} --store {store} --retry {retry}" + (f" --step {number}" if number else "")
        found: list[str] = []
        ended, case = Ended(0, [], ""), Case(world, verb, retry)
        try:
            ended = case.run(number)
            found += case.violations
        except Exception:
            found.append(f"the case failed: {traceback.format_exc()}")
        finally:
            world.close()
        step = ended.steps[-1] if number and ended.steps else "its end"
        for what in found:
            self.violations.append({"case": command, "what": f"killed before {step}: {what}"})
            print(f"VIOLATION {command}: killed before {step}: {what}")
        self.outcomes[f"{'killed, then ' if ended.killed else 'ended, then '}{case.outcome}"] += 1
        return ended

    def report(self, seconds: float, parameters: dict[str, object]) -> dict[str, object]:
        columns = ["verb", "repository", "steps", "kills", "violations", "seconds"]
        return part_result(
            "crash_points",
            seconds=seconds,
            parameters=parameters,
            cases=self.cases,
            outcomes=self.outcomes,
            violations=self.violations,
            tables={"A kill at each step of each verb": (columns, self.rows)},
            steps=self.steps,
        )


def spread(steps: int, most: int | None) -> list[int]:
    """Return the numbers of steps, from 1; at most so many, evenly spread."""
    count = min(steps, most or steps)
    return [1 + number * steps // count for number in range(count)]


if __name__ == "__main__":
    sys.exit(main())
