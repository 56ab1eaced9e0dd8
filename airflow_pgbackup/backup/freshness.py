"""freshness: is there a backup that is young enough, verified, and about as large as the ones before it?

What no alert on a run can see, this does: a DAG that was paused or deleted, a scheduler that was down, a database
that nobody put into a DAG, a table that was emptied before it was dumped. The decision is that of
:mod:`airflow_pgbackup.backup.limits`; this reads what it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from fnmatch import fnmatchcase

from airflow_pgbackup.backup.limits import Contents, Finding, Limits, compared, evaluate
from airflow_pgbackup.errors import ConfigurationError, RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import (
    THREADS,
    Backup,
    read_catalogue,
    read_manifest,
    read_verification,
    select_series,
)
from airflow_pgbackup.repository.layout import LEVELS, Series
from airflow_pgbackup.repository.manifest import Manifest, TableResult


def freshness(
    *,
    repository: Repository,
    limits: Limits,
    server: str | None = None,
    databases: Sequence[str] | None = None,
    cluster: bool = False,
    exclude: Sequence[str] = (),
    now: datetime | None = None,
    log: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Look at a repository.

    :param server: only this one's series.
    :param databases: those of ``server`` that must have fresh backups; one without any backup is not fresh. None: the
        series that are there, which cannot tell of a database that was never backed up.
    :param cluster: that server's pg_dumpall must be fresh, too (or alone, without ``databases``).
    :param exclude: series to pass over, ``server/database`` with ``*`` and ``?``: databases that are no more.
    :param now: aware, by default the clock's.
    :return: plain JSON::

        {"repository", "repository_uuid", "checked_at", "limits": {…}, "fresh": false,
         "problems": ["prod/app: the newest backup … is 30.0 h old, at most 26.0 h are allowed"],
         "series": [{"series" (its folder), "fresh", "id", "started_at", "age_seconds", "verified", "size", "rows",
                     "problems": [], "notes": []}]}

        With None for all that is not known.
    :raises ConfigurationError: ``databases`` without ``server``, or none in it.
    :raises RepositoryError: it could not be looked at, which says nothing about the backups.
    """
    now = now or datetime.now(timezone.utc)
    expected = select_series(server, databases, cluster=cluster)
    if expected == []:
        # Of a task before, perhaps, that found none. Nothing wrong with nothing would be the wrong answer.
        raise ConfigurationError("databases is empty: nothing would be looked at", hint="None: all that are there")
    found = read_catalogue(repository, server=server, series=expected).by_series()
    wanted = expected if expected is not None else list(found)
    wanted = [one for one in wanted if not any(fnmatchcase(str(one), pattern) for pattern in exclude)]

    def look(series: Series) -> tuple[Series, Finding]:
        backups = found.get(series, [])
        return series, evaluate(backups, _read_contents(repository, backups, limits, now), limits, now)

    with ThreadPoolExecutor(THREADS) as pool:
        findings = list(pool.map(look, wanted))
    problems = [f"{series}: {problem}" for series, finding in findings for problem in finding.problems]
    if not findings:
        problems.append(f"there is no backup at all{f' of {server}' if server else ''} in {repository.uri}")
    for line in problems + [f"{series}: {note}" for series, finding in findings for note in finding.notes]:
        if log:
            log(line)
    return {
        "repository": repository.uri,
        "repository_uuid": repository.uuid,
        "checked_at": now.isoformat(),
        "limits": limits.describe(),
        "fresh": not problems,
        "problems": problems,
        "series": [_json(series, finding, now) for series, finding in findings],
    }


def _read_contents(
    repository: Repository, backups: Sequence[Backup], limits: Limits, now: datetime
) -> dict[str, Contents | RepositoryError]:
    if limits.max_drop is None:
        return {}
    found: dict[str, Contents | RepositoryError] = {}
    for backup in compared(backups, limits, now):
        try:
            manifest = read_manifest(repository, backup.series, backup.id)
            found[backup.id] = Contents(kind=_kind(manifest), rows=_read_rows(repository, backup))
        except RepositoryError as error:
            found[backup.id] = error
    return found


def _kind(manifest: Manifest) -> object:
    # A zstd dump is a tenth of a plain one, and one without data smaller still. jobs changes nothing.
    options = {name: value for name, value in manifest.options.items() if name not in ("jobs", "verbose")}
    artifact = manifest.artifact
    return (artifact.format, artifact.compression.method, artifact.compression.level, manifest.kind, options)


def _read_rows(repository: Repository, backup: Backup) -> dict[str, int] | None:
    for seen in reversed(backup.verifications):
        if seen.result == "pass" and LEVELS.index(seen.level) >= LEVELS.index("archive"):
            rows: dict[str, int] = {}
            for table in read_verification(repository, backup, seen).tables:
                rows[_name(table)] = rows.get(_name(table), 0) + table.rows
            return rows
    return None


def _name(table: TableResult) -> str:
    return ".".join(filter(None, (table.database, table.schema, table.name)))


def _json(series: Series, finding: Finding, now: datetime) -> dict[str, object]:
    newest = finding.newest
    return {
        "series": series.path,
        "fresh": not finding.problems,
        "id": newest.id if newest else None,
        "started_at": newest.started_at.isoformat() if newest else None,
        "age_seconds": (now - newest.started_at).total_seconds() if newest else None,
        "verified": newest.level if newest else None,
        "size": newest.size if newest else None,
        "rows": finding.rows,
        "problems": list(finding.problems),
        "notes": list(finding.notes),
    }
