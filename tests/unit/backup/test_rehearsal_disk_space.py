"""The disk space that a rehearsal asks for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.rehearsal.disk_space import check_disk_space
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings

GOLDEN = Path(__file__).parents[2] / "golden" / "manifest-database-1.7.json"
GIB = 1024**3


@pytest.mark.parametrize(
    ("options", "size", "fits"),
    [
        ({}, 1000 * GIB, False),
        ({"jobs": 2}, 1000 * GIB, False),
        ({"tables": ["film"]}, 1000 * GIB, True),
        ({"schema_only": True}, 1000 * GIB, True),
        ({"exclude_table_data": ["log"]}, 1000 * GIB, True),
        ({"tables": ["film"]}, GIB, True),
        ({}, GIB, True),
    ],
)
def test_a_part_of_a_database_needs_less(
    options: dict[str, Any], size: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest.from_json(GOLDEN.read_bytes())
    manifest = replace(
        manifest,
        options=options,
        source=replace(manifest.source, size_bytes=size),
        artifact=replace(manifest.artifact, size=GIB),
    )
    usage = shutil.disk_usage("/")._replace(total=1000 * GIB, free=10 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    if fits:
        check_disk_space(manifest, Settings())
        return
    with pytest.raises(NotProven, match=r"needs about 1\.3 TiB"):
        check_disk_space(manifest, Settings())
