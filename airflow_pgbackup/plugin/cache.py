"""What the page has read, for a minute: Airflow's own pages never wait for a repository.

Repositories are read in threads of this module, one at a time for each, never in those in which Airflow answers its own
requests. A page that finds nothing read yet waits a few seconds; one that finds an old reading shows it, while the next
is on its way.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from airflow_pgbackup.errors import PgBackupError

log = logging.getLogger(__name__)

T = TypeVar("T")

LIFETIME = 60.0
"""Seconds for which a reading is shown without another."""
AFTER_A_PROBLEM = 10.0
"""Seconds after which a reading that failed is tried again; at least as long as it took, so that repositories which do
not answer leave the threads to the others for half of the time."""
PATIENCE = 8.0
"""Seconds for which a page waits for the first reading."""
THREADS = 2
MOST = 200
"""Readings that are kept, if visitors choose the keys."""
MOST_WAITING = 30
"""Readings that wait for a thread, if visitors choose the keys; a request for another one gets an error that says to
reload the page."""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """:param value: the last one that was read; None: nothing yet. :param age: of the value, seconds.
    :param problem: why the last attempt failed. :param running: whether it is being read now."""

    value: T | None
    age: float
    problem: PgBackupError | None
    running: bool


@dataclass
class _Entry(Generic[T]):
    read: Callable[[], T]
    value: T | None = None
    problem: PgBackupError | None = None
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
    :param bounded: visitors choose the keys; False: they come from the configuration, and all are kept.
    """

    def __init__(
        self,
        *,
        lifetime: float = LIFETIME,
        patience: float = PATIENCE,
        threads: int = THREADS,
        bounded: bool = True,
    ) -> None:
        self._lifetime, self._patience, self._bounded = lifetime, patience, bounded
        self._lock = threading.Lock()
        self._entries: dict[object, _Entry[T]] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pgbackup-page")

    async def get(self, key: object, read: Callable[[], T]) -> Reading[T]:
        """Return what was read last, and have it read again if that is older than the lifetime.

        :param read: called in a thread of this cache.
        """
        entry, future = self._start(key, read)
        if entry.value is None and future is not None:
            await asyncio.wait([asyncio.wrap_future(future)], timeout=self._patience)
        with self._lock:
            running = entry.future is not None and not entry.future.done()
            return Reading(entry.value, time.monotonic() - entry.valued, entry.problem, running)

    def _start(self, key: object, read: Callable[[], T]) -> tuple[_Entry[T], Future[None] | None]:
        now = time.monotonic()
        with self._lock:
            entry = self._entries.setdefault(key, _Entry(read))
            entry.used = now
            if self._bounded and len(self._entries) > MOST:
                idle = [name for name, one in self._entries.items() if not one.is_waiting and one is not entry]
                if idle:
                    del self._entries[min(idle, key=lambda name: self._entries[name].used)]
            if entry.future is not None and not entry.future.done():
                return entry, entry.future
            lifetime = self._lifetime
            if entry.problem is not None:
                lifetime = max(min(self._lifetime, AFTER_A_PROBLEM), entry.took)
            if entry.finished is None or now - entry.finished > lifetime:
                if self._bounded and sum(one.is_waiting for one in self._entries.values()) > MOST_WAITING:
                    if entry.value is None:
                        entry.problem = _BUSY
                    return entry, None
                entry.read = read
                entry.future = self._pool.submit(self._read, entry)
            return entry, entry.future

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
