"""Cache what the page has read for a minute, so that Airflow's own pages never wait for a repository.

Repositories are read in threads of this module, one at a time for each, never in those in which Airflow answers its own
requests. A page waits for the first reading until a few seconds after that began. If the last reading is a few minutes
old, the page shows it while the next one runs. If it is older, the page waits as for a first one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.threads import DaemonThreads

log = logging.getLogger(__name__)

T = TypeVar("T")

LIFETIME = 60.0
"""Seconds for which a reading is shown without another."""
OLDEST = 300.0
"""Seconds for which a reading of an overview is shown without waiting for the next."""
AFTER_A_PROBLEM = 10.0
"""Seconds before a failed reading is retried. If the attempt took longer than this, the wait is as long as the attempt,
so that a repository that does not answer occupies a thread at most half of the time."""
PATIENCE = 8.0
"""Pages wait for a first reading until this many seconds after it began. Pages opened later do not wait, so a store
that does not answer delays only the first page."""
THREADS = 2
MOST = 200
"""Readings that are kept, if visitors choose the keys."""
MOST_WAITING = 30
"""Readings of a lane that wait for a thread, if visitors choose the keys; a request for another one gets an error that
says to reload the page."""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What a page knows of a repository now.

    :param value: the last one that was read; None: nothing yet.
    :param age: of the value, seconds.
    :param problem: why the last attempt failed.
    :param running: whether it is being read now.
    :param running_for: seconds since that began.
    :param old: whether the value is older than a page may show without a remark: there is no newer one yet.
    """

    value: T | None
    age: float
    problem: PgBackupError | None
    running: bool
    running_for: float = 0.0
    old: bool = False

    @property
    def doubtful(self) -> bool:
        """Whether there is a value, but the repository could not be read again."""
        return self.value is not None and (self.old or self.problem is not None)

    @property
    def awaited(self) -> bool:
        """Whether a page should ask again soon, because what it needs is being read."""
        return self.running and (self.value is None or self.old)

    @property
    def reload_after(self) -> int:
        """Seconds after which a page should ask again; more for a reading that takes long."""
        return min(30, max(3, round(self.running_for / 4)))


@dataclass
class _Entry(Generic[T]):
    read: Callable[[], T]
    lane: object = None
    value: T | None = None
    problem: PgBackupError | None = None
    began: float = 0.0
    finished: float | None = None
    took: float = 0.0
    valued: float = 0.0
    used: float = 0.0
    future: Future[None] | None = field(default=None, repr=False)

    @property
    def is_waiting(self) -> bool:
        return self.future is not None and not self.future.done()


_BUSY = PgBackupError("too many pages are being read", hint="Load the page again in a moment.")


class Cache(Generic[T]):
    """Readings by a key.

    :param lifetime, patience: seconds, see :data:`LIFETIME` and :data:`PATIENCE`.
    :param oldest: seconds, see :data:`OLDEST`; by default the lifetime.
    :param threads: of each lane.
    :param most: readings that are kept, if bounded.
    :param bounded: visitors choose the keys; False: they come from the configuration, and all are kept.
    """

    def __init__(
        self,
        *,
        lifetime: float = LIFETIME,
        patience: float = PATIENCE,
        oldest: float | None = None,
        threads: int = THREADS,
        most: int = MOST,
        bounded: bool = True,
    ) -> None:
        self._lifetime, self._patience, self._bounded = lifetime, patience, bounded
        self._oldest = lifetime if oldest is None else oldest
        self._lock = threading.Lock()
        self._entries: dict[object, _Entry[T]] = {}
        self._threads, self._most = threads, most
        self._pools: dict[object, DaemonThreads] = {}

    async def get(self, key: object, read: Callable[[], T], *, lane: object = None) -> Reading[T]:
        """Return what was read last, and have it read again if that is older than the lifetime.

        If nothing was read yet, or too long ago, wait for the reading as long as the patience allows.

        :param read: called in a thread of this cache.
        :param lane: where readings may wait for each other, such as their repository: one that does not answer holds up
            no other. Lanes come from the configuration, never from visitors.
        """
        asked = time.monotonic()
        entry, future = self._start(key, read, lane)
        if future is not None and self._is_missing(entry, asked):
            left = entry.began + self._patience - time.monotonic()
            if left > 0:  # each wait leaves a callback at the future, which may hang for days
                await asyncio.wait([asyncio.wrap_future(future)], timeout=left)
        with self._lock:
            now = time.monotonic()
            running = entry.is_waiting
            since = now - entry.began if running else 0.0
            old = entry.valued < asked and entry.value is not None and self._is_missing(entry, now)
            return Reading(entry.value, now - entry.valued, entry.problem, running, since, old)

    def _is_missing(self, entry: _Entry[T], now: float) -> bool:
        return entry.value is None or now - entry.valued > self._oldest

    def _start(self, key: object, read: Callable[[], T], lane: object) -> tuple[_Entry[T], Future[None] | None]:
        now = time.monotonic()
        with self._lock:
            entry = self._entries.setdefault(key, _Entry(read, lane))
            entry.used = now
            if self._bounded and len(self._entries) > self._most:
                idle = [name for name, one in self._entries.items() if not one.is_waiting and one is not entry]
                if idle:
                    del self._entries[min(idle, key=lambda name: self._entries[name].used)]
            if entry.future is not None and not entry.future.done():
                return entry, entry.future
            lifetime = self._lifetime
            if entry.problem is not None:
                lifetime = max(min(self._lifetime, AFTER_A_PROBLEM), entry.took)
            if entry.finished is None or now - entry.finished > lifetime:
                waiting = sum(one.is_waiting for one in self._entries.values() if one.lane == lane)
                if self._bounded and waiting > MOST_WAITING:
                    if self._is_missing(entry, now):
                        entry.problem = _BUSY
                    return entry, None
                entry.read = read
                entry.began = now
                entry.future = self._pool(lane).submit(self._read, entry)
            return entry, entry.future

    def _pool(self, lane: object) -> DaemonThreads:
        if lane not in self._pools:
            self._pools[lane] = DaemonThreads(self._threads, "pgbackup-page")
        return self._pools[lane]

    def _read(self, entry: _Entry[T]) -> None:
        value, problem = None, None
        started = time.monotonic()
        try:
            value = entry.read()
        except PgBackupError as error:
            problem = error
        except Exception as error:  # a defect of ours, or of a library: the log has it, the page its class
            log.exception("reading a repository for the Backups page failed")
            problem = PgBackupError(f"internal error: {type(error).__name__}", hint="See the API server's log.")
        with self._lock:
            entry.finished = time.monotonic()
            entry.took = entry.finished - started
            entry.problem = problem
            if value is not None:
                entry.value, entry.valued = value, entry.finished
