"""Find the backups in a repository that were made of the dumps to adopt."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_pgbackup.backup.adopt.found_dump import FoundDump
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

    def other_time(self, series: Series, id: str, dump: FoundDump) -> str | None:
        """Return the id of a backup that was made of the same file with another time; None if there is none."""
        ids = self._ids.get(series, set())
        suffix = layout.id_suffix(dump.sha256)
        for other in sorted(ids - {id}):
            if other.endswith(f"-{suffix}") and id not in ids and self._is_of(series, other, dump):
                return other
        return None

    def _is_of(self, series: Series, id: str, dump: FoundDump) -> bool:
        try:
            manifest = read_manifest(self._repository, series, id)
        except RepositoryError:
            return False
        return manifest.artifact.sha256 == dump.sha256 and manifest.origin.get("adopted_from") == dump.name
