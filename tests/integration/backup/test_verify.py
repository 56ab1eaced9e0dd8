"""A dump whose bytes we rewrote counts as verified, at any level, only after PostgreSQL's reader read it to its end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.progress import NoProgress, Step
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.manifest import FileDigest, Manifest
from airflow_pgbackup.repository.verification import Check, Verification
from airflow_pgbackup.settings import Settings

REWRITTEN = [
    pytest.param({"format": "custom", "compress": "gzip:1"}, id="inside a custom archive"),
    pytest.param({"format": "plain", "compress": "gzip"}, id="gzip around a script"),
    pytest.param({"format": "plain", "compress": "zstd"}, id="zstd around a script"),
]
UNCHANGED = [
    pytest.param({"format": "custom", "compress": "gzip:1"}, id="compressed by pg_dump"),
    pytest.param({"format": "custom", "compress": "none"}, id="not compressed"),
    pytest.param({"format": "plain"}, id="script"),
    pytest.param({"format": "directory"}, id="directory"),
]


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, "create table film as select generate_series(1, 1000) id")


def dump(database: ConnectionParams, here: Repository, options: dict[str, Any], by: str) -> dict[str, object]:
    return dump_database(
        connection=database,
        server="s",
        repository=here,
        options=DumpOptions(**options),
        context=RunContext(settings=Settings(compress_by=by)),
    )


def cut(here: Repository, reference: dict[str, object]) -> None:
    """Take away the artifact's end, with a manifest that fits: as a fault while it was compressed would leave it."""
    manifest = load_manifest(here, reference)
    path, key = (
        here.local_path(key) for key in (manifest.artifact_key, layout.manifest_key(manifest.series, manifest.id))
    )
    assert path is not None
    assert key is not None
    data = path.read_bytes()[:-20]
    path.write_bytes(data)
    file = FileDigest(path.name, len(data), hashlib.sha256(data).hexdigest())
    artifact = replace(manifest.artifact, size=file.size, sha256=file.sha256, files=(file,))
    key.write_bytes(replace(manifest, artifact=artifact).to_json())


def evidence_of(here: Repository, manifest: Manifest) -> Evidence:
    return read_evidence(here, manifest.series, manifest.id)


@pytest.mark.parametrize("options", REWRITTEN)
def test_a_rewritten_dump_is_read_to_its_end(
    database: ConnectionParams, here: Repository, options: dict[str, Any]
) -> None:
    reference = dump(database, here, options, "airflow-pgbackup")
    lines: list[str] = []
    context = RunContext(log=lines.append)
    assert verify(reference=reference, repository=here, level="integrity", context=context)["verified"] == "archive"
    assert lines[0].startswith("verifying at level archive, since airflow-pgbackup compressed ")
    (verification,) = evidence_of(here, load_manifest(here, reference)).verifications
    assert [(check.name, check.result) for check in verification.checks] == [("integrity", "pass"), ("archive", "pass")]
    assert [(table.name, table.rows) for table in verification.tables] == [("film", 1000)]


@pytest.mark.parametrize("options", UNCHANGED)
def test_the_tools_own_bytes_may_be_hashed_only(
    database: ConnectionParams, here: Repository, options: dict[str, Any]
) -> None:
    reference = dump(database, here, options, "pg_dump")
    assert verify(reference=reference, repository=here, level="integrity")["verified"] == "integrity"


class Steps(NoProgress):
    """Keeps the steps that ended."""

    def __init__(self) -> None:
        self.ended: list[Step] = []

    def end(self, step: Step) -> None:
        self.ended.append(step)


@pytest.mark.parametrize(
    ("format", "by_name"), [("custom", False), ("plain", False), ("tar", True), ("directory", True)]
)
def test_the_progress_of_reading_each_format(
    database: ConnectionParams, here: Repository, format: str, by_name: bool
) -> None:
    """pg_restore opens the last two by name, so that only the SQL that it writes is counted."""
    reference = dump(database, here, {"format": format}, "pg_dump")
    steps = Steps()
    assert verify(reference=reference, repository=here, context=RunContext(progress=steps))["verified"] == "archive"
    manifest = load_manifest(here, reference)
    artifact = manifest.artifact
    hashing, reading = steps.ended
    assert (hashing.what, hashing.bytes_total, hashing.bytes) == (
        f"hashing {artifact.name}",
        artifact.size,
        artifact.size,
    )
    assert (reading.what, reading.estimated, reading.bytes_total) == (
        f"reading {artifact.name}",
        by_name,
        manifest.source.size_bytes if by_name else artifact.size,
    )
    assert reading.bytes > 3000 if by_name else reading.bytes == artifact.size
    (verification,) = evidence_of(here, manifest).verifications
    assert [(table.name, table.rows) for table in verification.tables] == [("film", 1000)]


@pytest.mark.parametrize("options", REWRITTEN)
def test_no_level_verifies_what_a_faulty_compression_left(
    database: ConnectionParams, here: Repository, options: dict[str, Any]
) -> None:
    reference = dump(database, here, options, "airflow-pgbackup")
    cut(here, reference)
    for level in layout.LEVELS:
        with pytest.raises(VerificationFailed, match=r"failed verification at level (archive|restore): "):
            verify(reference=reference, repository=here, level=level)
    assert evidence_of(here, load_manifest(here, reference)).backup.state == "failed"


@pytest.mark.parametrize(("by", "state"), [("airflow-pgbackup", "written"), ("pg_dump", "verified")])
def test_a_pass_without_a_reading_is_not_believed(
    database: ConnectionParams, here: Repository, by: str, state: str
) -> None:
    """As releases before this rule wrote it, or anybody who may write to the repository."""
    manifest = load_manifest(here, dump(database, here, {"compress": "gzip:1"}, by))
    at = manifest.finished_at + timedelta(seconds=1)
    passed = Verification(
        backup_id=manifest.id,
        level="integrity",
        result="pass",
        started_at=at,
        finished_at=at,
        duration_seconds=0.0,
        checks=(Check("integrity", "pass"),),
        artifact_sha256=manifest.artifact.sha256,
    )
    key = layout.verification_key(manifest.series, manifest.id, at=at, level="integrity", result="pass")
    here.write_bytes(key, passed.to_json())
    found = evidence_of(here, manifest)
    assert found.backup.state == state
    expected = "it did not read the dump, which airflow-pgbackup compressed"
    assert [line.partition(": ")[2] for line in found.ignored] == ([expected] if state == "written" else [])
