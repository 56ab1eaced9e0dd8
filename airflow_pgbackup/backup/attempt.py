"""One attempt at a backup: an artifact below keys that no other attempt has, then the manifest, of which there is one.

Two may try the same at once: a task that is believed dead and its retry, two uploads of one backup. Neither can write
to, or take back, what the other writes; whose manifest is there has made the backup. This asks nothing of a store but
that a key is written whole. Where the store also refuses a key that exists (``If-None-Match``), the second learns that
it is the second. Where it does not, two manifests written in the same instant replace one another; each names an
artifact that is whole, and what the loser wrote is swept by ``prune``.

An attempt that fails takes back what it wrote, until its manifest is on its way. From then on a backup may be seen,
and another try may have answered for it: nothing is taken back unless the store says that it wrote no manifest.
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
    """:ivar name: the folder of this attempt, for the manifest.
    :ivar written: keys of this attempt that are to be taken back; those that are not there do no harm.
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
        """Make a backup of what was written, by its manifest.

        :param is_same: whether a whole backup of this id, which another attempt has made, is as good as this one.
        :return: the backup that is there now.
        :raises AlreadyExists: another backup has this id.
        :raises RepositoryError: there is no such backup, or it is not known whether there is; a retry finds it.
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
            self._say(f"backup {self._series}/{self._id} was committed by another attempt meanwhile")
            return evidence
        except PgBackupError:
            self._may_be_seen = False
            raise
        evidence = read_evidence(self._repository, self._series, self._id)
        if evidence.backup.state == "incomplete" and self.has_made(evidence):
            # Everybody who finds a backup looks for its artifact, so nobody has answered for this one.
            self._repository.delete([key])
            raise RepositoryError(
                f"backup {self._series}/{self._id} was removed while it was written: {evidence.backup.problem}",
                hint="Give prune a grace that is longer than a dump takes.",
            )
        evidence.require_whole()
        return evidence

    def has_made(self, evidence: Evidence) -> bool:
        return evidence.manifest is not None and evidence.manifest.artifact.attempt == self.name

    def take_back(self) -> None:
        """Remove what was written, on the way out with an error that matters more than ours would."""
        if self._may_be_seen:
            self._say(f"the outcome of {self._series}/{self._id} is not known; prune sweeps it if it is no backup")
            return
        if not self.written:
            return
        try:
            self._repository.delete(self.written)
        except PgBackupError as error:
            left = ", ".join(self.written)
            self._say(f"left behind: {left}: {error}. It is no backup without a manifest, and prune sweeps it")


@contextmanager
def attempt(repository: Repository, series: Series, id: str, say: Callable[[str], None]) -> Iterator[Attempt]:
    """An attempt, taken back when it is left by an error."""
    made = Attempt(repository, series, id, say)
    try:
        yield made
    except BaseException:
        made.take_back()
        raise
