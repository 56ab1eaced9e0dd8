"""freshness: is there a backup that is young enough, verified, and about as large as the ones before it?

What no alert on a run can see, this does: a DAG that was paused or deleted, a scheduler that was down, a database
that nobody put into a DAG, a table that was emptied before it was dumped. The decision is that of
:mod:`airflow_pgbackup.backup.limits`; this reads what it is about. "Fresh" stands on the files of the newest backup
that counts, never on their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.limits import Contents, Finding, Limits, evaluate
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import THREADS, Backup, read_catalogue
from airflow_pgbackup.repository.evidence import SKEW, Evidence, may_count, read_each
from airflow_pgbackup.repository.layout import LEVELS, Series
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.repository.verification import TableResult, Verification

_NAMED = 3


def freshness(
    *,
    repository: Repository,
    limits: Limits,
    series: SeriesSelection | None = None,
    exclude: Sequence[str] = (),
    now: datetime | None = None,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Look at a repository.

    :param series: the series that must be fresh. A database that it names and that has no backup is not fresh; where
        it names none, the series that exist are checked, which cannot reveal a database that was never backed up.
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
    context, series = context or RunContext(), series or SeriesSelection()
    server, expected = series.server, series.named()
    if expected == []:
        # Of a task before, perhaps, that found none. Nothing wrong with nothing would be the wrong answer.
        raise ConfigurationError("databases is empty: nothing would be looked at", hint="None: all that are there")
    found = read_catalogue(repository, server=server, series=expected).by_series()
    wanted = expected if expected is not None else list(found)
    wanted = [one for one in wanted if not any(fnmatchcase(str(one), pattern) for pattern in exclude)]

    def look(series: Series) -> tuple[Series, Finding]:
        backups = found.get(series, [])
        read = _read(repository, backups, limits, now)
        believed = [read[backup.id].backup if backup.id in read else backup for backup in backups]
        finding = evaluate(believed, _contents(read.values(), limits), limits, now)
        ignored = [f"{each.backup.id}: ignored {line}" for each in read.values() for line in each.ignored]
        return series, replace(finding, notes=(*finding.notes, *ignored[:_NAMED]))

    with ThreadPoolExecutor(THREADS) as pool:
        findings = list(pool.map(look, wanted))
    problems = [f"{series}: {problem}" for series, finding in findings for problem in finding.problems]
    if not findings:
        problems.append(f"there is no backup at all{f' of {server}' if server else ''} in {repository.uri}")
    for line in problems + [f"{series}: {note}" for series, finding in findings for note in finding.notes]:
        context.log(line)
    return {
        "repository": repository.uri,
        "repository_uuid": repository.uuid,
        "checked_at": now.isoformat(),
        "limits": limits.describe(),
        "fresh": not problems,
        "problems": problems,
        "series": [_json(series, finding, now) for series, finding in findings],
    }


def _read(repository: Repository, listed: Sequence[Backup], limits: Limits, now: datetime) -> dict[str, Evidence]:
    """Of one series, newest first: until there are enough that count, one and those to compare it with."""
    claiming = [one for one in listed if one.started_at <= now + SKEW and may_count(one, limits.minimum_level)]
    wanted = 1 if limits.max_drop is None else 1 + limits.compare_with
    read: dict[str, Evidence] = {}
    for evidence in read_each(repository, claiming, now=now, ahead=max(1, wanted - 1)):
        read[evidence.backup.id] = evidence
        wanted -= counts(evidence.backup, limits.minimum_level)
        if not wanted:
            break
    return read


def _contents(read: Iterable[Evidence], limits: Limits) -> dict[str, Contents]:
    if limits.max_drop is None:
        return {}
    return {
        each.backup.id: Contents(kind=_kind(each.manifest), rows=_rows(each.verifications))
        for each in read
        if each.manifest is not None
    }


def _kind(manifest: Manifest) -> object:
    # A zstd dump is a tenth of a plain one, and one without data smaller still. jobs changes nothing.
    options = {name: value for name, value in manifest.options.items() if name not in ("jobs", "verbose")}
    artifact = manifest.artifact
    return (artifact.format, artifact.compression.method, artifact.compression.level, manifest.kind, options)


def _rows(verifications: Sequence[Verification]) -> dict[str, int] | None:
    for seen in reversed(verifications):
        if seen.result == "pass" and LEVELS.index(seen.level) >= LEVELS.index("archive"):
            rows: dict[str, int] = {}
            for table in seen.tables:
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
