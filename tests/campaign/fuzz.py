"""Fuzzing: what reads input from outside, on valid inputs that were changed.

    .venv/bin/python -m tests.campaign.fuzz --minutes 20 --json fuzz.json
    .venv/bin/python -m tests.campaign.fuzz --target manifest --executions 10000 --seed 7
    .venv/bin/python -m tests.campaign.fuzz --target manifest --replay FILE

Each target runs in a process of its own, which may crash. The time is divided equally. Inputs that violate something
are kept in a directory, which ``--keep`` names. PostgreSQL's own programs decide what is right for archives and
scripts: those of the wheel, and of PGBACKUP_TEST_CLIENT_DIRS.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS), str(_TESTS / "integration")]

from campaign.fuzzing.engine import Found, Target, Violation, execute, fuzz  # noqa: E402
from campaign.fuzzing.targets import TARGETS  # noqa: E402
from campaign.results import part_result, write_result  # noqa: E402

_MEMORY = 4 << 30
"""Bytes of address space of the process of a target."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--minutes", type=float, default=10, help="for all targets together")
    limit.add_argument("--executions", type=int, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=[target.name for target in TARGETS])
    parser.add_argument("--keep", type=Path, default=Path("fuzz-violations"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--replay", type=Path, help="run one input of one target")
    arguments = parser.parse_args()
    chosen = [target for target in TARGETS if target.name in (arguments.target or [target.name])]
    if arguments.replay:
        return _replay(chosen, arguments.replay)
    seconds = None if arguments.executions else arguments.minutes * 60 / len(chosen)
    began = time.monotonic()
    results: dict[str, Found] = {}
    for target in chosen:
        found = results[target.name] = _in_a_process(target, arguments.seed, seconds, arguments.executions)
        reached, lines = found.lines
        print(
            f"{target.name:<14} {found.executions:>9,} executions in {found.seconds:>5.0f} s, kept {found.corpus:>4}, "
            f"{reached}/{lines} lines, {len(found.violations)} violations; "
            + ", ".join(f"{name} {count:,}" for name, count in found.outcomes.most_common(4)),
            flush=True,
        )
        for what in found.violations:
            print(f"    {what}", flush=True)
    report = _report(results, arguments, time.monotonic() - began)
    write_result(report, arguments.json)
    return 1 if report["violations"] else 0


def _replay(chosen: list[Target], file: Path) -> int:
    if len(chosen) != 1:
        sys.exit("--replay needs one --target")
    try:
        print(execute(chosen[0], file.read_bytes()))
    except Violation as violation:
        print(f"violation: {violation}")
        if violation.__cause__:
            raise
        return 1
    return 0


def _in_a_process(target: Target, seed: int, seconds: float | None, executions: int | None) -> Found:
    target.seeds()  # some are made once, by servers, for several targets
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    current = Path(f"/dev/shm/fuzz-{os.getpid()}")
    process = fork.Process(target=_run, args=(target, seed, seconds, executions, current, theirs))
    process.start()
    theirs.close()
    try:
        found: Found = ours.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        found = Found(violations={f"the process ended by {reason}": current.read_bytes()})
    process.join()
    current.unlink(missing_ok=True)
    return found


def _run(
    target: Target, seed: int, seconds: float | None, executions: int | None, current: Path, answer: Connection
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with current.open("wb", buffering=0) as file:

        def note(data: bytes) -> None:
            os.pwrite(file.fileno(), data, 0)
            os.ftruncate(file.fileno(), len(data))

        answer.send(fuzz(target, seed=seed, seconds=seconds, executions=executions, before=note))


def _report(results: dict[str, Found], arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    violations = []
    for name, found in results.items():
        for number, (what, data) in enumerate(found.violations.items(), 1):
            arguments.keep.mkdir(parents=True, exist_ok=True)
            file = arguments.keep / f"{name}-{number}"
            file.write_bytes(data)
            violations.append({"case": f"python -m tests.campaign.fuzz --target {name} --replay {file}", "what": what})
    outcomes: dict[str, int] = {}
    for found in results.values():
        for outcome, count in found.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    rows = [
        [
            name,
            found.executions,
            round(found.seconds),
            sum(count for outcome, count in found.outcomes.items() if outcome.startswith("accepted")),
            found.corpus,
            f"{100 * found.lines[0] / max(found.lines[1], 1):.0f} % of {found.lines[1]}",
            len(found.violations),
        ]
        for name, found in results.items()
    ]
    columns = ["target", "executions", "seconds", "accepted", "inputs kept", "lines reached", "violations"]
    return part_result(
        "fuzz",
        seconds=seconds,
        parameters={"seed": arguments.seed, "minutes": arguments.minutes, "executions": arguments.executions},
        cases=sum(found.executions for found in results.values()),
        outcomes=outcomes,
        violations=violations,
        tables={"Fuzzing": (columns, rows)},
    )


if __name__ == "__main__":
    sys.exit(main())
