"""What `show` says of a backup's source."""

from __future__ import annotations

import pytest

from airflow_pgbackup.cli.cmd_show import source_text
from airflow_pgbackup.repository.manifest import DatabaseSource, StandbyReplay


@pytest.mark.parametrize(
    ("size", "replay", "service", "expected"),
    [
        (None, None, None, "PostgreSQL 18.4"),
        (2048, None, None, "PostgreSQL 18.4, 2.0 KiB"),
        (2048, StandbyReplay(0, 0.0), None, "PostgreSQL 18.4, 2.0 KiB, standby 0.0 s behind"),
        (2048, StandbyReplay(None, None), "Neon", "PostgreSQL 18.4, 2.0 KiB, standby, lag unknown, on Neon"),
    ],
)
def test_the_source(size: int | None, replay: StandbyReplay | None, service: str | None, expected: str) -> None:
    source = DatabaseSource(
        database="app",
        server_version="18.4",
        server_version_num=180004,
        size_bytes=size,
        encoding="UTF8",
        host=None,
        service=service,
        replay=replay,
    )
    assert source_text(source) == expected
