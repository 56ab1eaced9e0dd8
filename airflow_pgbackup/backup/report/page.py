"""The report for people: lines of text, and one HTML file for mail clients, which keep no style sheet and no script."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.formats import environment, text, when
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

    from airflow_pgbackup.backup.report.collect import Report, RepositoryReport, SeriesPeriod

MOST_ROWS = 300
"""Series of a repository that the report lists, worst first: mail servers refuse what is too long."""


def as_text(report: Report) -> list[str]:
    """Return the report as lines."""
    lines = [printable(report.sentence), f"Period: {when(report.start)} to {when(report.end)}."]
    for each in report.repositories:
        lines += ["", text(each.uri)]
        if each.overview is None:
            lines.append(f"  could not be read: {text(each.problem or '')}")
            continue
        for one in each.series[:MOST_ROWS]:
            status = one.status
            facts = f"{counted(one.made, 'backup')}, {counts(one)}"
            lines.append(
                f"  {status.status}: {text(f'{status.server}/{status.database}')}: {text(status.reason)}; {facts}"
            )
        lines += more(each)
        if numbers := sets(each):
            lines.append(f"  backup sets: {numbers}")
        lines += [f"  note: {text(note)}" for note in each.overview.notes]
    if problems := open_problems(report):
        lines += ["", "Open problems:", *(f"  {problem}" for problem in problems)]
    return lines


def as_html(report: Report, *, picture: str | None = None) -> str:
    """Return the report as one HTML document, without scripts or external content.

    :param picture: the address of the picture of :func:`.plot.plot`, such as ``cid:plot`` of a mail; None: without.
    """
    return (
        _templates()
        .get_template("report.html")
        .render(report=report, picture=picture, most=MOST_ROWS, open_problems=open_problems(report))
    )


def open_problems(report: Report) -> list[str]:
    """Return what keeps the period from proving that all can be restored, one clause for each kind of problem."""
    series = [one for each in report.repositories for one in each.series if one.status.status != "dropped"]
    failed = sum(one.failed for one in series)
    undecided = sum(one.not_proven for one in series)
    unverified = sum(one.unverified for one in series)
    unrehearsed = sum(not one.rehearsals for one in series)
    unread, unknown, empty = len(report.unread), report.unknown, len(report.empty)
    points = (
        (unread, f"{counted(unread, 'repository', 'repositories')} could not be read: their backups are unknown"),
        (empty, f"{counted(empty, 'repository has', 'repositories have')} no backup"),
        (unknown, f"{counted(unknown, 'note')} on backup sets: other databases may have no backup"),
        (failed, f"{counted(failed, 'backup')} failed verification"),
        (undecided, f"{counted(undecided, 'backup')} could not be verified: the result is not proven"),
        (unverified, f"{counted(unverified, 'backup')} unverified"),
        (unrehearsed, f"{unrehearsed} of {len(series)} series not rehearsed in this period"),
    )
    return [says for number, says in points if number]


def counts(one: SeriesPeriod) -> str:
    """Return how many backups of the period are in each state: ``6 verified, 1 failed``."""
    parts = [
        f"{number} {name}"
        for number, name in (
            (one.verified, "verified"),
            (one.failed, "failed"),
            (one.not_proven, "not proven"),
            (one.unverified, "unverified"),
        )
        if number
    ]
    return ", ".join([*parts, f"{one.rehearsals} rehearsed"] if one.rehearsals else parts) or "none verified"


def sets(each: RepositoryReport) -> str:
    """Return how many backup sets of the period are complete: ``6 complete, 1 partial``; empty if there are none."""
    if not (each.complete_sets or each.damaged_sets or each.partial_sets):
        return ""
    damaged = f"{each.damaged_sets} no longer complete, " if each.damaged_sets else ""
    return f"{each.complete_sets} complete, {damaged}{each.partial_sets} partial"


def more(each: RepositoryReport) -> list[str]:
    """Return a line that says how many series are not listed."""
    left = len(each.series) - MOST_ROWS
    return [f"  {left} more series are not listed"] if left > 0 else []


def _growth(percent: float | None) -> str:
    return "" if percent is None else f"{percent:+.1f} %"


@lru_cache(maxsize=1)
def _templates() -> Environment:
    made = environment("airflow_pgbackup.backup.report")
    made.filters |= {"growth": _growth, "counts": counts, "sets": sets}
    return made
