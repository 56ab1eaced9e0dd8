"""One attempt at a backup: an artifact below keys that only this attempt uses, then the one manifest.

Two attempts may run at once: of a task that seems dead and of its retry, or of two uploads of one backup. Neither can
overwrite or remove what the other writes; the attempt whose manifest is stored has made the backup. A store only has
to write each key completely. If it also refuses a key that exists (``If-None-Match``), the second attempt learns that
it is the second. If not, of two manifests written at the same instant one replaces the other; each names a complete
artifact, and ``prune`` sweeps what the loser wrote.

An attempt that fails removes what it wrote, as long as it has not begun to write its manifest. From then on others may
see the backup, and another attempt may have returned it: nothing is removed unless the store reports that it wrote no
manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_pgbackup.errors import AlreadyExists, OutcomeUnknown, PgBackupError, RepositoryError
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, is_whole, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest


class Attempt:
    """One attempt.

    :ivar name: the folder of this attempt, for the manifest.
    :ivar written: the keys that a failure removes; keys that do not exist do no harm.
    """

    def __init__(self, repository: Repository, series: Series, id: str, say: Callable[[str], None]) -> None:
        self.name = layout.new_attempt()
        self.written: list[str] = []
        self._repository = repository
        self._series = series
        self._id = id
        self._say = say
        self._may_be_seen = False

    def key(self, artifact: str) -> str:
        return layout.artifact_key(self._series, self._id, artifact, self.name)

    def commit(self, manifest: Manifest, is_same: Callable[[Evidence], bool]) -> Evidence:
        """Write the manifest, which makes a backup of what was written.

        :param is_same: returns whether a complete backup of this id by another attempt serves as well as this one.
        :return: the backup that is stored now.
        :raises AlreadyExists: another backup has this id.
        :raises RepositoryError: there is no such backup, or it is unknown whether there is; a retry finds out.
        """
        key = layout.manifest_key(self._series, self._id)
        self._may_be_seen = True
        try:
            self._repository.write_bytes(key, manifest.to_json())
        except OutcomeUnknown:
            raise
        except AlreadyExists:
            self._may_be_seen = False
            evidence = read_evidence(self._repository, self._series, self._id)
            if not (is_whole(evidence) and is_same(evidence)):
                raise
            self.take_back()
            self._say(f"backup {self._series}/{self._id} was committed by another attempt")
            return evidence
        except PgBackupError:
            self._may_be_seen = False
            raise
        evidence = read_evidence(self._repository, self._series, self._id)
        if evidence.backup.state == "incomplete" and self.has_made(evidence):
            # Whoever finds a backup looks for its artifact, so no one has returned this one.
            self._repository.delete([key])
            raise RepositoryError(
                f"backup {self._series}/{self._id} was removed while it was being written: {evidence.backup.problem}",
                hint="Give prune a grace period that is longer than a dump takes.",
            )
        evidence.require_whole()
        return evidence

    def has_made(self, evidence: Evidence) -> bool:
        """Return whether this attempt made a backup."""
        return evidence.manifest is not None and evidence.manifest.artifact.attempt == self.name

    def take_back(self) -> None:
        """Remove what was written. Errors are only logged: the caller is raising a more important one."""
        if self._may_be_seen:
            self._say(f"the outcome of {self._series}/{self._id} is unknown; prune sweeps it if it is not a backup")
            return
        if not self.written:
            return
        try:
            self._repository.delete(self.written)
        except PgBackupError as error:
            left = ", ".join(self.written)
            self._say(f"could not remove {left}: {error}. Without a manifest it is not a backup, and prune sweeps it")


@contextmanager
def attempt(repository: Repository, series: Series, id: str, say: Callable[[str], None]) -> Iterator[Attempt]:
    """Give an attempt; an error inside the ``with`` removes what it wrote."""
    made = Attempt(repository, series, id, say)
    try:
        yield made
    except BaseException:
        made.take_back()
        raise
