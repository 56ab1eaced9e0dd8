"""``pgbackup prune``: delete the backups that a retention policy does not keep."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.cli.arguments import minimum_level_argument, repository_argument
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.terminal import styled
from airflow_pgbackup.time_spans import parse_span


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    policy = Policy(
        keep_last=arguments.keep_last,
        keep_hourly=arguments.keep_hourly,
        keep_daily=arguments.keep_daily,
        keep_weekly=arguments.keep_weekly,
        keep_monthly=arguments.keep_monthly,
        keep_yearly=arguments.keep_yearly,
        keep_within=_span("keep_within", arguments.keep_within),
        replace_after=_span("replace_after", arguments.replace_after),
        keep_at_least=arguments.keep_at_least,
        keep_labels=arguments.keep_label,
        minimum_level=minimum_level_argument(session),
        time_zone=arguments.time_zone,
    )
    done: list[str] = []
    try:
        with session.working(f"pruning {repository.uri}"):
            outcome: Any = prune(
                repository=repository,
                policy=policy,
                dry_run=not arguments.delete,
                series=SeriesSelection(server=arguments.server),
                grace=parse_span(arguments.grace),
                context=replace(session.context, log=done.append),
            )
    except BaseException:
        for line in done:  # the table below, which says the same, does not appear
            session.log(line)
        raise
    listing = Listing(("", "series", "backup", "why"), names=3)
    for decision in outcome["decisions"]:
        delete = "deleted" if arguments.delete else "delete"
        mark = styled("keep", "green") if decision["keep"] else styled(delete, "red")
        listing.add(mark, decision["series"], decision["id"], "; ".join(decision["reasons"]))
    deleted = "deleted" if arguments.delete else "would be deleted (--delete)"
    locked = f" ({outcome['locked']:,} only locked)" if outcome["locked"] else ""
    kept = f"{counted(outcome['kept'], 'backup')} kept{locked}, {outcome['removed']:,} {deleted}"
    swept = [f"removed the leftovers of a killed process: {path}" for path in outcome["swept"]]
    session.result(outcome, *([listing] if listing.rows else []), *outcome["notes"], *swept, kept)


def _span(name: str, text: str | None) -> timedelta | None:
    given = not_empty(name, text)
    return None if given is None else parse_span(given)
