"""Clocks that jump, two runs of the same at once, and prune against the other verbs, in real processes.

    python -m tests.campaign.clocks [--part jumps|twins|prune]... [--verb dump]... [--rounds N] [--seed N] [--json FILE]

* ``jumps``: a verb runs once for each of its readings of the clock, which jumps there by an hour or a day, back or
  ahead. The stores' clocks stay right. Then the clock is right again, and the verb runs once more.
* ``twins``: two processes do the same for the same task at the same time.
* ``prune``: prune, its clock right or days ahead, runs at the same time as a dump, an upload, a verification and a
  restore of what it deletes.

Whatever happens, older backups are as they were, what is listed is complete and verifies, an error is one clear cause,
no process survives, and a retry with a right clock succeeds.

Exit status 1 if anything of that is violated.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import psutil

from airflow_pgbackup import private_directory
from airflow_pgbackup.backup import leftovers
from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.errors import PgBackupError

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from . import aftermath
from .aftermath import LATER, Outcome, Scene, Snapshot
from .crash_case import adopt_orphans, check_older, check_sessions, wait_for_orphans
from .crash_verbs import VERBS
from .crash_world import Servers, World, start
from .results import part_result, write_result

HOUR = 3600.0
JUMPS = {"an hour back": -HOUR, "a day back": -24 * HOUR, "an hour ahead": HOUR, "a day ahead": 24 * HOUR}
AT_ONCE = ("dump", "dump-directory", "dump-set", "upload", "upload-directory", "adopt", "adopt-move", "rewrap", "prune")
PRUNED = ("dump", "upload-directory", "verify-directory", "restore-create-directory")
"""What runs at the same time as a prune, which deletes the older backup, that in format directory."""
PARTS = ("jumps", "twins", "prune")


@dataclass(frozen=True)
class Run:
    """A process that runs a verb. :ivar log: its output."""

    name: str
    pid: int
    log: Path

    def wait(self) -> tuple[Outcome, int]:
        """Wait for its end; return its outcome, and how often it has read the clock."""
        _, status = os.waitpid(self.pid, 0)
        text = self.log.read_text()
        readings = [int(line.split()[1]) for line in text.splitlines() if line.startswith("READINGS ")]
        return Outcome(status=os.waitstatus_to_exitcode(status), stderr=text.partition("ERROR\n")[2]), sum(readings)


def spawn(
    world: World,
    name: str,
    *,
    seed: str | None = None,
    seconds: float = 0.0,
    at: int = 1,
    delay: float = 0.0,
) -> Run:
    """Run a verb in a process whose clock is wrong by so many seconds from a reading on."""
    from jumping_clock import JumpingClock

    log = world.directory / f"log-{name}-{time.monotonic_ns()}"
    log.touch()
    pid = os.fork()
    if pid:
        return Run(name, pid, log)
    outcome = Outcome(status=70, stderr="pgbackup: the process ended\n")
    try:
        os.setsid()
        os.environ["TMPDIR"] = tempfile.tempdir = str(world.tmp)
        leftovers.sweep = lambda *parents: private_directory.sweep(*(p for p in parents if p != "/tmp"))
        time.sleep(delay)
        clock = JumpingClock(seconds, at)
        error: BaseException | None = None
        with clock.installed():
            try:
                VERBS[name].act(world, world.context(seed=seed))
            except PgBackupError as found:
                error = found
        outcome = Outcome.of(error)
        with log.open("a") as file:
            file.write(f"READINGS {clock.readings}\n" + (f"ERROR\n{outcome.stderr}" if error else ""))
    except BaseException:
        log.write_text(f"ERROR\n{traceback.format_exc()}")
    finally:
        os._exit(outcome.status)


@dataclass
class Campaign:
    """:ivar rows: by part, those of its table."""

    servers: Servers
    random: random.Random
    violations: list[dict[str, str]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    rows: dict[str, list[list[object]]] = field(default_factory=dict)
    cases: int = 0

    def case(self, store: str, verbs: Sequence[str], action: Callable[[World], list[Run]], how: str) -> int:
        """Run processes in a new world and check; return how often the first one has read the clock."""
        self.cases += 1
        found: list[str] = []
        world = World(self.servers, store, self.cases)
        readings = 0
        try:
            world.ids = [backup.id for backup in world.backups(world.repository("here"))]
            for name in verbs:
                VERBS[name].prepare(world)
            scene = self._scene(world, verbs)
            before = aftermath.snapshot(scene)
            known = set(psutil.Process().children())
            ends = [(run.name, *run.wait()) for run in action(world)]
            readings = ends[0][2]
            for name, outcome, _ in ends:
                self.outcomes[f"{name}: {outcome.name}"] += 1
                found += [f"{name}: {line}" for line in aftermath.check_outcome(scene, outcome)]
            found += wait_for_orphans(known)
            found += check(scene, before, verbs)
            for name in verbs:
                again, _ = spawn(world, name, seed="the same task").wait()
                refused = VERBS[name].refusal
                if again.status and not (refused and re.search(refused, again.stderr)):
                    found.append(f"{name} again: {again.stderr}")
                self.outcomes[f"{name} again: {again.name}"] += 1
                found += [f"{name} again: {line}" for line in aftermath.check_outcome(scene, again)]
            found += wait_for_orphans(known)
            found += [f"after a retry: {line}" for line in check(scene, before, verbs)]
            found += at_last(scene)
        except Exception:
            found.append(f"the case failed: {traceback.format_exc()}")
        finally:
            world.close()
        for what in found:
            self.violations.append({"case": f"{' and '.join(verbs)} in {store}, {how}", "what": what})
            print(f"VIOLATION {' and '.join(verbs)} in {store}, {how}: {what}")
        return readings

    def _scene(self, world: World, verbs: Sequence[str]) -> Scene:
        return Scene(
            repositories=[world.repository("here"), world.repository("there")],
            tmp=world.tmp,
            servers=[world.servers.postgres.params] if world.servers.postgres else [],
            secrets=world.secrets,
            context=world.context(),
        )

    def jumps(self, name: str) -> None:
        """Let the clock jump at each reading of it."""
        for how, seconds in JUMPS.items():
            begun, violations, at, readings = time.monotonic(), len(self.violations), 1, 1
            while at <= readings:

                def action(world: World, seconds: float = seconds, at: int = at) -> list[Run]:
                    return [spawn(world, name, seed="the same task", seconds=seconds, at=at)]

                readings = max(readings, self.case("local", [name], action, f"{how} at reading {at}"))
                at += 1
            wrong = len(self.violations) - violations
            self._row("jumps", [name, how, readings, wrong, round(time.monotonic() - begun)])

    def twins(self, name: str, store: str, rounds: int) -> None:
        """Do the same twice at the same time."""
        begun, violations = time.monotonic(), len(self.violations)
        for number in range(rounds):
            delay = 0.0 if number == 0 else self.random.uniform(0, 0.5)

            def action(world: World, delay: float = delay) -> list[Run]:
                return [spawn(world, name, seed="the same task", delay=late) for late in (0.0, delay)]

            self.case(store, [name], action, f"twice, {delay:.2f} s apart")
        wrong = len(self.violations) - violations
        self._row("twins", [name, store, rounds, wrong, round(time.monotonic() - begun)])

    def prune(self, store: str, rounds: int) -> None:
        """Prune while other verbs use what it deletes."""
        begun, violations = time.monotonic(), len(self.violations)
        for number in range(rounds):
            ahead = 48 * HOUR if number % 3 == 2 else 0.0
            delays = [self.random.uniform(0, 1.0) for _ in (*PRUNED, "prune")]

            def action(world: World, ahead: float = ahead, delays: Sequence[float] = tuple(delays)) -> list[Run]:
                pairs = zip(PRUNED, delays, strict=False)
                runs = [spawn(world, name, seed="the same task", delay=delay) for name, delay in pairs]
                return [*runs, spawn(world, "prune", seconds=ahead, delay=delays[-1])]

            self.case(store, [*PRUNED, "prune"], action, f"prune {ahead / HOUR:.0f} h ahead")
        wrong = len(self.violations) - violations
        self._row("prune", ["against " + ", ".join(PRUNED), store, rounds, wrong, round(time.monotonic() - begun)])

    def _row(self, part: str, row: list[object]) -> None:
        self.rows.setdefault(part, []).append(row)
        print(f"{part}: {row[0]}, {row[1]}: {row[2]} cases, {row[3]} violations, {row[4]} s")

    def report(self, seconds: float, parameters: dict[str, object]) -> dict[str, object]:
        titles = {"jumps": "A clock that jumps", "twins": "Two runs of the same at once", "prune": "Prune, and others"}
        columns = ["verb", "what", "cases", "violations", "seconds"]
        return part_result(
            "clocks",
            seconds=seconds,
            parameters=parameters,
            cases=self.cases,
            outcomes=self.outcomes,
            violations=self.violations,
            tables={titles[part]: (columns, rows) for part, rows in self.rows.items()},
        )


def check(scene: Scene, before: Snapshot, verbs: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with backups, old and new, and with sessions."""
    here = sorted(folder for uri, folder in before.backups if uri == scene.repositories[0].uri)
    removes = max(VERBS[name].removes for name in verbs)
    yield from check_sessions(scene)
    yield from check_older(scene, before, set(here[:removes]))
    yield from aftermath.check_new(scene, before)
    for repository in scene.repositories:
        report = fsck(repository=repository)
        yield from (f"fsck: {finding}" for finding in report.findings if finding.severity == "error")


def at_last(scene: Scene) -> Iterator[str]:
    """Yield what a repair after the grace period leaves behind."""
    later = datetime.now(timezone.utc) + LATER
    for repository in map(aftermath.after_the_grace_period, scene.repositories):
        fsck(repository=repository, repair=True, now=later)
        for finding in fsck(repository=repository, now=later).findings:
            if finding.code in aftermath.LEFTOVERS:
                yield f"after a repair: {finding}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be repeated")
    parser.add_argument("--verb", action="append", help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="of twins and prune, each (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="of the delays (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    parts = arguments.part or PARTS
    adopt_orphans()
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="clocks-", dir="/tmp") as directory,
        start(postgres=True, s3=bool({"twins", "prune"} & set(parts)), directory=Path(directory)) as servers,
    ):
        campaign = Campaign(servers, random.Random(arguments.seed))
        for name in (*AT_ONCE, "dump-verifying", "verify", "sweep"):
            if "jumps" in parts and name in (arguments.verb or [name]):
                campaign.jumps(name)
        for name in AT_ONCE:
            for store in VERBS[name].stores:
                if "twins" in parts and name in (arguments.verb or [name]):
                    campaign.twins(name, store, arguments.rounds)
        for store in ("local", "s3"):
            if "prune" in parts:
                campaign.prune(store, arguments.rounds)
    seconds = time.monotonic() - begun
    report = campaign.report(seconds, {name: value for name, value in vars(arguments).items() if name != "json"})
    print(
        f"{campaign.cases} cases in {seconds:.0f} s, {len(campaign.violations)} violations: {dict(campaign.outcomes)}"
    )
    write_result(report, arguments.json)
    return 1 if campaign.violations else 0


if __name__ == "__main__":
    sys.exit(main())
