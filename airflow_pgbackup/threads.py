"""Run calls in threads that nothing waits for when the process ends, and wait for threads without missing a signal.

Python runs the handler of a signal between two calls in the main thread. A signal that comes just before a call blocks,
or that another thread receives, does not interrupt the call, and waits for its end. So nothing here blocks for long.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, TypeVar

TICK = 0.5
"""The longest that a call blocks, in seconds."""

_T = TypeVar("_T")
_Item = TypeVar("_Item")


class DaemonThreads(Executor):
    """A pool for calls that may never return, such as reads of a mount or a store that does not answer: unlike those of
    ThreadPoolExecutor, its threads do not keep the process from ending. A thread ends when no call waits.

    :param count: how many threads run at once.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._lock = threading.Lock()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def submit(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        future: Future[_T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            if len(self._threads) < self._count:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                thread.start()
                self._threads.add(thread)
            self._calls.append((future, partial(function, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            canceled = list(self._calls) if cancel_futures else []
            if cancel_futures:
                self._calls.clear()
        for future, _ in canceled:
            future.cancel()
        if wait:
            for thread in threads:
                thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._threads.discard(threading.current_thread())
                    return
                future, call = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                _complete(future, call)
            del future, call  # or it would keep them until the next call


def _complete(future: Future[_T], call: Callable[[], _T]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001  raised where the result is awaited
        future.set_exception(error)
    else:
        future.set_result(result)


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
