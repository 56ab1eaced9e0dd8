"""``pgbackup adopt``: make backups of existing dumps, after showing the plan."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.prompt import Confirm

from airflow_pgbackup.backup.adopt import AdoptionPlan, PlannedDump, carry_out, open_sources, plan_adoption
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli.arguments import repository_argument, repository_at
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import check_level
from airflow_pgbackup.terminal import styled

_HOW = {"header": "header", "name": "name", "mtime": "file"}


def run(session: Session) -> None:
    arguments = session.arguments
    if arguments.verify is not None:
        check_level(arguments.verify, "--verify", required=True)
    repository = repository_argument(session)
    with session.working("reading the dumps"):
        plan = plan_adoption(
            repository=repository,
            sources=open_sources(
                arguments.sources, open_store=lambda uri: repository_at(session, uri), context=session.context
            ),
            server=arguments.server,
            database=arguments.database,
            database_patterns=arguments.database_pattern,
            time_patterns=arguments.time_pattern,
            time_zone=arguments.time_zone,
            context=session.context,
        )
    if arguments.dry_run:
        empty: dict[str, object] = {"adopted": [], "present": [], "failed": [], "removed": [], "kept": []}
        session.result({**plan.describe(), **empty}, *_shown(plan), "dry run: nothing was changed")
        if _is_incomplete(plan):
            session.status = EXIT_STATUS["failed"]
        return
    if not arguments.json:
        session.show(*_shown(plan))
    if (plan.to_adopt or (arguments.move and plan.dumps)) and not arguments.yes:
        _ask(session, plan)
    _carry_out(session, plan, repository)


def _ask(session: Session, plan: AdoptionPlan) -> None:
    """Ask whether to carry out the plan.

    :raises ConfigurationError: nobody can be asked, or the answer is no.
    """
    if session.arguments.json or not (sys.stdin.isatty() and session.err.is_terminal):
        raise ConfigurationError(
            "nothing was changed: without a terminal to ask at, adopt needs --yes",
            hint="Check the plan, which --dry-run shows, then add --yes.",
        )
    dumps = plan.dumps if session.arguments.move else plan.to_adopt
    size = human_bytes(sum(planned.dump.size for planned in dumps))
    what = "Move" if session.arguments.move else "Link" if session.arguments.link else "Copy"
    question = f"{what} {counted(len(dumps), 'dump')} ({size}) into {session.arguments.repository}?"
    try:
        agreed = Confirm.ask(styled(question, "bold"), console=session.err, default=False)
    except EOFError:
        agreed = False
    if not agreed:
        raise ConfigurationError("nothing was changed: the plan was not confirmed")


def _carry_out(session: Session, plan: AdoptionPlan, repository: Repository) -> None:
    arguments = session.arguments

    def verified(reference: Mapping[str, object]) -> dict[str, object]:
        return verify(reference=reference, repository=repository, level=arguments.verify, context=session.context)

    with session.working("adopting", makes=True):
        outcome: Any = carry_out(
            plan,
            link=arguments.link,
            move=arguments.move,
            verify=verified if arguments.verify else None,
            level=arguments.verify or "archive",
            context=session.context,
        )
    undone = outcome["skipped"][len(plan.skipped) :]
    statuses = {one["status"] for one in outcome["failed"]}
    if "failed" in statuses:
        session.status = EXIT_STATUS["check failed"]
    elif undone or outcome["kept"] or _is_incomplete(plan):
        session.status = EXIT_STATUS["failed"]
    elif statuses:
        session.status = EXIT_STATUS["not proven"]
    lines = [f"{one['path']}: skipped: {one['reason']}" for one in undone]
    lines += [f"{one['path']}: adopted, but its source was not removed: {one['reason']}" for one in outcome["kept"]]
    lines += [f"{one['path']}: {one['status']} at verification: {one['reason']}" for one in outcome["failed"]]
    summary = [f"{counted(len(outcome['adopted']), 'dump')} adopted"]
    for name, word in (("present", "adopted before"), ("skipped", "skipped"), ("failed", "not verified")):
        if outcome[name]:
            summary.append(f"{len(outcome[name]):,} {word}")
    if outcome["removed"]:
        summary.append(f"{counted(len(outcome['removed']), 'source')} removed")
    lines.append(", ".join(summary))
    if outcome["adopted"] and not arguments.verify:
        lines.append("next: verify them with pgbackup verify")
    session.result(outcome, *lines)


def _is_incomplete(plan: AdoptionPlan) -> bool:
    """Return whether a file that may be a dump, or that the user named, is skipped."""
    return any(skipped.unreadable or skipped.named for skipped in plan.skipped)


def _shown(plan: AdoptionPlan) -> list[str | Listing]:
    """Return the plan for people: a line for each dump and each skipped file, warnings, totals."""
    shown: list[str | Listing] = []
    if plan.dumps:
        listing = Listing(("file", "series", "time (UTC)", "from", "size", "notes"), names=2, right=(4,), labeled=(3,))
        for planned in plan.dumps:
            listing.add(*_row(planned))
        shown.append(listing)
    shown += [f"skipped {skipped.name}: {skipped.reason}" for skipped in plan.skipped]
    shown += [f"time pattern {pattern}: {counted(number, 'name')}" for pattern, number in plan.patterns.items()]
    shown += [f"warning: {warning}" for warning in plan.warnings]
    series = {planned.series for planned in plan.to_adopt}
    size = human_bytes(sum(planned.dump.size for planned in plan.to_adopt))
    shown.append(
        f"plan: {counted(len(plan.to_adopt), 'dump')} of {counted(len(series), 'series')} to adopt, {size}; "
        f"{len(plan.dumps) - len(plan.to_adopt):,} adopted before; {len(plan.skipped):,} skipped"
    )
    return shown


def _row(planned: PlannedDump) -> tuple[str, ...]:
    notes = ["adopted before"] if planned.present else []
    if planned.database_from != "dump":
        notes.append(f"database by {planned.database_from}")
    return (
        planned.dump.name,
        str(planned.series),
        f"{planned.time.at:%Y-%m-%d %H:%M}",
        _HOW[planned.time.source],
        human_bytes(planned.dump.size),
        "; ".join((*notes, *planned.notes)),
    )
