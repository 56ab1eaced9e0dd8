"""What several commands show: a backup as JSON, an age, facts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from rich.text import Text

from airflow_pgbackup.quantities import human_age
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.terminal import styled


def backup_as_json(backup: Backup, manifest: Manifest | None = None) -> dict[str, object]:
    """Return a backup as JSON.

    :param manifest: it has the labels, which file names do not.
    """
    return {
        **backup.as_json(),
        "pinned": backup.pinned,
        "kind": backup.series.kind,
        **({"labels": list(manifest.labels)} if manifest else {}),
    }


def age(moment: datetime) -> str:
    """Return the time since ``moment``: ``35 min``, ``4 h 10 min``, ``1 d 4 h``."""
    return human_age(datetime.now(timezone.utc) - moment)


def facts(named: Iterable[tuple[str, str]]) -> list[Text]:
    """Return a line for each name and its value."""
    return [Text.assemble(styled(f"{name:<10}", "bold"), styled(value, "")) for name, value in named]
