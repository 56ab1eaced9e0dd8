"""Airflow's own metrics (StatsD, OpenTelemetry): what the operators did, ``pgbackup.<operator>.<metric>``.

A metric that cannot be sent never fails a task. Names and tags have few values: tags are the server, the database, the
level, and the class of an error.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.notifications.operator_module import operator_module
from airflow_pgbackup.operators._figures import TaskFigures
from airflow_pgbackup.repository.layout import LEVELS, Series

log = logging.getLogger(__name__)

_NOT_IN_TAGS = re.compile(r"[^\w.@/+-]", re.ASCII)  # StatsD's separators are among them
_LONGEST = 100
_DIGITS = 8
_DIGEST = re.compile(rf"\.[0-9a-f]{{{_DIGITS}}}\Z")


@contextmanager
def measured(task: Any, figures: TaskFigures) -> Iterator[dict[str, object]]:
    """Count and time the work of a task in the ``with``, which puts the result into the yielded dict.

    Sends ``pgbackup.dump.success`` or ``.failure`` (with tag ``cause``), ``.duration``, and after a success ``.bytes``,
    and ``.rows`` and ``.restore_duration`` where they were measured; ``dump`` is the name of the operator's module.

    :param figures: what the work measures; complete when it has succeeded.
    :raises BaseException: what the work raises.
    """
    result: dict[str, object] = {}
    start = monotonic()
    try:
        yield result
    except BaseException as error:
        _send_work(task, {}, figures, timedelta(seconds=monotonic() - start), cause=_cause(error))
        raise
    _send_work(task, result, figures, timedelta(seconds=monotonic() - start))


def send_failure(task: Any, cause: str) -> None:
    """Count a failure of a task whose work is not timed."""
    name = f"pgbackup.{operator_module(task)}.failure"
    _send(lambda stats: stats.incr(name, tags={**_tags(task, {}), "cause": cause}))


def send_freshness(found: Mapping[str, Any]) -> None:
    """Send gauges for each series that a freshness check found, with tags ``server`` and ``database``.

    ``pgbackup.freshness.fresh`` is 1 or 0; ``.level`` is 1 ``integrity``, 2 ``archive``, 3 ``restore``, 0 for none;
    ``.age`` in seconds and ``.bytes`` are those of the newest backup that counts, and missing where there is none.

    :param found: as :func:`airflow_pgbackup.backup.freshness.freshness` returns it.
    """

    def send(stats: Any) -> None:
        for series in found["series"]:
            level = series["verified"]
            gauges = {
                "fresh": int(series["fresh"]),
                "level": LEVELS.index(level) + 1 if level else 0,
                "age": series["age_seconds"],
                "bytes": series["size"],
            }
            for name, value in gauges.items():
                if value is not None:
                    stats.gauge(f"pgbackup.freshness.{name}", value, tags=_tags(None, series))

    _send(send)


def _send_work(
    task: Any,
    result: Mapping[str, object],
    figures: TaskFigures,
    duration: timedelta,
    cause: str | None = None,
) -> None:
    def send(stats: Any) -> None:
        prefix = f"pgbackup.{operator_module(task)}"
        tags = _tags(task, result)
        if cause is not None:
            stats.incr(f"{prefix}.failure", tags={**tags, "cause": cause})
        else:
            stats.incr(f"{prefix}.success", tags=tags)
            for name, count in (("bytes", result.get("size", result.get("bytes"))), ("rows", figures.rows)):
                if type(count) is int:
                    stats.incr(f"{prefix}.{name}", count, tags=tags)
            if figures.restore_seconds is not None:
                restore = timedelta(seconds=figures.restore_seconds)
                stats.timing(f"{prefix}.restore_duration", restore, tags=tags)
        stats.timing(f"{prefix}.duration", duration, tags=tags)

    if not result.get("dry_run"):  # a plan is not the work
        _send(send)


def _send(send: Callable[[Any], None]) -> None:
    """Call a function with Airflow's ``Stats``; what goes wrong fails no task."""
    try:
        from airflow.sdk.observability.stats import Stats

        send(Stats)
    except Exception as error:  # noqa: BLE001  the work is done, or has failed for another reason
        log.debug("no metrics were sent: %r", error)


def _tags(task: Any, result: Mapping[str, object]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for reference in (result, result.get("reference"), getattr(task, "backup", None)):
        if isinstance(reference, Mapping) and isinstance(path := reference.get("series"), str):
            tags = _tags_of(path)
            break
    else:
        server = getattr(task, "server", None) or getattr(task, "postgres_conn_id", None)
        given = {"server": server, "database": getattr(task, "database", None)}
        tags = {name: _tag(value) for name, value in given.items() if isinstance(value, str)}
    level = getattr(task, "level", None)
    return {**tags, "level": _tag(level)} if isinstance(level, str) else tags


def _tags_of(path: str) -> dict[str, str]:
    try:
        series = Series.parse(path)
    except ValueError:  # the task fails, and is counted
        return {"database": _tag(path)}
    database = f"@{series.kind}" if series.database is None else _tag(series.database)
    return {"server": _tag(series.server), "database": database}


def _tag(name: str) -> str:
    """Return the tag value for a name. Different names get different values, except for collisions of the digest.

    A name that is not kept as it is gets a digest, and so does one that looks like a name with a digest, or like the
    ``@cluster`` of a series that is not of a database.
    """
    kept = _NOT_IN_TAGS.sub("_", name)
    if kept == name and len(name) <= _LONGEST and not name.startswith("@") and not _DIGEST.search(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    return f"{kept[: _LONGEST - _DIGITS - 1]}.{digest}"


def _cause(error: BaseException) -> str:
    return type(error).__name__ if isinstance(error, PgBackupError | AirflowTaskTimeout) else "other"
