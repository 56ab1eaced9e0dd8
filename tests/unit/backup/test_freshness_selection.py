"""Which series a freshness check looks at: naming pg_dumpall's backups does not leave out the databases."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from honest import write_backup

from airflow_pgbackup.backup.freshness import freshness
from airflow_pgbackup.backup.freshness_rules import FreshnessRules
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series

NOW = datetime(2026, 11, 22, 7, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("named", "also"), [({"cluster": True}, "@cluster"), ({"scopes": ["globals", "roles"]}, "@globals")]
)
def test_the_databases_of_the_server_are_checked_beside_the_cluster(
    here: Repository, named: dict[str, Any], also: str
) -> None:
    def stale(**selected: Any) -> list[str]:
        found: Any = freshness(
            repository=here,
            rules=FreshnessRules(max_age=timedelta(hours=26)),
            series=SeriesSelection(server="prod", **selected),
            exclude=["*/scratch"],
            now=NOW,
        )
        return [one["series"] for one in found["series"] if not one["fresh"]]

    write_backup(here, Series("prod", "app"), NOW - timedelta(days=9))
    write_backup(here, Series("prod", "scratch"), NOW - timedelta(days=9))
    write_backup(here, Series("other", "app"), NOW - timedelta(days=9))
    write_backup(here, Series("prod", None, "roles"), NOW)
    assert stale(**named) == ["prod/app", f"prod/{also}"]
    write_backup(here, Series.parse(f"prod/{also}"), NOW)
    assert stale(**named) == ["prod/app"]
    assert stale(databases=[], **named) == []
