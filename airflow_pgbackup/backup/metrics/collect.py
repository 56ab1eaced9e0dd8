"""Read a repository and return the metrics of its series, servers and of itself.

Times are Unix times and never ages: Prometheus subtracts them from the time of the query, so they stay true when this
is not run any more. What never happened has time 0, so that an alert on its age fires.

What counts as verified is judged by the contents of files, as freshness does; only the number of backups in each state
is taken from file names. It reads one listing of the repository, and for each series the files of few backups: the
newest one, the newest that is verified at each level, and the one that was rehearsed last, which are often the same.
Each costs one listing of its folder, its manifest, and its verifications. It also reads all other backups in the newest
complete backup set of each server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone

from airflow_pgbackup.backup.metrics.exposition import Family
from airflow_pgbackup.backup.series_reader import SeriesReader, rows_of
from airflow_pgbackup.backup.set_freshness import judge_sets
from airflow_pgbackup.backup.set_members import MISSING, SetMembers
from airflow_pgbackup.backup.set_retention import ServerSets
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import LEVELS, Series, encode_segment
from airflow_pgbackup.repository.state import STATES
from airflow_pgbackup.time_spans import LONGEST

_HELP = {
    "pgbackup_repository_listed_timestamp_seconds": "When the repository was read.",
    "pgbackup_repository_backups": "Number of backups in the repository, in any state.",
    "pgbackup_repository_size_bytes": "Size of all artifacts in the repository.",
    "pgbackup_backups": "Number of backups of the series by state, as file names show it.",
    "pgbackup_series_size_bytes": "Size of all artifacts of the series.",
    "pgbackup_series_dropped": "1 if the database was not on its server any more when the newest complete backup set "
    "was made, otherwise 0.",
    "pgbackup_newest_backup_timestamp_seconds": "When the newest backup started, in any state.",
    "pgbackup_newest_backup_state": "1 for the state of the newest backup, 0 for the other states.",
    "pgbackup_verified_backup_timestamp_seconds": "When the newest backup verified at this level or a higher one "
    "started; 0: there is none.",
    "pgbackup_verified_backup_level": "Level of the newest verified backup: 1 integrity, 2 archive, 3 restore; 0: "
    "there is none.",
    "pgbackup_verified_backup_size_bytes": "Size of the artifact of the newest verified backup.",
    "pgbackup_verified_backup_rows": "Rows in the newest verified backup, where its verification counted them.",
    "pgbackup_verified_backup_dump_duration_seconds": "How long the dump of the newest verified backup took.",
    "pgbackup_rehearsal_timestamp_seconds": "When the last passed rehearsal ended; 0: there is none.",
    "pgbackup_rehearsal_restore_duration_seconds": "How long the restore of the last passed rehearsal took.",
    "pgbackup_complete_set_timestamp_seconds": "When the newest complete backup set of the server started, of "
    "which all backups exist and none has failed; 0: there is none.",
    "pgbackup_complete_set_databases": "Number of databases in that backup set.",
    "pgbackup_complete_set_missing_backups": "Number of backups of the newest complete backup set that do not exist.",
    "pgbackup_complete_set_unusable_backups": "Number of backups of the newest complete backup set that exist and have "
    "failed verification, are incomplete or unreadable.",
}
"""Each metric in the order of the output, with its help."""

_Samples = list[tuple[str, dict[str, str], float]]


def metrics(*, repository: Repository, now: datetime | None = None) -> list[Family]:
    """Return the metrics of a repository. Only those with samples are returned.

    :param now: the current time, with a time zone; by default the clock's. Later backups are ignored.
    :raises RepositoryError: the repository could not be read, which says nothing about the backups.
    """
    now = now or datetime.now(timezone.utc)
    catalogue = read_catalogue(repository)
    listed = catalogue.by_series()
    samples: _Samples = [
        ("pgbackup_repository_listed_timestamp_seconds", {}, _unix(now)),
        ("pgbackup_repository_backups", {}, sum(map(len, listed.values()))),
        ("pgbackup_repository_size_bytes", {}, sum(one.size for backups in listed.values() for one in backups)),
    ]
    with request_threads() as pool:
        of_series = list(pool.map(lambda item: _of_series(repository, item[0], item[1], now), listed.items()))
    for each, _ in of_series:
        samples += each
    sets = ServerSets.of(repository, catalogue, now, lambda line: None, complete=True, most_sets=0)
    dropped = sets.dropped(listed)
    samples += [("pgbackup_series_dropped", _labels(one), int(one in dropped)) for one in listed]
    proven = (one for _, read in of_series for one in read)
    samples += _of_sets(repository, SetMembers(repository, now=now, proven=proven), now)
    families = {name: Family(name, help) for name, help in _HELP.items()}
    for name, labels, value in samples:
        families[name].samples.append(({"repository": repository.uri, **labels}, value))
    return [family for family in families.values() if family.samples]


def _of_series(
    repository: Repository, series: Series, listed: Sequence[Backup], now: datetime
) -> tuple[_Samples, list[Backup]]:
    """Return the samples of a series, and the backups that were read for them."""
    labels = _labels(series)
    reader = SeriesReader(repository, now)
    past = [one for one in listed if one.started_at <= now + SKEW]
    by_state = Counter(one.state for one in listed)
    samples: _Samples = [
        ("pgbackup_series_size_bytes", labels, sum(one.size for one in listed)),
        *(
            ("pgbackup_backups", {**labels, "state": state}, by_state[state])
            for state in STATES
            if state != "unreadable"  # which file names do not show
        ),
    ]
    if past:
        newest = reader.read(past[0]).backup
        samples.append(("pgbackup_newest_backup_timestamp_seconds", labels, _unix(newest.started_at)))
        for state in STATES:
            samples.append(("pgbackup_newest_backup_state", {**labels, "state": state}, int(newest.state == state)))
    verified = {level: reader.newest_verified(past, level) for level in LEVELS}
    for level, evidence in verified.items():
        time = _unix(evidence.backup.started_at) if evidence else 0
        samples.append(("pgbackup_verified_backup_timestamp_seconds", {**labels, "level": level}, time))
    samples += _of_verified(verified[LEVELS[0]], labels)
    rehearsal = reader.last_rehearsal(past)
    time = _unix(rehearsal.finished_at) if rehearsal else 0
    samples.append(("pgbackup_rehearsal_timestamp_seconds", labels, time))
    if rehearsal and rehearsal.restore_seconds is not None:
        samples.append(("pgbackup_rehearsal_restore_duration_seconds", labels, rehearsal.restore_seconds))
    return samples, reader.proven


def _labels(series: Series) -> dict[str, str]:
    # The folder names the series exactly; the other two are for people, and two names may look the same in them.
    return {"series": series.path, "server": series.server, "database": series.database or f"@{series.kind}"}


def _of_verified(evidence: Evidence | None, labels: dict[str, str]) -> _Samples:
    level = evidence.backup.level if evidence else None
    samples: _Samples = [("pgbackup_verified_backup_level", labels, LEVELS.index(level) + 1 if level else 0)]
    if evidence is not None:
        manifest = evidence.require_manifest()
        samples += [
            ("pgbackup_verified_backup_size_bytes", labels, manifest.artifact.size),
            ("pgbackup_verified_backup_dump_duration_seconds", labels, manifest.duration_seconds),
        ]
        if (rows := rows_of(evidence.verifications)) is not None:
            samples.append(("pgbackup_verified_backup_rows", labels, rows))
    return samples


def _of_sets(repository: Repository, members: SetMembers, now: datetime) -> _Samples:
    samples: _Samples = []
    for one in judge_sets(repository, None, LONGEST, now, members):
        labels = {"series": f"{encode_segment(one.server)}/@sets", "server": one.server}
        usable = one.newest_usable
        samples.append(("pgbackup_complete_set_timestamp_seconds", labels, _unix(usable.started_at) if usable else 0))
        if usable:
            samples.append(("pgbackup_complete_set_databases", labels, len(usable.databases)))
        if one.newest_complete:
            missing = sum(why == MISSING for _, why in one.unusable)
            samples += [
                ("pgbackup_complete_set_missing_backups", labels, missing),
                ("pgbackup_complete_set_unusable_backups", labels, len(one.unusable) - missing),
            ]
    return samples


def _unix(time: datetime) -> int:
    return int(time.timestamp())
