"""freshness: check that each series has a recent, verified backup, about as large as the previous ones.

It reveals what an alert on a failed run cannot: a paused or deleted DAG, a scheduler that was down, a database that no
DAG dumps, a table that was emptied before the dump. This module reads the repository, and
:mod:`airflow_pgbackup.backup.freshness_rules` applies the rules. The newest backup that counts is judged by what its
files contain, never by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.freshness_rules import BackupContents, FreshnessRules, SeriesFreshness, judge_series
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.backup.set_freshness import judge_sets
from airflow_pgbackup.backup.set_members import SetMembers
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import Evidence, may_count, read_each
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.repository.verification import TableResult, Verification, last_count

_NAMED = 3


def freshness(
    *,
    repository: Repository,
    rules: FreshnessRules,
    series: SeriesSelection | None = None,
    exclude: Sequence[str] = (),
    sets: bool = False,
    now: datetime | None = None,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Check the series of a repository.

    :param series: the series that must be fresh. One that is named here and has no backup is not fresh. If
        ``databases`` is None, the existing series of the server are checked too, which cannot reveal a database that
        was never backed up.
    :param exclude: series to ignore, such as those of databases that no longer exist: ``server/database``, with ``*``
        and ``?`` as wildcards.
    :param sets: also check that the server, or each server with backup sets, has a complete set that is recent, and all
        of whose backups exist and have not failed.
    :param now: the time to measure ages from, with a time zone; by default the current time.
    :return: plain JSON::

        {"repository", "repository_uuid", "checked_at", "limits": {…}, "fresh": false,
         "problems": ["prod/app: the newest backup … is 30.0 h old, more than 26.0 h"],
         "series": [{"series" (its folder), "fresh", "id", "started_at", "age_seconds", "verified", "size", "rows",
                     "problems": [], "notes": []}],
         "sets": [{"server", "fresh", "id", "started_at", "age_seconds", "databases", "unusable": [], "problems": [],
                   "notes": []}]}

        Unknown values are None. A set is described by the newest complete one whose backups can all be used;
        ``unusable`` has the backups of the newest complete one that cannot be.
    :raises ConfigurationError: databases without a server, or an empty list of databases.
    :raises RepositoryError: the repository could not be read, which says nothing about the backups.
    """
    now = now or datetime.now(timezone.utc)
    context, series = context or RunContext(), series or SeriesSelection()
    server, named = series.server, series.named()
    if named == []:
        # Perhaps a task that lists databases found none. "Fresh" would be wrong.
        raise ConfigurationError("databases is empty", hint="Name databases, or pass None for all series.")
    if series.databases is not None:
        listed, wanted = read_catalogue(repository, server=server, series=named).by_series(), named or []
    else:
        listed = read_catalogue(repository, server=server).by_series()
        wanted = [*listed, *(one for one in named or [] if one not in listed)]
    wanted = [one for one in wanted if not any(fnmatchcase(str(one), pattern) for pattern in exclude)]

    proven: list[Backup] = []

    def judge(series: Series) -> tuple[Series, SeriesFreshness]:
        backups = listed.get(series, [])
        read = _read(repository, backups, rules, now)
        proven.extend(each.backup for each in read.values())
        checked = [read[backup.id].backup if backup.id in read else backup for backup in backups]
        found = judge_series(checked, _contents(read.values(), rules), rules, now)
        ignored = [f"{each.backup.id}: ignored {line}" for each in read.values() for line in each.ignored]
        return series, replace(found, notes=(*found.notes, *ignored[:_NAMED]))

    with request_threads() as pool:
        results = list(pool.map(judge, wanted))
    problems = [f"{each}: {problem}" for each, result in results for problem in result.problems]
    set_results = []
    if sets:
        set_results = judge_sets(repository, server, rules.max_age, now, SetMembers(repository, now=now, proven=proven))
        problems += [f"{each.server}: {problem}" for each in set_results for problem in each.problems]
        if not set_results:
            problems.append(f"no backup set is in {repository.uri}")
    if not results:
        problems.append(f"no backup{f' of {server}' if server else ''} is in {repository.uri}")
    notes = [f"{each}: {note}" for each, result in results for note in result.notes]
    notes += [f"{each.server}: {note}" for each in set_results for note in each.notes]
    for line in problems + notes:
        context.log(line)
    return {
        "repository": repository.uri,
        "repository_uuid": repository.uuid,
        "checked_at": now.isoformat(),
        "limits": rules.describe(),
        "fresh": not problems,
        "problems": problems,
        "series": [_json(each, result, now) for each, result in results],
        "sets": [each.as_json(now) for each in set_results],
    }


def _read(
    repository: Repository, listed: Sequence[Backup], rules: FreshnessRules, now: datetime
) -> dict[str, Evidence]:
    """Read the evidence of a series, newest first: the newest backup that counts, and those to compare it with."""
    claiming = [one for one in listed if one.started_at <= now + SKEW and may_count(one, rules.minimum_level)]
    wanted = 1 if rules.max_drop is None else 1 + rules.compare_with
    read: dict[str, Evidence] = {}
    for evidence in read_each(repository, claiming, now=now, ahead=max(1, wanted - 1)):
        read[evidence.backup.id] = evidence
        wanted -= counts(evidence.backup, rules.minimum_level)
        if not wanted:
            break
    return read


def _contents(read: Iterable[Evidence], rules: FreshnessRules) -> dict[str, BackupContents]:
    if rules.max_drop is None:
        return {}
    return {
        each.backup.id: BackupContents(kind=_kind(each.manifest), rows=_rows(each.verifications))
        for each in read
        if each.manifest is not None
    }


def _kind(manifest: Manifest) -> object:
    # Sizes are comparable only between dumps made with the same options: a zstd dump is a tenth of a plain one, and
    # one without data is smaller still. jobs and verbose do not affect the size.
    options = {name: value for name, value in manifest.options.items() if name not in ("jobs", "verbose")}
    artifact = manifest.artifact
    return (artifact.format, artifact.compression.method, artifact.compression.level, manifest.kind, options)


def _rows(verifications: Sequence[Verification]) -> dict[str, int] | None:
    if (seen := last_count(verifications)) is None:
        return None
    rows: dict[str, int] = {}
    for table in seen.tables:
        rows[_name(table)] = rows.get(_name(table), 0) + table.rows
    return rows


def _name(table: TableResult) -> str:
    return ".".join(filter(None, (table.database, table.schema, table.name)))


def _json(series: Series, result: SeriesFreshness, now: datetime) -> dict[str, object]:
    newest = result.newest
    return {
        "series": series.path,
        "fresh": not result.problems,
        "id": newest.id if newest else None,
        "started_at": newest.started_at.isoformat() if newest else None,
        "age_seconds": (now - newest.started_at).total_seconds() if newest else None,
        "verified": newest.level if newest else None,
        "size": newest.size if newest else None,
        "rows": result.rows,
        "problems": list(result.problems),
        "notes": list(result.notes),
    }
