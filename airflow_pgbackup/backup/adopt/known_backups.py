"""Find the backups in a repository that were made of the dumps to adopt."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_pgbackup.backup.adopt.backup_time import MTIME
from airflow_pgbackup.backup.adopt.plan import PlannedDump
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue, read_manifest
from airflow_pgbackup.repository.layout import Series


class KnownBackups:
    """The backups of some series, by one listing of each."""

    def __init__(self, repository: Repository, series: Iterable[Series]) -> None:
        self._repository = repository
        self._ids: dict[Series, set[str]] = {}
        if wanted := set(series):
            for backup in read_catalogue(repository, series=wanted).backups:
                self._ids.setdefault(backup.series, set()).add(backup.id)

    def has(self, series: Series, id: str) -> bool:
        return id in self._ids.get(series, ())

    def other_time(self, planned: PlannedDump) -> str | None:
        """Return the id of a backup that was made of the same file with another time; None if there is none."""
        ids = self._ids.get(planned.series, set())
        suffix = layout.id_suffix(planned.dump.sha256)
        for other in sorted(ids - {planned.id}):
            if other.endswith(f"-{suffix}") and planned.id not in ids and self._is_of(other, planned):
                return other
        return None

    def _is_of(self, id: str, planned: PlannedDump) -> bool:
        try:
            manifest = read_manifest(self._repository, planned.series, id)
        except RepositoryError:
            return False
        origin = manifest.origin
        if manifest.artifact.sha256 != planned.dump.sha256 or "adopted_from" not in origin:
            return False
        adopted, name = str(origin["adopted_from"]), planned.dump.name
        if origin.get("time_from") == MTIME:  # the same file may be reached by a path that has a date
            adopted, name = adopted.rpartition("/")[2], name.rpartition("/")[2]
        # The time of a file does not make it another night's dump.
        return planned.time.source == MTIME or adopted == name
