"""Send the parts of a multipart upload in parallel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from airflow_pgbackup.repository.s3.bucket import Bucket, quoted
from airflow_pgbackup.repository.s3.checksums import CHECKSUMS
from airflow_pgbackup.threads import TICK, result_of

# How long an abort waits for requests in flight: Airflow kills a task five seconds after asking it to stop.
STOP_SECONDS = 3.0


@dataclass(frozen=True)
class Sent:
    """A multipart upload whose parts have been sent, and which is not completed yet.

    :param upload: its id.
    :param parts: their entries for CompleteMultipartUpload.
    :param size: bytes.
    """

    upload: str
    parts: list[dict[str, Any]]
    size: int


class Parts:
    """The parts of one multipart upload, sent by a pool of threads within the bucket's limits of requests and memory.

    :param send: sends the part of a number, and returns its entry for CompleteMultipartUpload.
    """

    def __init__(self, bucket: Bucket, send: Callable[[int, Any], dict[str, Any]]) -> None:
        self._send = send
        self._limit = bucket.options.memory
        self._pool = ThreadPoolExecutor(bucket.options.max_concurrency, thread_name_prefix="pgbackup-s3")
        self._held = 0
        self._freed = threading.Condition()
        self._futures: list[Future[dict[str, Any]]] = []
        self._failed: BaseException | None = None

    def make_room(self, size: int) -> None:
        """Wait until a part of `size` bytes fits into the limit of memory; raise the error of a part that failed."""
        with self._freed:
            # The next part and one in flight are always allowed, however large; otherwise nothing would overlap.
            while self._held > max(size, self._limit - size) and self._failed is None:
                self._freed.wait(TICK)
        if self._failed is not None:
            raise self._failed

    def add(self, number: int, data: Any, size: int) -> None:
        """Send a part, which holds `size` bytes of memory until then."""
        with self._freed:
            self._held += size
        future = self._pool.submit(self._send, number, data)
        future.add_done_callback(lambda done: self._done(done, size))
        self._futures.append(future)

    def finish(self) -> list[dict[str, Any]]:
        """Wait for all parts and return their entries, or raise the error of one that failed."""
        try:
            return [result_of(future) for future in self._futures]
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> bool:
        """Stop sending, and return whether requests are still in flight."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        return any(not future.done() for future in self._futures)

    def settle(self) -> None:
        """Wait for the requests in flight, at most :data:`STOP_SECONDS`."""
        wait(self._futures, timeout=STOP_SECONDS)

    def _done(self, future: Future[dict[str, Any]], size: int) -> None:
        with self._freed:
            self._held -= size
            if not future.cancelled() and future.exception() is not None and self._failed is None:
                self._failed = future.exception()
            self._freed.notify_all()


def part_entry(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the entry for CompleteMultipartUpload of a part, from the answer to its request."""
    kept = {name: value for name, value in answer.items() if name in CHECKSUMS}
    return {"PartNumber": number, "ETag": quoted(answer["ETag"]), **kept}
