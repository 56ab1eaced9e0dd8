"""Wait for other threads without missing a signal.

Python runs the handler of a signal between two calls in the main thread. A signal that comes just before a call blocks,
or that another thread receives, does not interrupt the call, and waits for its end. So nothing here blocks for long.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

TICK = 0.5
"""The longest that a call blocks, in seconds."""

_T = TypeVar("_T")
_Item = TypeVar("_Item")


def result_of(future: Future[_T]) -> _T:
    """Return the result of a future, or raise its error."""
    return next(completed([future])).result()


def run_each(pool: Executor, work: Callable[[_Item], _T], items: Iterable[_Item]) -> list[_T]:
    """Call a function with each item in the threads of a pool, and return the results in the order of the items.

    :raises Exception: that of the first call that fails; the calls that have not begun are canceled.
    """
    futures = [pool.submit(work, item) for item in items]
    try:
        for future in completed(futures):
            future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    return [future.result() for future in futures]


def completed(futures: Iterable[Future[_T]]) -> Iterator[Future[_T]]:
    """Yield futures in the order in which they end, as :func:`concurrent.futures.as_completed` does."""
    ended: queue.SimpleQueue[Future[_T]] = queue.SimpleQueue()
    left = 0
    for future in futures:
        future.add_done_callback(ended.put)
        left += 1
    while left:
        try:
            future = ended.get(timeout=TICK)
        except queue.Empty:
            continue
        left -= 1
        yield future
