"""The main job without Airflow: dump, verify, upload, and a restore of the copy with PostgreSQL's own tools alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

SCHEMA = (
    "create table film (film_id int primary key, title text not null, note text)",
    "insert into film select n, 'film ' || n, case when n % 7 = 0 then E'tab\\there\\nand a line' end"
    "  from generate_series(1, 3000) n",
    "create table actor (actor_id serial primary key, name text)",
    "insert into actor (name) select 'actor ' || n from generate_series(1, 500) n",
    "create table empty (a int)",
    "create function f() returns text language sql as $$ select 'COPY film FROM stdin;' $$",
    "select lo_from_bytea(4711, 'a large object')",
)
ZSTD = """import sys, zstandard
zstandard.ZstdDecompressor().copy_stream(open(sys.argv[2], "rb"), sys.stdout.buffer)
"""
ROWS = {"film": 3000, "actor": 500, "empty": 0}

FORMATS = [
    ("custom", {}),
    ("custom", {"compress": "none"}),
    ("tar", {}),
    ("directory", {"jobs": 2}),
    ("plain", {}),
    ("plain", {"compress": "gzip"}),
    ("plain", {"compress": "zstd:5"}),
]


def local(path: Path) -> Repository:
    repository = open_repository(f"file://{path}")
    repository.init()
    return repository


def in_s3(s3: S3Server, prefix: str = "backups") -> Repository:
    repository = open_repository(f"s3://{s3.bucket()}/{prefix}", s3=S3Options(client_factory=s3.client))
    repository.init()
    return repository


def rows_of(connection: ConnectionParams) -> dict[str, int]:
    with connection.connect() as session:
        return {name: session.execute(f"select count(*) from public.{name}").fetchone()[0] for name in ROWS}  # type: ignore


def restore_by_hand(command: str, folder: Path, server: PostgresServer) -> None:
    """Run a manifest's restore command as a person would: in the artifact's folder, libpq's variables set."""
    with client_environment(server.params) as env:
        env = {**env, "PATH": f"{server.bin_dir}:{env.get('PATH', '/usr/bin:/bin')}:{folder}"}
        done = subprocess.run(["sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("format", "more"), FORMATS)
def test_dumped_verified_uploaded_and_restored_by_hand(
    format: str,
    more: dict[str, Any],
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., ConnectionParams],
    tmp_path: Path,
    assert_no_canary: Callable[[object], None],
) -> None:
    database = fresh_database(server18, None, *SCHEMA)
    here, there = local(tmp_path / "repository"), in_s3(s3)
    log: list[str] = []

    dumped = dump_database(
        connection=database,
        server="test",
        repository=here,
        options=DumpOptions(format=format, **more),
        context=RunContext(log=log.append),
    )
    assert dumped["verified"] is None
    verified = verify(reference=dumped, repository=here, context=RunContext(log=log.append))
    assert verified["verified"] == "archive"
    uploaded = upload(reference=verified, source=here, destination=there, context=RunContext(log=log.append))
    assert uploaded["verified"] == "archive"
    assert uploaded["repository"] == there.uri
    assert uploaded["sha256"] == dumped["sha256"]
    # and from S3 alone
    assert verify(reference=uploaded, repository=there, context=RunContext(log=log.append))["verified"] == "archive"

    manifest = load_manifest(there, uploaded)
    verification = next(entry for entry in here.list() if "archive-pass" in entry.key)
    tables = json.loads(here.read_bytes(verification.key))["tables"]
    assert {table["name"]: table["rows"] for table in tables} == ROWS

    download(there, manifest, tmp_path)
    command = manifest.restore_command
    if shutil.which("zstd") is None:  # not part of a bare machine
        (tmp_path / "zstd").write_text(f"#!{sys.executable}\n{ZSTD}")
        (tmp_path / "zstd").chmod(0o755)
    restore_by_hand(command, tmp_path, server18)
    copy = database.with_database(f"{database.dbname}_restored")
    assert rows_of(copy) == ROWS
    with copy.connect() as session:
        assert session.execute("select lo_get(4711)").fetchone() == (b"a large object",)
    with server18.params.connect() as session:
        session.execute(f'drop database "{copy.dbname}" with (force)')
    for line in (*log, manifest.to_json(), *(entry.key for entry in there.list())):
        assert_no_canary(line)


@pytest.mark.parametrize(
    ("options", "compress"),
    [
        ({}, None),
        ({}, "zstd"),
        ({"globals_only": True}, None),
        ({"roles_only": True}, "gzip"),
        ({"tablespaces_only": True}, None),
        ({"schema_only": True}, None),
    ],
)
def test_a_cluster_in_each_mode(
    options: dict[str, Any],
    compress: str | None,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    tmp_path: Path,
) -> None:
    database = fresh_database(server18, None, *SCHEMA)
    here = local(tmp_path / "repository")
    reference = dump_cluster(
        connection=server18.params, server="test", repository=here, options=DumpAllOptions(**options), compress=compress
    )
    kind = next((name.removesuffix("_only") for name in options if name != "schema_only"), "cluster")
    assert reference["series"] == f"test/@{kind}"
    assert str(reference["artifact"]).startswith(f"{kind}_20")
    assert load_manifest(here, reference).series.kind == kind
    assert verify(reference=reference, repository=here)["verified"] == "archive"
    key = next(entry.key for entry in here.list() if "archive-pass" in entry.key)
    tables = json.loads(here.read_bytes(key))["tables"]
    found = {table["name"]: table["rows"] for table in tables if table["database"] == database.dbname}
    assert found == ({} if options else ROWS)


def test_what_is_not_verified_is_not_uploaded(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], tmp_path: Path
) -> None:
    here, there = local(tmp_path / "here"), local(tmp_path / "there")
    reference = dump_database(
        connection=fresh_database(server18), server="test", repository=here, options=DumpOptions(compress="none")
    )
    with pytest.raises(
        VerificationFailed, match=r"not verified yet, and archive is required. HINT: Verify it at level archive"
    ):
        upload(reference=reference, source=here, destination=there)
    assert [entry.key for entry in there.list()] == ["repository.json"]
    verify(reference=reference, repository=here, level="integrity")
    with pytest.raises(VerificationFailed, match="verified at integrity only, and archive is required"):
        upload(reference=reference, source=here, destination=there)
    once = upload(reference=reference, source=here, destination=there, minimum_level=None)
    # and again, as a task that is cleared and runs again
    assert upload(reference=reference, source=here, destination=there, minimum_level=None) == once


def test_a_retry_returns_what_the_first_try_committed(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], tmp_path: Path
) -> None:
    here, database = local(tmp_path), fresh_database(server18, None, *SCHEMA)
    lines: list[str] = []

    def again(seed: str) -> dict[str, object]:
        return dump_database(
            connection=database,
            server="test",
            repository=here,
            options=DumpOptions(),
            context=RunContext(seed=seed, log=lines.append),
        )

    first = again("dag, run 1")
    assert again("dag, run 1") == first
    assert "nothing to do" in lines[-1]
    assert again("dag, run 2")["id"] != first["id"]


def test_damage_is_found_and_written_down(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], tmp_path: Path
) -> None:
    here, database = local(tmp_path), fresh_database(server18, None, *SCHEMA)
    reference = dump_database(
        connection=database,
        server="test",
        repository=here,
        options=DumpOptions(),
        context=RunContext(seed="a task that is cleared"),
    )
    assert verify(reference=reference, repository=here)["verified"] == "archive"
    path = next(tmp_path.rglob("*.dump"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationFailed, match=r"failed verification at level archive: .*: checksum mismatch"):
        verify(reference=reference, repository=here)
    assert [path.name.split("-")[-1] for path in sorted(tmp_path.rglob("verification-*"))] == ["pass.json", "fail.json"]
    # the earlier pass no longer counts
    time.sleep(1 - time.time() % 1)
    again = dump_database(
        connection=database,
        server="test",
        repository=here,
        options=DumpOptions(),
        context=RunContext(seed="a task that is cleared"),
    )
    assert again["id"] != reference["id"]
    with pytest.raises(VerificationFailed, match="failed verification"):
        upload(reference=reference, source=here, destination=local(tmp_path / "other"))
