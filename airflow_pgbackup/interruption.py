"""End an interrupted task within seconds, even if a store never answers.

botocore gives up on a request after three attempts of 60 seconds. Meanwhile pg_dump would keep its locks and its
password file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from airflow_pgbackup.errors import Canceled
from airflow_pgbackup.threads import DaemonThreads

THREADS = 8
"""The most read requests in flight at a time."""
CLEANUP_SECONDS = 4.0
"""How long each step of the cleanup of an interrupted task may take; there are at most three. Airflow kills a task five
seconds after asking it to stop, and prune sweeps what is left."""


def is_interruption(error: BaseException) -> bool:
    """Return whether an error ends a task from outside: a cancel, Ctrl-C, or Airflow's ``execution_timeout``."""
    return isinstance(error, Canceled) or not isinstance(error, Exception)


@contextmanager
def request_threads(count: int = THREADS, name: str = "pgbackup") -> Iterator[Executor]:
    """Yield a pool for requests that only read. After an interruption those on their way are not waited for: the store
    may never answer, and the client gives up after minutes."""
    pool = DaemonThreads(count, name)
    wait = True
    try:
        yield pool
    except BaseException as error:
        wait = not is_interruption(error)
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def clean_up(action: Callable[[], object], *, interrupted: bool, on_timeout: Callable[[], object]) -> None:
    """Run a step of the cleanup after an error.

    :param interrupted: wait for it for :data:`CLEANUP_SECONDS` only; it then goes on in a thread of its own.
    :param on_timeout: called if it has not ended by then.
    """
    if not interrupted:
        action()
        return
    thread = threading.Thread(target=action, name="pgbackup-cleanup", daemon=True)
    thread.start()
    thread.join(CLEANUP_SECONDS)
    if thread.is_alive():
        on_timeout()
