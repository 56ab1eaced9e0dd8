"""Airflow's own metrics (StatsD, OpenTelemetry): what the operators did, ``pgbackup.<operator>.<metric>``.

A metric that cannot be sent never fails a task. Names and tags have few values: tags are the server, the database, the
level, and the class of an error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_pgbackup.errors import PgBackupError

log = logging.getLogger(__name__)

_PACKAGE = "airflow_pgbackup.operators."
_NOT_IN_TAGS = re.compile(r"[^\w.@/+-]", re.ASCII)  # StatsD's separators are among them
_LONGEST = 100


@contextmanager
def measured(task: Any) -> Iterator[dict[str, object]]:
    """Count and time the work of a task in the ``with``, which puts the result into the yielded dict.

    Sends ``pgbackup.dump.success`` or ``.failure`` (with tag ``cause``), ``.duration``, and after a success ``.bytes``;
    ``dump`` is the name of the operator's module.

    :raises BaseException: what the work raises.
    """
    result: dict[str, object] = {}
    start = monotonic()
    try:
        yield result
    except BaseException as error:
        _send(task, {}, timedelta(seconds=monotonic() - start), cause=_cause(error))
        raise
    _send(task, result, timedelta(seconds=monotonic() - start))


def _send(task: Any, result: Mapping[str, object], duration: timedelta, cause: str | None = None) -> None:
    if result.get("dry_run"):
        return  # a plan is not the work
    try:
        from airflow.sdk.observability.stats import Stats

        prefix = f"pgbackup.{_verb(task)}"
        tags = _tags(task, result)
        if cause is not None:
            Stats.incr(f"{prefix}.failure", tags={**tags, "cause": cause})
        else:
            Stats.incr(f"{prefix}.success", tags=tags)
            if type(size := result.get("size", result.get("bytes"))) is int:
                Stats.incr(f"{prefix}.bytes", size, tags=tags)
        Stats.timing(f"{prefix}.duration", duration, tags=tags)
    except Exception as error:  # noqa: BLE001  the work is done, or has failed for another reason
        log.debug("no metrics were sent: %r", error)


def _verb(task: Any) -> str:
    """Return the name of the operator's module, also for a class derived from it."""
    modules = (kind.__module__ for kind in type(task).__mro__)
    return next(module.removeprefix(_PACKAGE) for module in modules if module.startswith(_PACKAGE))


def _tags(task: Any, result: Mapping[str, object]) -> dict[str, str]:
    from airflow_pgbackup.repository.layout import Series

    tags: dict[str, object] = {}
    for reference in (result, result.get("reference"), getattr(task, "backup", None)):
        if isinstance(reference, Mapping) and isinstance(path := reference.get("series"), str):
            series = Series.parse(path)
            tags = {"server": series.server, "database": series.database or f"@{series.kind}"}
            break
    else:
        tags["server"] = getattr(task, "server", None) or getattr(task, "postgres_conn_id", None)
        tags["database"] = getattr(task, "database", None)
    tags["level"] = getattr(task, "level", None)
    return {name: _NOT_IN_TAGS.sub("_", value)[:_LONGEST] for name, value in tags.items() if isinstance(value, str)}


def _cause(error: BaseException) -> str:
    return type(error).__name__ if isinstance(error, PgBackupError | AirflowTaskTimeout) else "other"
