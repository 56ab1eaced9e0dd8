"""Guard our sessions with a rehearsal's server, which the SQL of the dump may control.

That SQL runs as a superuser: it can stop the server, replace it with another program, or fill its catalogs. The server
may then not answer, ignore settings and cancel requests, or send endless results, which libpq collects in memory. Its
tables may fill the disk.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from airflow_pgbackup.backup.rehearsal import disk_space
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.connection.open_sessions import OpenSessions
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.quantities import human_bytes

_MOST_MEMORY = 4 << 30  # bytes by which this process may grow: far more than two million tables need
_INTERVAL = 0.25  # seconds between two checks of time and memory
_CHECK_DUMP = "Check the dump for SQL that affects its server."


@contextmanager
def guarded_sessions(server: RehearsalServer, cancel: Cancel, seconds: float, stop: Cancel) -> Iterator[None]:
    """Close our sessions with a server when `cancel` is set, after some time, or if they take too much memory or disk.

    :param seconds: the time.
    :param stop: set at that moment, to stop the client programs, which also read what the server sends.
    :raises Canceled: `cancel` was set.
    :raises NotProven: the sessions took too long, or too much memory or disk.
    """
    sessions, over = OpenSessions(), threading.Event()
    server.params = replace(server.params, sessions=sessions)
    ended: list[NotProven] = []

    def end(why: str, hint: str = _CHECK_DUMP) -> None:
        ended.append(NotProven(why, hint=hint))
        sessions.break_off(why)
        stop.set()

    def watch() -> None:
        until, start = time.monotonic() + seconds, _memory()
        while not over.wait(_INTERVAL) and not sessions.broken:
            if time.monotonic() > until:
                end(f"reading the copy on {server.label} took more than {seconds:g} s")
            elif _memory() - start > _MOST_MEMORY:
                end(f"reading the copy took more than {human_bytes(_MOST_MEMORY)} of memory")
            elif server.local and disk_space.is_nearly_full(server.directory):
                end("the copy has nearly filled the disk, which other tasks need too", disk_space.larger_disk())

    unregister = cancel.on_set(lambda: sessions.break_off("the task was canceled"))
    watcher = threading.Thread(target=watch, name="watch sessions", daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        cancel.check()
        if ended:
            raise ended[0] from error
        raise
    finally:
        over.set()
        watcher.join()
        unregister()


def _memory() -> int:
    """Return the resident memory of this process in bytes, see proc(5)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
