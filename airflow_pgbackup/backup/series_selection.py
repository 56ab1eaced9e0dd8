"""Which series of a repository a verb works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.repository.catalogue import select_series
from airflow_pgbackup.repository.layout import Series


@dataclass(frozen=True, kw_only=True)
class SeriesSelection:
    """All series of a repository, of a server, or only those of some databases.

    :param server: only this server's series; None: every server's.
    :param databases: only these databases of ``server``; None: all that have a series.
    :param cluster: only, or also, the pg_dumpall backups of ``server``.
    :param scopes: only, or also, its pg_dumpall backups of ``globals``, ``roles`` or ``tablespaces`` alone.
    """

    server: str | None = None
    databases: Sequence[str] | None = None
    cluster: bool = False
    scopes: Sequence[str] = ()

    def named(self) -> list[Series] | None:
        """Return the series that are named one by one, or None for every series of ``server``.

        :raises ConfigurationError: databases without a server, or one name where a list is expected.
        """
        return select_series(self.server, self.databases, cluster=self.cluster, scopes=self.scopes)
