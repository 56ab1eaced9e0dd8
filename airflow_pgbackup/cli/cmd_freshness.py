"""``pgbackup freshness``: check that each series has a recent verified backup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_pgbackup.backup.context import discard
from airflow_pgbackup.backup.freshness import freshness
from airflow_pgbackup.backup.freshness_rules import FreshnessRules
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.cli.arguments import minimum_level_argument, repository_argument
from airflow_pgbackup.cli.display import age
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.time_spans import parse_span


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    rules = FreshnessRules(
        max_age=parse_span(arguments.max_age),
        minimum_level=minimum_level_argument(session),
        max_drop=arguments.max_drop or None,
        allow_drop=tuple(arguments.allow_drop),
    )
    with session.working(f"checking {repository.uri}"):
        found: Any = freshness(
            repository=repository,
            rules=rules,
            series=SeriesSelection(server=arguments.server, databases=_databases(arguments), cluster=arguments.cluster),
            exclude=arguments.exclude,
            sets=arguments.sets,
            context=replace(session.context, log=discard),  # the lines below say the same
        )
    if not found["fresh"]:
        session.status = EXIT_STATUS["check failed"]
    session.result(found, *_lines(found, arguments.max_age))


def _databases(arguments: Any) -> Sequence[str] | None:
    # With --cluster alone, only the pg_dumpall backups are meant.
    return arguments.database or ([] if arguments.cluster else None)


def _lines(found: Mapping[str, Any], target: str) -> list[str | Listing]:
    series: list[Mapping[str, Any]] = found["series"]
    listing = Listing(("series", "newest verified", "age", "level", "target", "state"), names=2, labeled=(2, 3, 4))
    for one in series:
        taken = age(datetime.fromisoformat(one["started_at"])) if one["id"] else "-"
        state = "fresh" if one["fresh"] else "NOT FRESH"
        listing.add(one["series"], one["id"] or "-", taken, one["verified"] or "-", target, state)
    lines: list[str | Listing] = [listing] if series else []
    lines += [*found["problems"], *(f"{one['series']}: note: {note}" for one in series for note in one["notes"])]
    lines += [f"{one['server']}: note: {note}" for one in found["sets"] for note in one["notes"]]
    stale = sum(not one["fresh"] for one in series)
    return [*lines, f"{counted(len(series), 'series')}: {len(series) - stale} fresh, {stale} not fresh"]
