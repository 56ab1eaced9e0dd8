"""docs/guides/restoring-without-us.md: its commands, run as they stand there, by a shell and PostgreSQL's own tools."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import zstandard
from honest import manifest_of
from restoring import ROW_COUNT, SCHEMA, fresh_server, local, make_roles, value

from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.restore_command import restore_command, restore_command_of
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import RecordedCompression

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "restoring-without-us.md"
FOLDER = "/var/backups/pg/prod/dvdrental/20261122T020000Z-3f9ac1/7d41c09e"
CLUSTER = "/var/backups/pg/prod/@cluster/20261122T020000Z-3f9ac1/7d41c09e"
ARTIFACT = "dvdrental_2026-11-22_0200"
ZSTD = """import sys, zstandard
frame = zstandard.ZstdDecompressor().decompressobj()
data = frame.decompress(open(sys.argv[2], "rb").read())
if "t" not in sys.argv[1]:
    sys.stdout.buffer.write(data)
sys.exit(not frame.eof)
"""


def blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)


def block(*words: str) -> str:
    """The one block that has all of these words."""
    (found,) = [text for text in blocks() if all(word in text for word in words)]
    return found


def run(script: str, server: PostgresServer, folder: Path, tmp_path: Path, *, status: int = 0) -> str:
    """As a person would, in the backup's folder, libpq's variables set."""
    if shutil.which("zstd") is None:  # not part of a bare machine
        (tmp_path / "zstd").write_text(f"#!{sys.executable}\n{ZSTD}")
        (tmp_path / "zstd").chmod(0o755)
    with client_environment(server.params) as env:
        env["PATH"] = f"{server.bin_dir}:{tmp_path}:{env.get('PATH', '/usr/bin:/bin')}"
        script = script.replace(FOLDER, str(folder)).replace(CLUSTER, str(folder))
        done = subprocess.run(["sh", "-e", "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def folder_of(root: Path, reference: dict[str, Any]) -> Path:
    return (root / str(reference["key"])).parent


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "custom"}, ["pg_restore --exit-on-error"]),
        ({"format": "tar"}, ["pg_restore --exit-on-error"]),
        ({"format": "directory"}, ["pg_restore --exit-on-error"]),
        ({"format": "plain", "compress": "none"}, ["tail -n 6"]),
        ({"format": "plain", "compress": "gzip"}, ["gzip -dc"]),
        ({"format": "plain", "compress": "zstd"}, ["zstd -dc"]),
    ],
    ids=lambda given: "-".join(given.values()) if isinstance(given, dict) else "",
)
def test_one_database(
    options: dict[str, Any], words: list[str], fresh_database: Callable[..., ConnectionParams], tmp_path: Path
) -> None:
    with fresh_server(18) as server:
        make_roles(server)
        with server.params.connect() as session:
            session.execute("create database dvdrental")
        source = server.params.with_database("dvdrental")
        with source.connect() as session:
            for statement in SCHEMA:
                session.execute(statement)
        repository = local(tmp_path / "repository")
        reference = dump_database(
            connection=source,
            server="prod",
            repository=repository,
            options=DumpOptions(**options),
            artifact_template=ARTIFACT,
        )
        folder = folder_of(tmp_path / "repository", reference)
        assert (
            "pg_restore" in run(block("grep restore_command"), server, folder, tmp_path) or "plain" in options.values()
        )
        if options["format"] != "directory":
            assert '"sha256"' in run(block("sha256sum"), server, folder, tmp_path)
        said = run(block(*words), server, folder, tmp_path)
        if "tail" in words[0]:
            assert "-- PostgreSQL database dump complete" in said
            assert "\\unrestrict" in said
        with source.connect() as session:
            session.execute("create table since_then (a int)")
        run(block("--command ANALYZE"), server, folder, tmp_path)
        run(block("RENAME TO dvdrental_old"), server, folder, tmp_path)
        now = server.params.with_database("dvdrental")
        assert value(now, "select count(*) from pg_class where relname = 'since_then'") == 0
        assert value(now, "select sum(n_live_tup) from pg_stat_user_tables") is not None
        rows = "select sum(reltuples) from pg_class where relkind = 'r' and oid >= 16384"
        assert value(now, rows) == ROW_COUNT
        assert value(server.params.with_database("dvdrental_old"), "select count(*) from since_then") == 0


def test_a_complete_cluster(tmp_path: Path) -> None:
    repository = local(tmp_path / "repository")
    with fresh_server(18, superuser="postgres") as server:
        with server.params.connect() as session:
            session.execute("create role leader")
            session.execute("create database dvdrental owner leader")
        with server.params.with_database("dvdrental").connect() as session:
            session.execute("create table t as select 1 as a")
        reference = dump_cluster(
            connection=server.params,
            server="prod",
            repository=repository,
            options=DumpAllOptions(),
            artifact_template="cluster_2026-11-22_0200",
        )
    with fresh_server(18, superuser="postgres") as other:
        folder = folder_of(tmp_path / "repository", reference)
        said = run(block("cluster_2026-11-22_0200.sql"), other, folder, tmp_path)
        errors = [line for line in said.splitlines() if "ERROR" in line]
        assert len(errors) == 1
        assert 'role "postgres" already exists' in errors[0]
        assert value(other.params.with_database("dvdrental"), "select a from t") == 1
        # Twice would double the rows of t, which has no primary key.
        again = run(block("cluster_2026-11-22_0200.sql"), other, folder, tmp_path, status=1)
        assert "this server already has databases: restore a cluster into a new server" in again
        assert value(other.params.with_database("dvdrental"), "select count(*) from t") == 1
        assert restore_command_of(load_manifest(repository, reference)) in block("cluster_2026-11-22_0200.sql")


def test_a_cluster_whose_rows_are_in_postgres_is_restored_once(tmp_path: Path) -> None:
    repository = local(tmp_path / "repository")
    with fresh_server(18, superuser="postgres") as server:
        with server.params.connect() as session:
            session.execute("create table public.t as select 1 as a")
        references = [
            dump_cluster(
                connection=server.params, server="prod", repository=repository, options=DumpAllOptions(**options)
            )
            for options in ({}, {"globals_only": True})
        ]
    commands = [restore_command_of(load_manifest(repository, reference)) for reference in references]
    folders = [folder_of(tmp_path / "repository", reference) for reference in references]
    with fresh_server(18, superuser="postgres") as other:
        run(f"cd {folders[0]}; {commands[0]}", other, folders[0], tmp_path)
        run(f"cd {folders[0]}; {commands[0]}", other, folders[0], tmp_path, status=1)
        assert value(other.params, "select count(*) from public.t") == 1
        # Roles are restored into servers that have databases.
        said = run(f"cd {folders[1]}; {commands[1]}", other, folders[1], tmp_path)
        assert 'role "postgres" already exists' in said


@pytest.mark.parametrize(
    ("method", "compress", "name"),
    [("gzip", gzip.compress, "app.sql.gz"), ("zstd", zstandard.compress, "app.sql.zst")],
    ids=["gzip", "zstd"],
)
def test_a_truncated_compressed_script_is_not_restored(
    method: str, compress: Callable[[bytes], bytes], name: str, server18: PostgresServer, tmp_path: Path
) -> None:
    script = compress(b"".join(b"select %d;\n" % (number * number) for number in range(100_000)))
    (tmp_path / name).write_bytes(script[: len(script) // 2])
    database = "truncated in half"
    line = restore_command(artifact=name, format="plain", compression=method, database=database, create=False)
    run(f"cd {tmp_path}; {line}", server18, tmp_path, tmp_path, status=1)
    assert value(server18.params, f"select count(*) from pg_database where datname like '{database}%'") == 0


def test_a_command_of_an_earlier_version_says_whether_the_script_creates_its_database(tmp_path: Path) -> None:
    feed = "gzip -dc app.sql.gz | psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname"
    for stored, expected in (
        (f"{feed} postgres", f"gzip -t app.sql.gz && {feed} postgres"),
        (
            f"createdb --template template0 -- app_restored && {feed} app_restored",
            f"gzip -t app.sql.gz && createdb --template template0 -- app_restored && {feed} app_restored",
        ),
    ):
        manifest = manifest_of(
            local(tmp_path / "repository"),
            Series("prod", "app"),
            datetime.now(timezone.utc),
            {"app.sql.gz": b"gz"},
            restore_command=stored,
        )
        artifact = replace(manifest.artifact, format="plain", compression=RecordedCompression("gzip", None, "pgbackup"))
        assert restore_command_of(replace(manifest, artifact=artifact)) == expected
        again = replace(manifest, artifact=artifact, restore_command=expected)
        assert restore_command_of(again) == expected


def test_every_command_is_tried() -> None:
    assert len(blocks()) == 9
