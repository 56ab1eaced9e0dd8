"""Waiting for threads: results in order, the first failure, and signals that wake nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from airflow_pgbackup.threads import DaemonThreads, completed, result_of, run_each


class Interrupted(BaseException):
    pass


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Raise :class:`Interrupted` in the main thread by a signal that another thread, the caller, receives."""

    def handler(*_: object) -> None:
        raise Interrupted

    old = signal.signal(signal.SIGALRM, handler)
    yield lambda: signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
    signal.signal(signal.SIGALRM, old)


def test_results_are_in_the_order_of_the_items() -> None:
    second = threading.Event()

    def work(number: int) -> int:
        if number == 2:
            second.set()
        else:
            assert second.wait(60)
        return 10 * number

    with ThreadPoolExecutor(2) as pool:
        assert run_each(pool, work, [1, 2]) == [10, 20]


def test_daemon_threads_are_a_pool() -> None:
    meet = threading.Barrier(2)

    def work(number: int) -> int:
        if number < 2:
            meet.wait(60)
        if number == 2:
            raise ValueError("2 failed")
        return 10 * number

    with DaemonThreads(2, "test") as pool:
        assert list(pool.map(work, [0, 1, 3, 4])) == [0, 10, 30, 40]
        with pytest.raises(ValueError, match=r"^2 failed$"):
            list(pool.map(work, [3, 2]))
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(work, 1)


def test_a_closed_pool_cancels_what_has_not_begun() -> None:
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(60)

    pool = DaemonThreads(1, "test")
    running, waiting = pool.submit(work), pool.submit(work)
    assert begun.wait(60)
    pool.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    go.set()
    pool.shutdown()
    assert running.result() is None


def test_a_process_ends_while_a_call_hangs() -> None:
    code = """
        import asyncio, time
        from airflow_pgbackup.interruption import request_threads
        from airflow_pgbackup.plugin.cache import Cache

        def overview():
            with request_threads(4) as pool:
                return list(pool.map(time.sleep, [600] * 9))

        found = asyncio.run(Cache(patience=1.0).get("hard mount", overview))
        print("running" if found.running else "ended")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "running\n"


def test_nothing_to_do() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert run_each(pool, int, []) == []


def test_the_first_failure_is_raised_when_it_occurs_and_cancels_what_has_not_begun() -> None:
    caught, begun = threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise ValueError("2 failed")
        assert caught.wait(60)

    with ThreadPoolExecutor(2) as pool:
        blocked = pool.submit(work, 0)
        with pytest.raises(ValueError, match=r"^2 failed$"):
            run_each(pool, work, [2, 1, *range(3, 100)])
        caught.set()
        result_of(blocked)
    assert len(begun) < 100


def test_futures_come_as_they_end() -> None:
    first: Future[int] = Future()
    second: Future[int] = Future()
    ended = completed([first, second])
    second.set_result(2)
    assert next(ended) is second
    first.cancel()
    assert next(ended) is first
    assert list(ended) == []


@pytest.mark.parametrize("wait", [result_of, lambda future: list(completed([future]))])
def test_a_signal_that_does_not_wake_the_main_thread(
    interrupt: Callable[[], None], wait: Callable[[Future[None]], object]
) -> None:
    waiting, over = threading.Event(), threading.Event()

    def work() -> None:
        assert waiting.wait(60)
        interrupt()
        over.wait(60)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        with pytest.raises(Interrupted):  # noqa: PT012  the signal may come before the wait
            waiting.set()
            wait(future)
        assert not future.done()
        over.set()
