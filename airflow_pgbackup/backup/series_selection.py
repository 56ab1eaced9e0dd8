"""Which series of a repository a verb works on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import SequenceMatcher

from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Catalogue, select_series
from airflow_pgbackup.repository.layout import Series, decode_segment


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
        """Return the selected series, or None to select all series of ``server``.

        :raises ConfigurationError: databases without a server, or one name where a list is expected.
        """
        return select_series(self.server, self.databases, cluster=self.cluster, scopes=self.scopes)


def require_server(repository: Repository, server: str | None, catalogue: Catalogue) -> None:
    """Check that a repository has something of a server, so that a mistyped name is not mistaken for an empty server.

    :param server: None: no server was named.
    :param catalogue: what was found of it.
    :raises BackupNotFound: there is nothing.
    """
    if server is None or catalogue.backups or catalogue.leftovers or catalogue.foreign:
        return
    servers = nearest(server, _servers(repository))
    raise BackupNotFound(
        f"no backup of server {server} is in {repository.uri}",
        hint=f"The servers there include {', '.join(servers)}." if servers else "It has no backups.",
    )


def _servers(repository: Repository) -> list[str]:
    """Return the names of the servers in a repository, as an argument takes them: decoded."""
    found = []
    for folder in repository.folders(""):
        with suppress(ValueError):  # a foreign folder
            found.append(decode_segment(folder))
    return found


def nearest(name: str, names: Sequence[str], *, most: int = 3) -> list[str]:
    """Return the names most similar to a name."""

    def likeness(other: str) -> float:
        return SequenceMatcher(None, name.casefold(), other.casefold()).ratio()

    return sorted(names, key=likeness, reverse=True)[:most]
