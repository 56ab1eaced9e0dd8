"""The pages of one series and of one backup."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from airflow_pgbackup.backup import formats
from airflow_pgbackup.backup.overview import BackupDetail, SeriesDetail, backup_detail, series_detail
from airflow_pgbackup.backup.overview.model import aged
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.plugin.cache import Cache, Reading
from airflow_pgbackup.plugin.charts import Trend, trend
from airflow_pgbackup.plugin.forms import Chosen, buttons
from airflow_pgbackup.plugin.pages import problem_page, render
from airflow_pgbackup.plugin.sources import PageRepository, read_sources
from airflow_pgbackup.repository.layout import Series, artifact_key, parse_backup_id
from airflow_pgbackup.repository.manifest import Manifest

DETAILS: Cache[Any] = Cache(most=20)  # one of a backup with 30,000 tables takes 12 MiB
"""What the pages of series and backups have read."""

MOST_TABLES = 500
_LONGEST_PARAMETER = 1000
_DAG_ID = re.compile(r"[\w.-]{1,250}")  # Airflow's own rule


async def series_page(repository: str = "", series: str = "") -> HTMLResponse:
    """A series: its backups over time, and what the next prune would do with each."""
    source, parsed = await _asked(repository, series)
    target = source.targets.of(parsed)
    reading: Reading[SeriesDetail] = await DETAILS.get(
        (*source.place, parsed),
        lambda: series_detail(repository=source.open(), series=parsed, target=target),
        lane=source.place,
    )
    found: SeriesDetail | None = _value(reading)
    if found:
        found = replace(found, status=aged(found.status, datetime.now(timezone.utc)))
    return await asyncio.to_thread(  # not in the event loop, as the overview
        render,
        "series.html",
        title=str(parsed),
        source=source,
        reading=reading,
        detail=found,
        trends=_trends(found) if found else [],
    )


async def backup_page(
    request: Request, user: GetUserDep, repository: str = "", series: str = "", id: str = ""
) -> HTMLResponse:
    """A backup: actions, manifest, verifications, restore commands, and what changed since the one before."""
    source, parsed = await _asked(repository, series)
    if parse_backup_id(id) is None:
        raise HTTPException(404)
    reading: Reading[BackupDetail] = await DETAILS.get(
        (*source.place, parsed, id),
        lambda: backup_detail(repository=source.open(), series=parsed, id=id),
        lane=source.place,
    )
    found = _value(reading)
    manifest = found.evidence.manifest if found else None
    return await asyncio.to_thread(
        render,
        "backup.html",
        title=f"Backup {id}",
        source=source,
        series=parsed,
        id=id,
        reading=reading,
        detail=found,
        manifest=manifest,
        stored_at=_stored_at(source, manifest) if manifest else None,
        run=run_link(manifest.origin) if manifest else None,
        most=MOST_TABLES,
        buttons=await run_in_threadpool(buttons, request, user, Chosen(source, parsed, id)) if found else [],
    )


async def _asked(repository: str, series: str) -> tuple[PageRepository, Series]:
    """Return what a request names: a repository that is configured, a series by its folder."""
    try:
        sources = await asyncio.to_thread(read_sources)
    except ConfigurationError as error:
        raise problem_page("The configuration of this page is invalid", error) from None
    # By its number in links of the page, by its URI in those of tasks.
    source = next((one for one in sources if repository in (str(one.number), one.plain_uri)), None)
    if source is None or len(series) > _LONGEST_PARAMETER:
        raise HTTPException(404)
    try:
        return source, Series.parse(series)
    except (ValueError, ConfigurationError):
        raise HTTPException(404) from None


def _value(reading: Reading[Any]) -> Any:
    """Return what was read, or None.

    :raises HTTPException: it does not exist.
    """
    if isinstance(reading.problem, BackupNotFound):
        raise HTTPException(404)
    return reading.value


def _stored_at(source: PageRepository, manifest: Manifest) -> str:
    artifact = manifest.artifact
    return f"{source.plain_uri}/{artifact_key(manifest.series, manifest.id, artifact.name, artifact.attempt)}"


def _trends(found: SeriesDetail) -> list[tuple[str, Trend]]:
    entries = list(reversed(found.timeline))
    shown: list[tuple[str, list[float | None], Callable[[Any], str]]] = [
        ("Size", [one.backup.size for one in entries], formats.size),
        ("Rows", [one.backup.rows for one in entries], formats.number),
        ("Duration", [one.backup.seconds for one in entries], formats.span),
        ("Restore time", [one.restore_seconds for one in entries], formats.span),
    ]
    made = []
    for name, values, write in shown:
        known = [value for value in values if value is not None]
        if known and (line := trend(values, (write(known[0]), write(known[-1])), width=300, height=60)):
            made.append((name, line))
    return made


def run_link(origin: Any) -> str | None:
    """Return the address of the task that made a backup, relative to the page; None where a manifest gives none.

    A manifest is not to be trusted: the address has only segments that Airflow's own ids can have.
    """
    dag_id, run_id, task_id = (origin.get(name) for name in ("dag_id", "run_id", "task_id"))
    if not (isinstance(dag_id, str) and _DAG_ID.fullmatch(dag_id) and dag_id.strip(".")):
        return None
    link = f"../dags/{quote(dag_id, safe='')}"
    # Not printable: a lone surrogate, for one, which no URL can hold.
    if not (isinstance(run_id, str) and 0 < len(run_id) <= 250 and run_id.strip(".") and run_id.isprintable()):
        return link
    link += f"/runs/{quote(run_id, safe='')}"
    if isinstance(task_id, str) and _DAG_ID.fullmatch(task_id) and task_id.strip("."):
        index = origin.get("map_index")
        mapped = f"/mapped/{index}" if type(index) is int and index >= 0 else ""
        link += f"/tasks/{quote(task_id, safe='')}{mapped}"
    return link
