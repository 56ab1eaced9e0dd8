"""One attempt at a backup: write the artifact under keys that only this attempt uses, then the manifest.

Two attempts at one backup may run at once, such as a task presumed dead and its retry, or two uploads. Neither can
overwrite or remove what the other writes. The attempt whose manifest is stored has made the backup. The store must
write each key completely or not at all. If it also refuses to overwrite a key (``If-None-Match``), the second attempt
learns of the first when it writes its manifest. If not, the later of two simultaneous manifests replaces the earlier
one; each names a complete artifact, and ``prune`` sweeps the other artifact.

An attempt that fails before it starts to write its manifest removes what it wrote. After that point others may see the
backup, and another attempt may have returned it, so nothing is removed unless the store reports that it wrote no
manifest, or the manifest would be a file that this process was writing and that does not exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    ManifestError,
    OutcomeUnknown,
    PgBackupError,
    RepositoryError,
)
from airflow_pgbackup.interruption import clean_up, is_interruption
from airflow_pgbackup.repository import json_document, layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, is_complete, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest


class Attempt:
    """One attempt; made by :func:`attempt`.

    :ivar name: the folder of this attempt, for the manifest.
    :ivar written: the keys to remove on failure. The caller may add a key before it writes it.
    """

    def __init__(self, repository: Repository, series: Series, id: str, say: Callable[[str], None]) -> None:
        self.name = layout.new_attempt()
        self.written: list[str] = []
        self._repository = repository
        self._series = series
        self._id = id
        self._say = say
        self._may_be_seen = False
        self._is_seen = False

    def key(self, artifact: str) -> str:
        return layout.artifact_key(self._series, self._id, artifact, self.name)

    def commit(self, manifest: Manifest, is_same: Callable[[Evidence], bool]) -> Evidence:
        """Write the manifest, which turns the artifact into a backup.

        :param is_same: returns whether a complete backup of this id by another attempt serves as well as this one.
        :return: the backup that is stored now.
        :raises ManifestError: the manifest violates its schema.
        :raises AlreadyExists: another backup has this id.
        :raises RepositoryError: the backup was not made, or it is unknown whether it was; a retry finds out.
        """
        key, data = layout.manifest_key(self._series, self._id), manifest.to_json()
        try:
            Manifest.from_json(data)  # only what can be read is written
        except ManifestError as error:
            if len(data) > json_document.MAX_BYTES and manifest.artifact.format == "directory":
                error.hint = "Dump in custom format, which is one file: the manifest lists each file of a directory."
            raise
        self._may_be_seen = True
        try:
            self._repository.write_bytes(key, data)
        except OutcomeUnknown:
            raise
        except AlreadyExists:
            evidence = self._read_written(key)
            if not self.has_made(evidence):  # else the answer to the first of two requests was lost
                self._may_be_seen = False
                if not (is_complete(evidence) and is_same(evidence)):
                    raise
                self.remove_written(interrupted=False)
                self._say(f"backup {self._series}/{self._id} was committed by another attempt")
                return evidence
        except PgBackupError:
            self._may_be_seen = False
            raise
        except BaseException:  # such as KeyboardInterrupt
            if self._repository.local_path(key) is not None:  # no request is on its way that could still succeed
                self._is_seen = self._may_be_seen = self._repository.stat(key) is not None
            raise
        evidence = self._read_written(key)
        if evidence.backup.state == "incomplete" and self.has_made(evidence):
            # Readers check that the artifact exists, so no other attempt has returned this backup.
            with suppress(RepositoryError):  # a manifest without its artifact is not a backup
                self._repository.delete([key])
            raise RepositoryError(
                f"backup {self._series}/{self._id} was removed while it was being written: {evidence.backup.problem}",
                hint="Set a grace period of prune that is longer than a dump takes.",
            )
        evidence.require_complete()
        self._is_seen = True
        return evidence

    def _read_written(self, key: str) -> Evidence:
        """Read what was just written: S3 is strongly consistent, but not every store's listing is.

        :raises OutcomeUnknown: the manifest exists, but is not listed.
        :raises BackupNotFound: it was removed.
        """
        for pause in (0.1, 0.4, 1.6, 0.0):
            try:
                return read_evidence(self._repository, self._series, self._id)
            except BackupNotFound:
                if self._repository.stat(key) is None:
                    raise
            time.sleep(pause)
        raise OutcomeUnknown(
            f"backup {self._series}/{self._id} is written, but {self._repository.uri} does not list it yet",
            hint="It is found once the store lists it; then a retry of the task returns it.",
        )

    def has_made(self, evidence: Evidence) -> bool:
        """Return whether the stored manifest is this attempt's."""
        return evidence.manifest is not None and evidence.manifest.artifact.attempt == self.name

    def remove_written(self, *, interrupted: bool) -> None:
        """Remove the keys in :attr:`written`. Errors are only logged: the caller raises a more important one.

        :param interrupted: return after a few seconds, even if the store does not answer.
        """
        if self._is_seen:
            self._say(f"backup {self._series}/{self._id} was already complete and is kept")
            return
        if self._may_be_seen:
            self._say(f"the outcome of {self._series}/{self._id} is unknown; prune sweeps it if it is not a backup")
            return
        if not self.written:
            return
        clean_up(
            self._remove,
            interrupted=interrupted,
            on_timeout=lambda: self._say_left("the repository does not answer"),
        )

    def _remove(self) -> None:
        try:
            self._repository.delete(self.written)
            self._say(f"removed what was written of {self._series}/{self._id}; it is not a backup")
        except PgBackupError as error:
            self._say_left(str(error))

    def _say_left(self, why: str) -> None:
        left = ", ".join(self.written)
        self._say(f"could not remove {left}: {why}; without a manifest it is not a backup, and prune sweeps it")


@contextmanager
def attempt(repository: Repository, series: Series, id: str, say: Callable[[str], None]) -> Iterator[Attempt]:
    """Yield an attempt. If the ``with`` block raises, remove what the attempt wrote."""
    made = Attempt(repository, series, id, say)
    try:
        yield made
    except BaseException as error:
        made.remove_written(interrupted=is_interruption(error))
        raise
