"""Our own sessions in a rehearsal: with a server that obeys whoever wrote the dump, not us.

Its superuser can stop it, put another program in its place, or fill its catalogs. So it need not answer, may ignore
what a session sets and cancels, and may send results without an end, which libpq keeps in memory until they have come.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.connection.open_sessions import OpenSessions
from airflow_pgbackup.postgres.tools.cancel import Cancel

_MOST_MEMORY = 4 << 30  # bytes by which this process may grow: far more than two million tables take
_LOOK = 0.25  # seconds between two looks at the clock and the memory


@contextmanager
def guarded_sessions(place: RehearsalServer, cancel: Cancel, seconds: float, stop: Cancel) -> Iterator[None]:
    """Break off the sessions with the server of a place when asked to stop, after so many seconds, and when they take
    too much memory.

    :param stop: set then, for the tools: pg_dump, too, passes on what the server says.
    :raises Canceled: `cancel` was set. :raises NotProven: it took too long, or too much.
    """
    sessions, over = OpenSessions(), threading.Event()
    place.params = replace(place.params, sessions=sessions)

    def end(why: str) -> None:
        sessions.break_off(why)
        stop.set()

    def watch() -> None:
        until, start = time.monotonic() + seconds, _memory()
        while not over.wait(_LOOK) and not sessions.broken:
            if time.monotonic() > until:
                end(f"{place.label} did not let us look at the copy within {seconds:g} s")
            elif _memory() - start > _MOST_MEMORY:
                end(f"to look at the copy took more than {human_bytes(_MOST_MEMORY)} of memory")

    unregister = cancel.on_set(lambda: sessions.break_off("the task was asked to stop"))
    watcher = threading.Thread(target=watch, name="watch sessions", daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        cancel.check()
        if sessions.broken:
            raise NotProven(sessions.broken, hint="look at what the dump makes its server do") from error
        raise
    finally:
        over.set()
        watcher.join()
        unregister()


def _memory() -> int:
    """Resident bytes of this process; proc(5)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
