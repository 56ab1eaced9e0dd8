"""Faults at random moments: killed tools, tasks and workers, terminated backends, a bad store."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import psutil
from celery_airflow import READY, CeleryAirflow
from faulty_s3 import FaultyS3
from machines import Machine

from tests.campaign.soaking.companion import Companion
from tests.campaign.soaking.samples import WORKERS, process_groups

TOOLS = ("pg_dump", "pg_restore", "pg_dumpall", "psql")
_PATIENCE = 60.0  # seconds that a fault waits for its victim
_BOOT = 600.0  # seconds for a worker to start


class Faults(Companion):
    """Injects one fault after another, in a thread, with pauses.

    :param pause: the mean of seconds between two faults.
    :ivar injected: how often each kind happened. :ivar missed: how often there was no victim.
    :ivar events: when, in seconds, and what. :ivar down: a worker, and from when to when it took no tasks.
    """

    def __init__(self, platform: CeleryAirflow, proxy: FaultyS3, seed: int, pause: float) -> None:
        self.injected: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.errors: list[str] = []
        self.events: list[tuple[float, str]] = []
        self.down: list[tuple[str, float, float]] = []
        self._platform, self._proxy, self._pause = platform, proxy, pause
        self._chance = random.Random(seed)
        super().__init__()
        self._started = time.monotonic()
        self._kinds: dict[str, Callable[[], bool]] = {
            "SIGKILL to a PostgreSQL tool": self._kill_tool,
            "SIGKILL to a task": lambda: self._kill_task(also_supervisor=False),
            "SIGKILL to a task and its supervisor": lambda: self._kill_task(also_supervisor=True),
            "pg_dump's backend terminated": self._terminate,
            "S3 answers 503": lambda: self._s3("*", "answer", times=self._chance.randint(1, 40)),
            "S3 resets connections": lambda: self._s3("*", "reset", times=self._chance.randint(1, 20)),
            "S3 loses the reply to a write": lambda: self._s3("PutObject", "lose", times=self._chance.randint(1, 3)),
            "S3 stalls": lambda: self._s3("*", "", times=self._chance.randint(1, 4), seconds=20.0),
            "a worker is switched off and on": self._restart,
        }

    def _run(self) -> None:
        order: list[str] = []
        while not self._stop.wait(self._chance.uniform(0.5, 1.5) * self._pause):
            if not order:  # each kind comes once before any comes again
                order = self._chance.sample(list(self._kinds), len(self._kinds))
            kind = order.pop()
            try:
                done = self._kinds[kind]()
            except Exception as error:
                self.errors.append(f"{kind}: {type(error).__name__}: {str(error).splitlines()[0][:300]}")
                continue
            (self.injected if done else self.missed)[kind] += 1
            self.events.append((time.monotonic() - self._started, kind))
            print(f"{time.monotonic() - self._started:6.0f} s  {kind}{'' if done else ': no victim'}", flush=True)

    def _wait(self, attempt: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and not self._stop.is_set():
            try:
                if attempt():
                    return True
            except psutil.Error:  # it has just ended
                pass
            time.sleep(0.1)
        return False

    def _victims(self, names: tuple[str, ...]) -> list[psutil.Process]:
        groups = process_groups()
        found = []
        for process in [each for name in WORKERS for each in groups.get(name, ())]:
            try:
                if process.name() in names and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _kill_tool(self) -> bool:
        def attempt() -> bool:
            victims = self._victims(TOOLS)
            if victims:
                self._chance.choice(victims).kill()
            return bool(victims)

        return self._wait(attempt)

    def _kill_task(self, *, also_supervisor: bool) -> bool:
        """Kill the task that runs a tool: the parent of the tool's leader; its own parent is Airflow's supervisor."""

        def attempt() -> bool:
            victims = self._victims(TOOLS)
            if not victims:
                return False
            leader = self._chance.choice(victims).parent()
            while leader is not None and "_leader.py" not in " ".join(leader.cmdline()):
                leader = leader.parent()
            task = leader and leader.parent()
            supervisor = task and task.parent()
            if not task or not supervisor:
                return False
            if also_supervisor:
                supervisor.kill()
            task.kill()
            return True

        return self._wait(attempt)

    def _terminate(self) -> bool:
        def attempt() -> bool:
            with closing(self._platform.source.params.connect()) as session:
                query = (
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pg_dump'"
                    " order by random() limit 1"
                )
                return bool(session.execute(query).fetchall())

        return self._wait(attempt)

    def _s3(self, operation: str, kind: str, *, times: int, seconds: float = 0.0) -> bool:
        self._proxy.faults[:] = [each for each in self._proxy.faults if each.hits < each.times]
        fault = self._proxy.fault(operation, kind, times=times, seconds=seconds)
        return self._wait(lambda: fault.hits > 0)

    def _restart(self) -> bool:
        machine = self._chance.choice(self._platform.machines)
        begun = time.monotonic() - self._started
        boots = self._boots(machine)
        machine.kill()
        try:
            self._platform.start_worker(machine)
        except AssertionError:  # on a busy machine it takes longer than that waits
            self._platform.wait(lambda: self._boots(machine) > boots, f"{machine.name} takes tasks", _BOOT)
        self.down.append((machine.name, begun, time.monotonic() - self._started))
        return True

    @staticmethod
    def _boots(machine: Machine) -> int:
        return machine.log.read_text(errors="replace").count(READY)
