"""What the DAGs' pages say, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow_pgbackup.pipelines.fleet.model import Retention, Server, pool_of
from airflow_pgbackup.quantities import span_text


def describe_backup(name: str, server: Server, source: str) -> str:
    """Return what a run of the server's DAG does."""
    rows = {
        "server": f"{code(name)}, connection {code(server.postgres_conn_id)}",
        "databases": codes(server.databases),
        "left out": codes(server.exclude),
        "schedule": _schedule(server.schedule, server),
        "repository": _repository(server.repository, server.aws_conn_id),
        "copies": _repository(server.upload_to, server.upload_aws_conn_id),
        "verified at level": code(server.level),
        "at once": f"{server.parallel}",
        "pool": "" if server.pool is None else f"{code(pool_of(server.pool, name))}, which must exist",
        "retention": _retention(server.retention, "nothing is deleted"),
        "retention of copies": _retention(server.upload_retention, "") if server.upload_to else "",
        "pg_dump": codes(f"{key}={value!r}" for key, value in server.dump.items()),
        **_alerts(server),
    }
    return (
        f"Backs up each database of {code(name)} with pg_dump, and its roles and tablespaces once; verifies each "
        "backup; and ties them together as a backup set. The databases are not one snapshot.\n\n"
        f"{_table(rows)}\n"
        "A database that fails does not hold up the others: the run then fails at the end and names what is missing. "
        "Trigger the first run by hand with `init`, which creates the repositories.\n\n"
        f"{_made(name, server, source)}"
    )


def describe_drill(name: str, server: Server, source: str) -> str:
    """Return what the server's drill does."""
    drill = server.drill
    assert drill is not None  # noqa: S101
    rows = {
        "schedule": _schedule(drill.schedule, server),
        "repository": _repository(server.repository, server.aws_conn_id),
        "at most": f"{drill.max_size / 1024**3:g} GiB",
        "server for the rehearsal": code(drill.scratch_conn_id),
        **_alerts(server),
    }
    return (
        f"Rehearses backups of {code(name)} in turn: restores each into a throwaway server, and compares every row "
        f"with the dump.\n\n{_table(rows)}\n{_made(name, server, source)}"
    )


def describe_freshness(name: str, server: Server, source: str) -> str:
    """Return what the server's freshness check does."""
    freshness = server.freshness
    assert freshness is not None  # noqa: S101
    rows = {
        "schedule": _schedule(freshness.schedule, server),
        "repository": _repository(server.repository, server.aws_conn_id),
        "greatest age": span_text(freshness.max_age),
        "ignored": codes(freshness.exclude),
        "may become empty": codes(freshness.allow_drop),
        **_alerts(server),
    }
    return (
        f"Fails when a series of {code(name)} has no recent verified backup, or the server no recent complete backup "
        "set. It reads the repository, so it notices a backup DAG that is paused or broken.\n\n"
        f"{_table(rows)}\n{_made(name, server, source)}"
    )


def code(text: object) -> str:
    """Return a text as code in a table's cell, whatever characters it has; nothing for nothing."""
    if text in (None, ""):
        return ""
    plain = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain else f"`{plain}`"


def codes(texts: Iterable[object]) -> str:
    """Return texts as code, one after the other."""
    return ", ".join(map(code, texts))


def _table(rows: dict[str, str]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {text} |\n" for name, text in rows.items() if text)


def _schedule(cron: str | None, server: Server) -> str:
    return "by hand" if cron is None else f"{code(cron)}, {server.time_zone}"


def _repository(uri: str | None, aws_conn_id: str | None) -> str:
    if uri is None or not uri.lower().startswith("s3://"):
        return code(uri)
    return f"{code(uri)}, connection {code(aws_conn_id)}" if aws_conn_id else code(uri)


def _retention(retention: Retention | None, nothing: str) -> str:
    if retention is None:
        return nothing
    values = {name: getattr(retention, name) for name in Retention.model_fields if name in retention.model_fields_set}
    return codes(
        f"{name}={span_text(value) if isinstance(value, timedelta) else value}" for name, value in values.items()
    )


def _alerts(server: Server) -> dict[str, str]:
    alerts = {"failure": server.alerts.on_failure, "success": server.alerts.on_success}
    return {f"on {event}": codes(map(_callback, callbacks)) for event, callbacks in alerts.items()}


def _callback(callback: Any) -> str:
    callback = getattr(callback, "notifier", callback)  # of a FailureAlert
    kind = callback if hasattr(callback, "__qualname__") else type(callback)
    return f"{kind.__module__}.{kind.__qualname__}"


def _made(name: str, server: Server, source: str) -> str:
    group = f" and `groups.{server.group}`" if server.group else ""
    return f"Made from `servers.{name}`{group} in {source}, and `defaults`."
