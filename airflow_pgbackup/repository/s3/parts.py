"""Send the parts of a multipart upload in parallel."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from airflow_pgbackup.repository.s3.bucket import Bucket, quoted
from airflow_pgbackup.repository.s3.checksums import CHECKSUMS
from airflow_pgbackup.repository.s3.errors import code_of, is_outage
from airflow_pgbackup.text import printable
from airflow_pgbackup.threads import TICK, result_of

# How long an abort waits for requests in flight: Airflow kills a task five seconds after asking it to stop.
STOP_SECONDS = 3.0
PATIENCE = 180.0
"""Seconds for which a part is sent again after the client's own retries, which end after a few seconds.

Sending a part again is harmless, and a dump of many hours outlives an outage of the store or the network.
"""
PAUSE, LONGEST_PAUSE = 1.0, 15.0

log = logging.getLogger(__name__)


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

    :param what: for messages, ``s3://bucket/key``.
    :param send: sends the part of a number, and returns its entry for CompleteMultipartUpload.
    :param check: raises when the upload should stop; called while the store does not answer.
    """

    def __init__(
        self, bucket: Bucket, what: str, send: Callable[[int, Any], dict[str, Any]], check: Callable[[], None]
    ) -> None:
        self._what = what
        self._send = send
        self._check = check
        self._stopped = threading.Event()
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
        future = self._pool.submit(self._persist, number, data)
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
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        return any(not future.done() for future in self._futures)

    def settle(self) -> None:
        """Wait for the requests in flight, at most :data:`STOP_SECONDS`."""
        wait(self._futures, timeout=STOP_SECONDS)

    def _persist(self, number: int, data: Any) -> dict[str, Any]:
        """Send a part, and during an outage send it again."""
        until, pause = None, PAUSE
        while True:
            try:
                return self._send(number, data)
            except (BotoCoreError, ClientError) as error:
                now = time.monotonic()
                if until is None:
                    until = now + PATIENCE
                if not is_outage(error) or now + pause > until or self._stopped.is_set():
                    raise
                said = f"part {number} of {self._what} failed ({code_of(error) or type(error).__name__})"
                log.warning("%s; sending it again", printable(said))
                if self._is_stopped_within(pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)

    def _is_stopped_within(self, seconds: float) -> bool:
        """Wait, and return at once when the upload is stopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stopped.wait(min(left, TICK)):
                return True
            self._check()
        return False

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
