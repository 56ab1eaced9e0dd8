"""What several commands show: a backup as JSON, an age, aligned columns."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.manifest import Manifest


def backup_as_json(backup: Backup, manifest: Manifest | None = None) -> dict[str, object]:
    """Return a backup as JSON.

    :param manifest: it knows what file names do not: labels, and the kind of an old backup.
    """
    return {
        **backup.as_json(),
        "pinned": backup.pinned,
        "kind": manifest.contents_kind if manifest else backup.series.kind,
        **({"labels": list(manifest.labels)} if manifest else {}),
    }


def age(moment: datetime) -> str:
    """Return the time since ``moment``: ``90 min``, ``5 h``, ``3 days``."""
    minutes = int((datetime.now(timezone.utc) - moment).total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"


def count(number: int, noun: str) -> str:
    """Return the number and its noun: ``1 backup``, ``2 backups``; ``1 series``, ``2 series``."""
    plural = noun if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
