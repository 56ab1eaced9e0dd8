"""Read a share of the bytes again, and compare it with the manifests."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from airflow_pgbackup.backup.fsck.findings import Faults
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.byte_source import CHUNK
from airflow_pgbackup.repository.cancellation import CancelFlag, Stop
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.manifest import FileDigest
from airflow_pgbackup.threads import run_each

_PARALLEL = 4
"""Files at a time: a store answers each request late, and hashing takes a core each."""


def rehash(
    repository: Repository,
    files: Sequence[tuple[str, FileDigest, Entry]],
    findings: Faults,
    *,
    cancel: CancelFlag | None,
    progress: Step,
) -> None:
    """Read files to their ends and report those that are not what was dumped.

    :param files: key, what the manifest says, and the entry that a listing has.
    :raises Canceled: asked to stop.
    """
    lock, done, stop = threading.Lock(), 0, Stop(cancel)

    def read(item: tuple[str, FileDigest, Entry]) -> Faults:
        nonlocal done
        key, file, entry = item
        found, digest, size = Faults(), hashlib.sha256(), 0
        try:
            with repository.read(key, pin=entry) as stream:
                while size <= file.size and (data := stream.read(CHUNK)):
                    stop.check()
                    digest.update(data)
                    size += len(data)
                    with lock:
                        done += len(data)
                        progress.advance(done)
        except RepositoryError as error:
            found.error("read", key, error.message, error.hint or "Check the repository's storage for faults.")
            return found
        if (size, digest.hexdigest()) != (file.size, file.sha256):
            found.error(
                "checksum",
                key,
                f"checksum mismatch: expected sha256 {file.sha256}, found {digest.hexdigest()}",
                "Restore another backup of the series, and check the repository's storage for faults.",
            )
        return found

    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="pgbackup-fsck") as pool:
        try:
            for found in run_each(pool, read, files):
                findings.extend(found)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
