"""The pages: what is read for each, and given to its template."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment

from airflow_pgbackup.backup import formats
from airflow_pgbackup.backup.overview import Overview, SeriesStatus, overview
from airflow_pgbackup.backup.overview.model import STATUSES, aged, badness, by_database, sentence
from airflow_pgbackup.errors import ConfigurationError, PgBackupError
from airflow_pgbackup.plugin.cache import OLDEST, Cache, Reading
from airflow_pgbackup.plugin.charts import Trend, trend
from airflow_pgbackup.plugin.sources import PageRepository, read_sources

OVERVIEWS: Cache[Overview] = Cache(threads=8, bounded=False, oldest=OLDEST)
"""The overviews of the repositories, for all requests of this process. Most threads wait for a store."""

MOST_ROWS = 500
"""Series of a repository that the first view lists, worst first."""

_LONGEST_FIND = 300


@lru_cache(maxsize=1)
def _templates() -> Environment:
    made = formats.environment("airflow_pgbackup.plugin")
    made.globals["statuses"] = STATUSES
    return made


def render(
    template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """Return a page."""
    text = _templates().get_template(template).render(**values)
    return HTMLResponse(text, status, dict(headers) if headers else None)


@dataclass(frozen=True)
class _Row:
    """A series on the first view."""

    source: PageRepository
    series: SeriesStatus
    age: str
    share: int
    """Age of the newest verified backup, in percent of the target; 100 at most."""
    sizes: Trend | None
    seconds: Trend | None


@dataclass(frozen=True)
class _Section:
    """A repository on the first view."""

    source: PageRepository
    reading: Reading[Overview]
    rows: tuple[_Row, ...]
    left_out: int
    """Series that are to be listed, and are too many."""

    @property
    def overview(self) -> Overview | None:
        return self.reading.value


async def overview_page(find: str = "") -> HTMLResponse:
    """The first view: every series of every repository, worst first.

    :param find: a part of ``server/database``; list the series that have it in their names.
    """
    try:
        sources = await asyncio.to_thread(read_sources)  # which may read a fleet's file
    except ConfigurationError as error:
        raise problem_page("The configuration of this page is invalid", error) from None
    if not sources:
        return render("unconfigured.html", title="Backups")
    # At the same time, so that several repositories that do not answer cost the patience of one.
    readings = await asyncio.gather(*(OVERVIEWS.get(one.place, _read(one)) for one in sources))
    # Not in the event loop, in which Airflow answers all other requests: that may be thousands of series.
    return await asyncio.to_thread(_page, list(zip(sources, readings, strict=True)), find.strip()[:_LONGEST_FIND])


def _page(readings: Sequence[tuple[PageRepository, Reading[Overview]]], find: str) -> HTMLResponse:
    now = datetime.now(timezone.utc)
    sections = [_section(source, reading, find, now) for source, reading in readings]
    read = [section.overview for section in sections if section.overview]
    every = by_database(aged(one, now) for found in read for one in found.series)
    empty = sum(found.empty for found in read)
    waiting = [one.reading.reload_after for one in sections if one.reading.awaited]
    doubtful = [one.reading.age for one in sections if one.reading.doubtful]
    return render(
        "overview.html",
        title="Backups",
        sections=sections,
        sentence=sentence(every, now, empty=empty) if read else None,
        good=any(one.status == "restorable" for one in every)
        and all(one.fine for one in every)
        and len(read) == len(sections)
        and not empty
        and not doubtful
        and not any(found.unknown for found in read),
        read_ago=max(doubtful, default=None),
        reload_after=min(waiting, default=None),
        find=find,
    )


def _section(source: PageRepository, reading: Reading[Overview], find: str, now: datetime) -> _Section:
    if reading.value is None:
        return _Section(source, reading, (), 0)
    wanted = find.casefold()
    every = sorted((aged(one, now) for one in reading.value.series), key=badness)
    series = [one for one in every if wanted in f"{one.server}/{one.database}".casefold()]
    rows = tuple(_row(source, one, now) for one in series[:MOST_ROWS])
    return _Section(source, reading, rows, len(series) - len(rows))


def _read(source: PageRepository) -> Any:
    return lambda: overview(repository=source.open(), targets=source.targets)


def _row(source: PageRepository, one: SeriesStatus, now: datetime) -> _Row:
    sizes = [each.size for each in one.recent]
    seconds = [each.seconds for each in one.recent]
    known = [value for value in seconds if value is not None]
    age = (now - one.verified.started_at).total_seconds() if one.verified else None
    return _Row(
        source=source,
        series=one,
        age=formats.age(one.verified.started_at if one.verified else None, now),
        share=100 if age is None else min(100, max(1, round(100 * age / one.max_age))),
        sizes=trend(sizes, (formats.size(sizes[0]), formats.size(sizes[-1]))) if sizes else None,
        seconds=trend(seconds, (formats.span(known[0]), formats.span(known[-1]))) if known else None,
    )


def problem_page(title: str, error: PgBackupError) -> ProblemPage:
    """Return the exception that answers a request with an error and its hint."""
    return ProblemPage(render("problem.html", status=500, title=title, problem=error))


class ProblemPage(Exception):
    """Ends a request with a page."""

    def __init__(self, page: HTMLResponse) -> None:
        super().__init__("problem page")
        self.page = page
