"""Send the parts of a multipart upload in parallel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from airflow_pgbackup.repository.s3.bucket import Bucket

# How long an abort waits for requests in flight: Airflow kills a task five seconds after asking it to stop.
STOP_SECONDS = 3.0


class Parts:
    """The parts of one multipart upload being sent, with limits on parallel requests and on bytes in memory."""

    def __init__(self, bucket: Bucket, send: Callable[[int, Any], dict[str, Any]]) -> None:
        self._send = send
        self._limit = bucket.options.memory
        self._pool = ThreadPoolExecutor(bucket.options.max_concurrency, thread_name_prefix="pgbackup-s3")
        self._held = 0
        self._freed = threading.Condition()
        self._futures: list[Future[dict[str, Any]]] = []
        self._failed: BaseException | None = None

    def make_room(self, size: int) -> None:
        """Wait until one more part of this size may be held; raise when a part has failed."""
        with self._freed:
            # The next part and one in flight are always allowed, however large; otherwise nothing would overlap.
            while self._held > max(size, self._limit - size) and self._failed is None:
                self._freed.wait()
        if self._failed is not None:
            raise self._failed

    def add(self, number: int, data: Any, size: int) -> None:
        with self._freed:
            self._held += size
        future = self._pool.submit(self._send, number, data)
        future.add_done_callback(lambda done: self._done(done, size))
        self._futures.append(future)

    def finish(self) -> list[dict[str, Any]]:
        """Wait for all parts, and return them."""
        try:
            return [future.result() for future in self._futures]
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> bool:
        """Stop sending, and return whether requests are still in flight."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        return any(not future.done() for future in self._futures)

    def settle(self) -> None:
        """Wait a little for the requests in flight."""
        wait(self._futures, timeout=STOP_SECONDS)

    def _done(self, future: Future[dict[str, Any]], size: int) -> None:
        with self._freed:
            self._held -= size
            if not future.cancelled() and future.exception() is not None and self._failed is None:
                self._failed = future.exception()
            self._freed.notify_all()
