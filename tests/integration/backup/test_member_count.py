"""A dump in directory format with more files than a manifest can list is refused before it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.errors import ConfigurationError, ManifestError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository import json_document
from airflow_pgbackup.repository.base import Repository


def test_more_files_than_a_manifest_can_list(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = fresh_database(
        server18, None, "create table t ()", "select lo_create(0) from generate_series(1, 40)", "analyze"
    )
    monkeypatch.setattr(json_document, "MAX_BYTES", 6000)

    def dump(**options: Any) -> dict[str, object]:
        return dump_database(connection=database, server="s", repository=here, options=DumpOptions(**options))

    said = "has 41 tables and large objects, each a file in directory format; a backup can have about 40 files"
    with pytest.raises(ConfigurationError, match=said) as refused:
        dump(format="directory")
    assert refused.value.hint == "Use format custom, which is one file."
    (finding,) = (
        each
        for each in check(connection=database, server="s", options=DumpOptions(format="directory"))
        if each.code == "options"
    )
    assert (finding.severity, said in finding.message) == ("error", True)
    assert dump(), "one file"
    assert dump(format="directory", large_objects=False)
    with pytest.raises(ManifestError) as late:  # what the patterns leave out was not counted
        dump(format="directory", exclude_tables=["nothing"])
    assert "Dump in custom format" in (late.value.hint or "")
