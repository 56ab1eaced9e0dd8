"""Assets: what dump and verify tasks emit, and what a DAG that waits for a backup is scheduled on.

.. code-block:: text

    pgbackup://prod/app                      each backup of the database app of the server prod, unverified
    pgbackup://prod/app?verified=archive     each backup of it that was verified at level archive
    pgbackup://prod/@globals                 the same for a series of pg_dumpall
    pgbackup://staging/app?refreshed=yes     each refresh of the database app of the connection staging

The path is that of the series in a repository, its names percent-encoded, so the URI is ASCII and short. A task learns
the database from its connection or from an earlier task, so it declares an alias when its DAG is parsed, and names the
asset when it succeeds.

The DAG processor and the API server import this module, so it imports no provider and no verb.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from airflow.sdk import Asset, AssetAlias

from airflow_pgbackup.repository.layout import LEVELS, Series, check_level
from airflow_pgbackup.text import printing

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["DUMPED", "REFRESHED", "VERIFIED", "backup_asset", "refreshed_asset"]

DUMPED = AssetAlias("pgbackup-dumped")
"""Any backup that a dump task made, unverified."""

VERIFIED = AssetAlias("pgbackup-verified")
"""Any backup that a verify task verified, at any level. A DAG scheduled on it starts after each."""

REFRESHED = AssetAlias("pgbackup-refreshed")
"""Any database that a refresh task has given the contents of a backup."""

_info = printing(logging.getLogger(__name__).info)

_SCHEME = "pgbackup"
_REFRESHED = "refreshed=yes"


def backup_asset(
    server: str, database: str | None = None, level: str | None = "archive", *, scope: str | None = None
) -> Asset:
    """Return the asset of a series, for the ``schedule`` of a DAG.

    It has one event for each task that verified a backup of the series at this level, and none for a backup that failed
    or could not be proven. A level does not include the higher ones: combine assets with ``|`` for that.

    :param server: the server name of the dump task, by default its connection id.
    :param database: the database; None for pg_dumpall.
    :param level: the ``level`` of the verify task; None for the event of the dump task.
    :param scope: of a pg_dumpall: ``globals``, ``roles`` or ``tablespaces``; None for the complete cluster.
    :raises ConfigurationError: an invalid name or level.
    """
    check_level(level, "level")
    return _asset(Series(server, database, scope), level)


def refreshed_asset(postgres_conn_id: str, database: str) -> Asset:
    """Return the asset of a refreshed database, for the ``schedule`` of a DAG. It has one event for each refresh.

    :param postgres_conn_id: of the refresh task.
    :param database: the refreshed database.
    :raises ConfigurationError: an invalid name.
    """
    return Asset(f"{_SCHEME}://{Series(postgres_conn_id, database).path}?{_REFRESHED}")


def _asset(series: Series, level: str | None) -> Asset:
    return Asset(f"{_SCHEME}://{series.path}" + (f"?verified={level}" if level else ""))


def normalize_uri(uri: SplitResult) -> SplitResult:
    """Check the URI of an asset: Airflow calls this for each with the scheme ``pgbackup``.

    It corrects nothing: an asset under another URI would have no events.

    :raises ValueError: :func:`backup_asset` does not make such a URI.
    """
    try:
        Series.parse(f"{uri.netloc}{uri.path}")
    except ValueError:
        known = False
    else:
        known = uri.query in ("", _REFRESHED, *(f"verified={level}" for level in LEVELS))
    if not known:
        raise ValueError(
            f"not the URI of a backup asset: {uri.geturl()[:200]!r}. "
            "HINT: Use backup_asset(server, database, level), or refreshed_asset(postgres_conn_id, database)."
        )
    return uri


def with_alias(outlets: Iterable[Any], alias: AssetAlias) -> list[Any]:
    """Return the outlets of a task with an alias, which may be among them already."""
    return [*(outlet for outlet in outlets if outlet != alias), alias]


def emit(
    context: Context,
    alias: AssetAlias,
    backup: Mapping[str, object],
    level: str | None,
    figures: Mapping[str, object],
) -> None:
    """Let the task emit the event of a backup. Airflow records it when the task succeeds, and never before.

    Without an event of the same asset and backup that started the run: a DAG that verifies the backup whose
    verification it waits for would start itself without end.

    :param backup: its reference, which holds no secret: the ``extra`` of the event has it, the level, and the figures.
    :param figures: ``rows``, ``duration_seconds`` and ``restore_seconds``, for the ``extra``.
    """
    asset = _asset(Series.parse(str(backup["series"])), level)
    extra: dict[str, Any] = {
        "backup": dict(backup),
        "level": level,
        "size": backup.get("size"),
        "sha256": backup.get("sha256"),
        **figures,
    }
    if not _started_by(context, asset, backup):
        context["outlet_events"][alias].add(asset, extra=extra)


def emit_refreshed(context: Context, asset: Asset, refreshed: Mapping[str, Any]) -> None:
    """Let the task emit the event of a refreshed database, as :func:`emit` does.

    :param refreshed: what the refresh returned, which holds no secret: the ``extra`` of the event has the backup's
        reference, the database, rows, bytes and duration.
    """
    extra = {name: refreshed[name] for name in ("database", "replaced", "rows", "database_bytes", "duration_seconds")}
    if not _started_by(context, asset, refreshed["reference"]):
        context["outlet_events"][REFRESHED].add(asset, extra={"backup": dict(refreshed["reference"]), **extra})


def _started_by(context: Context, asset: Asset, backup: Mapping[str, object]) -> bool:
    """Return whether an event of this asset and backup started the run, and log it."""

    def same(of_event: object) -> bool:
        names = ("repository_uuid", "id")
        return isinstance(of_event, Mapping) and all(of_event.get(name) == backup.get(name) for name in names)

    triggering = (context.get("triggering_asset_events") or {}).values()
    started = [event for events in triggering for event in events if event.asset.uri == asset.uri]
    if not any(same((event.extra or {}).get("backup")) for event in started):
        return False
    _info(f"emitting no event of {asset.uri}: one of this backup started the run")
    return True
