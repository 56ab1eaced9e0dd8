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
import ctypes
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import psutil

from airflow_pgbackup import private_directory
from airflow_pgbackup.backup import leftovers
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.repository.evidence import is_complete, read_evidence

from . import aftermath
from .aftermath import Scene, Snapshot
from .crash_verbs import VERBS, Verb
from .crash_world import Servers, World, age, start
from .steps import Steps

RETRIES = ("same", "fresh", "none")
"""A retry of the same task, as Airflow does it; a call that knows nothing of the one that was killed; and none."""
LIMIT = 300.0
"""Seconds in which a run must end."""

_PR_SET_CHILD_SUBREAPER = 36


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
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return 1 if campaign.violations else 0


def adopt_orphans() -> None:
    """Make what a killed run leaves running a child of this process, which can then tell it from others."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sys.dont_write_bytecode = True


@dataclass(frozen=True)
class Ended:
    """How a run ended. :param steps: its steps, a line each. :param error: of a run that failed."""

    status: int
    steps: list[str]
    error: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


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
        ended = Ended(0, [], "")
        try:
            case = Case(world, verb, retry)
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
        return {
            "part": "crash_points",
            "date": datetime.now(timezone.utc).isoformat(),
            "seconds": round(seconds),
            "parameters": parameters,
            "cases": self.cases,
            "outcomes": dict(self.outcomes),
            "violations": self.violations,
            "tables": {"A kill at each step of each verb": {"columns": columns, "rows": self.rows}},
            "plots": [],
            "steps": self.steps,
        }


def spread(steps: int, most: int | None) -> list[int]:
    """Return the numbers of steps, from 1; at most so many, evenly spread."""
    count = min(steps, most or steps)
    return [1 + number * steps // count for number in range(count)]


class Case:
    """One world, in which a verb is run, killed and run again."""

    def __init__(self, world: World, verb: Verb, retry: str) -> None:
        self.world, self.verb, self.retry = world, verb, retry
        self.violations: list[str] = []
        self.outcome = "not run again"

    def run(self, number: int | None) -> Ended:
        world, verb = self.world, self.verb
        with suppress(PgBackupError):  # init: there is none
            world.ids = [backup.id for backup in world.backups(world.repository("here"))]
        verb.prepare(world)
        names = ["here", "there"] if verb.repository == "new" else sorted({"here", verb.repository})
        scene = Scene(
            repositories=[world.repository(name) for name in names],
            tmp=world.tmp,
            servers=[world.servers.postgres.params] if verb.postgres and world.servers.postgres else [],
            secrets=world.secrets,
            context=world.context(),
        )
        before = aftermath.snapshot(scene)
        children = set(psutil.Process().children())
        seed = "the same task"
        ended = self._child(number, seed)
        self.violations += wait_for_orphans(children)
        if not ended.killed and ended.status:
            self.violations.append(f"the run failed: {ended.error}")
        self._check(scene, before, "killed" if ended.killed else "same")
        if ended.killed and self.retry != "none":
            again = self._child(None, seed if self.retry == "same" else None)
            self._judge(again)
            self.violations += wait_for_orphans(children)
            self._check(scene, before, self.retry)
        if verb.repository == "new" and (not ended.killed or self.retry != "none"):
            scene = Scene(**{**vars(scene), "repositories": [*scene.repositories, world.repository("new")]})
        self.violations += self._at_last(scene, before)
        return ended

    def _judge(self, again: Ended) -> None:
        self.outcome = "succeeded"
        if again.status:
            self.outcome = "refused, as it is done"
            if not (self.verb.refusal and re.search(self.verb.refusal, again.error) and self.retry == "fresh"):
                self.violations.append(f"the retry ({self.retry}) failed: {again.error}")
                self.outcome = "failed"

    def _child(self, number: int | None, seed: str | None) -> Ended:
        """Run the verb in a process of its own."""
        log = self.world.directory / "log"
        log.write_text("")
        pid = os.fork()
        if not pid:
            _in_child(self.world, self.verb, number, seed, log)
        end = time.monotonic() + LIMIT
        while not (done := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return Ended(1, [], f"does not end: {log.read_text()[-2000:]}")
            time.sleep(0.005)
        status = os.waitstatus_to_exitcode(done[1])
        text = log.read_text()
        steps = [line.removeprefix("STEP ") for line in text.splitlines() if line.startswith("STEP ")]
        self.violations += [f"log: {line}" for line in aftermath._secrets_in("log", text, _only_secrets(self.world))]
        return Ended(status, steps, text.partition("ERROR ")[2] or text[-2000:])

    def _check(self, scene: Scene, before: Snapshot, phase: str) -> None:
        """Check what holds at any time, while leftovers are still there."""
        verb, world = self.verb, self.world
        removed = {folder for _, folder in sorted(before.backups)[: verb.removes]}
        self.violations += [
            *(f"{phase}: {line}" for line in check_sessions(scene)),
            *(f"{phase}: {line}" for line in check_older(scene, before, removed)),
            *(f"{phase}: {line}" for line in aftermath.check_new(scene, before)),
            *(f"{phase}: {line}" for line in verb.check(world, phase)),
        ]
        if verb.repository == "new":
            return
        repository = world.repository(verb.repository)
        backups = world.backups(repository)
        for backup in backups:
            if not is_complete(read_evidence(repository, backup.series, backup.id)):
                self.violations.append(f"{phase}: {backup.folder} is listed, but not complete")
        old = {folder for uri, folder in before.backups if uri == repository.uri}
        now = {backup.folder for backup in backups}
        most = verb.makes * (2 if verb.repeats and phase == "fresh" else 1)
        least = 0 if phase == "killed" else verb.makes
        if not least <= len(now - old) <= most:
            self.violations.append(f"{phase}: {len(now - old)} new backups, expected {least} to {most}")
        if phase != "killed" and len(old - now) != verb.removes:
            self.violations.append(f"{phase}: {len(old - now)} backups were removed, expected {verb.removes}")

    def _at_last(self, scene: Scene, before: Snapshot) -> Iterator[str]:
        """Sweep after the grace period, and check that nothing is left."""
        world = self.world

        def makes(name: str) -> bool:
            return name == world.database or name.startswith(f"{world.database}_")

        for path in world.tmp.iterdir():
            age(path)
        yield from (f"at last: leftovers: {line}" for line in aftermath.check_leftovers(scene, before, makes))
        yield from (f"at last: {line}" for line in aftermath.check_listing(scene))
        if world.store == "local":
            for repository in scene.repositories:
                root = Path(repository.uri.removeprefix("file://"))
                empty = [path for path in root.rglob("*") if path.is_dir() and not any(path.iterdir())]
                yield from (f"at last: {path} is empty" for path in empty)


def check_older(scene: Scene, before: Snapshot, removed: set[str]) -> Iterator[str]:
    """Yield what differs of the older backups, except for a pin that the verb sets or removes."""
    for line in aftermath.check_older(scene, before, removed.__contains__):
        if "/pin.json is " not in line:
            yield line


def wait_for_orphans(known: set[psutil.Process]) -> list[str]:
    """Wait until each process that a run has left has ended; return those that do not."""
    end = time.monotonic() + aftermath.PATIENCE
    while left := [child for child in psutil.Process().children() if child not in known]:
        for child in left:
            with suppress(psutil.NoSuchProcess, ChildProcessError):
                if child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, 0)
        if time.monotonic() > end:
            for child in left:
                child.kill()
            return [f"survives: {child}" for child in left]
        time.sleep(0.01)
    return []


def check_sessions(scene: Scene) -> Iterator[str]:
    """Yield the sessions of tools that do not end. Processes are this one's children, see :func:`wait_for_orphans`."""
    end = time.monotonic() + aftermath.PATIENCE
    for server in scene.servers:
        while (sessions := aftermath._names(server, aftermath.SESSIONS)) and time.monotonic() < end:
            time.sleep(0.05)
        yield from (f"a session survives: {session}" for session in sessions)


def _only_secrets(world: World) -> Scene:
    return Scene(repositories=[], tmp=world.tmp, secrets=world.secrets)


def _in_child(world: World, verb: Verb, number: int | None, seed: str | None, log: Path) -> None:
    """Run the verb and exit."""
    status = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(world.tmp)
        # What others have in /tmp takes a different number of steps each time.
        leftovers.sweep = lambda *parents: private_directory.sweep(*(p for p in parents if p != "/tmp"))

        def tell(line: str) -> None:
            os.write(descriptor, f"STEP {line}\n".encode())

        context = world.context(seed=seed)
        steps = Steps(number, tell)
        steps.begin()
        verb.act(world, context)
        steps.step("the end, before anybody gets the result")
        status = 0
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        os.write(2, f"ERROR {error!r} {getattr(error, 'hint', '')}\n{text}".encode())
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
