"""One case of :mod:`.crash_points`: a verb is killed at a step, what is left is checked, and the verb runs again."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from airflow_pgbackup import private_directory
from airflow_pgbackup.backup import leftovers
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.repository.evidence import is_complete, read_evidence

from . import aftermath
from .aftermath import Scene, Snapshot
from .crash_verbs import Verb
from .crash_world import World, age
from .steps import Steps

LIMIT = 300.0
"""Seconds in which a run must end."""

_MAY_BE_DONE = "may have restored these objects"
"""In the hint of a restore whose transaction was over before it was noted."""

_PR_SET_CHILD_SUBREAPER = 36


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
            if not (
                self.verb.refusal
                and re.search(self.verb.refusal, again.error)
                and (self.retry == "fresh" or self.verb.versioned or _MAY_BE_DONE in again.error)
            ):
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
        for line in aftermath.check_listing(scene):
            if "note[deleted]" not in line:  # a bucket with versions holds what an undelete has not restored
                yield f"at last: {line}"
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
