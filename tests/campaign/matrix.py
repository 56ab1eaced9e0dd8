"""Faults and operations: each operation under each fault, at a random moment, with the five assertions afterwards.

    python -m tests.campaign.matrix [--rounds 500] [--seed 1] [--round N] [--json FILE]

Each pair of an operation and a fault comes once in so many rounds, in an order that the seed decides; stores,
encryption, sizes and moments are random. ``--seed 1 --round 17`` repeats round 17 of seed 1, as far as the machine
repeats its timing. Needs root, to mount small file systems.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

for _each in ("integration", ""):
    sys.path.insert(0, str(Path(__file__).parents[1] / _each))

# ruff: noqa: E402
from tests.campaign.aftermath import Outcome, aftermath, snapshot
from tests.campaign.matrix_case import Case, make_case
from tests.campaign.matrix_faults import FAULTS, Fault, descendants
from tests.campaign.matrix_operations import OPERATIONS, Operation, verify_restorable
from tests.campaign.matrix_world import World, make_world
from tests.campaign.results import part_result, write_result

PROGRAM = [sys.executable, str(Path(__file__).with_name("matrix_child.py"))]
STORES = ("local", "s3")
LONGEST = 200.0
"""Seconds after which an operation hangs: no fault that ends by itself, and no retry, takes so long."""
RESTORABLE = 0.15
"""The share of the rounds in which what was made is restored, too."""

Pair = tuple[Operation, Fault]


@dataclass
class Result:
    """One round. :ivar case: how to repeat it. :ivar cause: what the operation said of its failure."""

    case: str
    operation: str
    fault: str
    outcome: str
    struck: bool
    seconds: float
    violations: list[str] = field(default_factory=list)
    cause: str = ""


def pairs(seed: int) -> list[Pair]:
    """Return every operation with every fault that applies to it, in random order."""
    found = [(operation, fault) for operation, fault in product(OPERATIONS, FAULTS) if stores_for(operation, fault)]
    random.Random(seed).shuffle(found)
    return found


def stores_for(operation: Operation, fault: Fault) -> list[tuple[str, ...]]:
    """Return the stores of its repositories with which the fault can come."""
    return [each for each in product(STORES, repeat=operation.repositories) if fault.applies(operation, each)]


def run_round(world: World, seed: int, number: int, pair: Pair | None = None) -> Result:
    """Run a round. :param pair: instead of the one whose turn it is."""
    every = pairs(seed)
    operation, fault = pair or every[number % len(every)]
    rng = random.Random(f"{seed} {number}")
    stores = rng.choice(stores_for(operation, fault))
    encrypted = rng.random() < 0.4 and (True, world.formats[0]) in world.ids
    size = int(world.size(encrypted) * 1.5 * rng.random() ** 2) + 4096 if fault.tmpfs and not fault.strike else 0
    moment = rng.uniform(0, 1.05) * fault.share * duration(world, operation) if fault.strike else 0.0
    words = [operation.name, fault.name, "→".join(stores)]
    words += ["encrypted"] * encrypted + [f"after {moment:.2f} s"] * bool(fault.strike)
    case_line = f"--seed {seed} --round {number} ({', '.join(words)})"
    started = time.monotonic()
    with make_case(world, rng, stores, encrypted, fault.tmpfs) as case:
        case.free = size
        result = Result(case_line, operation.name, fault.name, "", False, 0.0)
        outcome, result.violations = run_case(case, operation, fault, moment)
        result.outcome, result.struck, result.cause = outcome.name, case.struck, cause_of(outcome)
        result.seconds = time.monotonic() - started
    return result


def run_case(case: Case, operation: Operation, fault: Fault, moment: float) -> tuple[Outcome, list[str]]:
    """Run an operation under a fault, and return its outcome and what is violated."""
    formats = [format for format in case.world.formats[1:] if format in operation.formats]
    case.names["format"] = case.rng.choice(formats)
    case.names["id"] = case.world.ids[case.encrypted, case.names["format"]]
    operation.prepare(case)
    before = snapshot(case.scene)
    with fault.armed(case, operation):
        outcome, violations = run_child(case, operation, fault, moment)
    case.settle()
    violations += aftermath(
        case.scene,
        before,
        outcome,
        may_remove=lambda folder: operation.may_remove(case, folder),
        may_make=case.makes,
    )
    violations += operation.check(case, before, outcome)
    if case.rng.random() < RESTORABLE:
        violations += verify_restorable(case, before)
    if fault.name == "none" and outcome.status != 0:
        violations.append(f"exit status {outcome.status} without a fault: {outcome.stderr[-500:]}")
    if violations:
        violations.append(f"(what it printed: {outcome.stdout[-500:]} {outcome.stderr[-1500:]})")
    return outcome, violations


def run_child(case: Case, operation: Operation, fault: Fault | None, moment: float) -> tuple[Outcome, list[str]]:
    """Run an operation in a process of its own, and strike at a moment."""
    arguments = [word.format_map(case.names) for word in operation.arguments.split(" ")]
    ready, theirs = os.pipe()
    order = json.dumps({**case.child, "ready": theirs})
    output = [case.world.top / f"{case.token}.{name}" for name in ("out", "err")]
    violations: list[str] = []
    with output[0].open("wb") as out, output[1].open("wb") as err:
        child = subprocess.Popen(
            [*PROGRAM, order, *arguments],
            env=case.env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=[theirs],
            start_new_session=True,
            preexec_fn=_no_ignored_interrupt,
        )
    os.close(theirs)
    try:
        os.read(ready, 1)
        if fault is not None and fault.strike:
            ends(child, moment)
            case.struck = fault.strike(case, operation, child)
        if case.limit is not None and not ends(child, case.limit):
            child.send_signal(signal.SIGINT)  # as somebody does who has waited long enough
        if not ends(child, LONGEST):
            tree = [" ".join(one.cmdline())[:200] for one in descendants(child)]
            violations.append(f"hangs: it runs after {LONGEST:.0f} s more, with {tree}")
    finally:
        os.close(ready)
        child.kill()
        status = child.wait()
    texts = [path.read_text(errors="replace") for path in output]
    for path in output:
        path.unlink()
    return Outcome(status=status, stdout=texts[0], stderr=texts[1]), violations


def _no_ignored_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts background jobs with it ignored


def cause_of(outcome: Outcome) -> str:
    """Return the lines about a failure."""
    lines = outcome.stderr.splitlines()
    return " / ".join(line for line in lines if line.startswith(("pgbackup", "hint: "))) if outcome.status > 0 else ""


def ends(child: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def duration(world: World, operation: Operation) -> float:
    """Return how long an operation takes without a fault, in seconds; measured once."""
    if operation.name not in world.durations:
        with make_case(world, random.Random(0), ("local",) * operation.repositories, False) as case:
            case.names |= {"format": "custom", "id": world.ids[False, "custom"]}
            operation.prepare(case)
            started = time.monotonic()
            run_child(case, operation, None, 0.0)
            world.durations[operation.name] = time.monotonic() - started
    return world.durations[operation.name]


def report(
    results: Sequence[Result],
    seed: int,
    seconds: float,
    part: str,
    operations: Sequence[str],
    faults: Sequence[str],
) -> dict[str, object]:
    """Return what the page of the campaign shows."""
    names = sorted({result.outcome for result in results})

    def counts(chosen: Sequence[Result]) -> list[object]:
        outcomes = Counter(result.outcome for result in chosen)
        return [len(chosen), sum(one.struck for one in chosen), *(outcomes[name] for name in names)]

    def rows(key: str, wanted: Sequence[str]) -> Iterator[list[object]]:
        for name in wanted:
            if chosen := [result for result in results if getattr(result, key) == name]:
                yield [name, *counts(chosen), sum(bool(one.violations) for one in chosen)]

    columns = ["cases", "fault met", *names, "violations"]
    met = Counter((result.operation, result.fault) for result in results)
    return part_result(
        part,
        seconds=seconds,
        parameters={"seed": seed, "rounds": len(results)},
        cases=len(results),
        outcomes=Counter(result.outcome for result in results),
        violations=[{"case": result.case, "what": line} for result in results for line in result.violations],
        tables={
            "By operation": (["operation", *columns], list(rows("operation", operations))),
            "By fault": (["fault", *columns], list(rows("fault", faults))),
            "Operations and faults": (
                ["operation", *faults],
                [[name, *(met[name, fault] for fault in faults)] for name in operations],
            ),
        },
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    parser.add_argument("--minutes", type=float, help="stop after so many, whatever --rounds says")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, help="only this one")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    first, count = (arguments.round, 1) if arguments.round is not None else (arguments.first, arguments.rounds)
    results: list[Result] = []
    started = time.monotonic()
    stopped: list[int] = []
    for one in (signal.SIGTERM, signal.SIGINT):  # after the round that runs
        signal.signal(one, lambda number, _: stopped.append(number))
    with make_world() as world:
        for number in range(first, first + count):
            if stopped or (arguments.minutes and time.monotonic() - started > arguments.minutes * 60):
                break
            result = run_round(world, arguments.seed, number)
            results.append(result)
            missed = "" if result.struck or result.fault == "none" else ", the fault was not met"
            print(f"{result.case}: {result.outcome}{missed} [{result.seconds:.1f} s]", flush=True)
            if result.cause:
                print(f"  {result.cause}", flush=True)
            for line in result.violations:
                print(f"  VIOLATION {line}", flush=True)
    operations, faults = [one.name for one in OPERATIONS], [one.name for one in FAULTS]
    found = report(results, arguments.seed, time.monotonic() - started, "matrix", operations, faults)
    write_result(found, arguments.json)
    violated = sum(bool(result.violations) for result in results)
    print(f"{len(results)} rounds: {found['outcomes']}; {violated} violate something")
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
