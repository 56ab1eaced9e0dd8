"""Adopting a folder of dumps that PostgreSQL's own tools made, and what happens to everything else in it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import secrets
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard
from contexts import in_context

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import Canceled, ConfigurationError, RepositoryNotFound
from airflow_pgbackup.postgres.archive.sniff import sniff_file
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

TABLES = (
    "create table film (id int primary key, title text)",
    "insert into film select n, 'film ' || n from generate_series(1, 1500) n",
    "create table actor (id int)",
    "insert into actor select generate_series(1, 20)",
)
ROWS = {"film": 1500, "actor": 20}
NAMES = {
    "custom.dump": ("custom", None),
    "tar.tar": ("tar", None),
    "older/directory": ("directory", None),
    "with_create.sql": ("plain", None),
    "with_create.sql.gz": ("plain", "gzip"),
    "misnamed.txt": ("plain", "zstd"),
    "with_create.sql.bz2": ("plain", "bzip2"),
    "with_create.sql.xz": ("plain", "xz"),
    "with_create.sql.lz4": ("plain", "lz4"),
}


def tool(server: PostgresServer, params: ConnectionParams, name: str, *args: str) -> bytes:
    with client_environment(params) as env:
        return subprocess.run([server.bin_dir / name, "-w", *args], env=env, check=True, stdout=subprocess.PIPE).stdout


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, 'film "rental"', *TABLES)


@pytest.fixture
def folder(tmp_path: Path, server18: PostgresServer, database: ConnectionParams) -> Path:
    """What somebody's cron job has left over the years."""
    folder = tmp_path / "dumps"
    (folder / "older").mkdir(parents=True)
    for format, name in (("custom", "custom.dump"), ("tar", "tar.tar"), ("directory", "older/directory")):
        tool(server18, database, "pg_dump", f"--format={format}", f"--file={folder / name}")
    script = tool(server18, database, "pg_dump", "--create")
    (folder / "with_create.sql").write_bytes(script)
    (folder / "with_create.sql.gz").write_bytes(gzip.compress(script))
    (folder / "with_create.sql.bz2").write_bytes(bz2.compress(script))
    (folder / "with_create.sql.xz").write_bytes(lzma.compress(script))
    (folder / "with_create.sql.lz4").write_bytes(lz4.frame.compress(script))
    (folder / "misnamed.txt").write_bytes(zstandard.compress(script + b"\n"))
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    made = LocalRepository(tmp_path / "pg")
    made.init()
    return made


def run(repository: Repository, folder: Path, **kwargs: Any) -> dict[str, Any]:
    result = adopt(repository=repository, sources=[folder], **in_context({"server": "old", **kwargs}))
    json.dumps(result, allow_nan=False)
    return result


def test_every_format_is_told_by_its_content_and_verifies(
    repository: LocalRepository, folder: Path, client_dirs: list[str]
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    result = run(repository, folder)
    assert result["skipped"] == []
    assert len(result["adopted"]) == len(NAMES)
    manifests = {}
    for reference in result["adopted"]:
        manifest = load_manifest(repository, reference)
        manifests[manifest.origin["adopted_from"]] = manifest
        assert manifest.series == Series("old", 'film "rental"')
        assert (manifest.source.server_version, manifest.client.version) == ("18.4", "18.4")
        assert manifest.source.server_version_num == 180004
        verified = verify(
            reference=reference,
            repository=repository,
            context=RunContext(settings=Settings(client_dirs=tuple(client_dirs))),
        )
        assert verified["verified"] == "archive"
    assert {str(name): (m.artifact.format, m.artifact.compression.method) for name, m in manifests.items()} == {
        name: (format, compression or ("gzip" if format in ("custom", "directory") else None))
        for name, (format, compression) in NAMES.items()
    }
    assert manifests["older/directory"].artifact.name == "directory"
    assert manifests["with_create.sql.gz"].restore_command == (
        "gzip -t with_create.sql.gz && "
        "gzip -dc with_create.sql.gz | psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname postgres"
    )
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before, "the folder is left alone"
    rows = [
        {table["name"]: table["rows"] for table in json.loads(path.read_bytes())["tables"]}
        for path in (Path(repository.local_path("old"))).rglob("verification-*.json")
    ]
    assert rows == [ROWS] * len(NAMES)


def test_again_adopts_only_what_is_new(repository: LocalRepository, folder: Path) -> None:
    first = run(repository, folder)
    (folder / "later.sql").write_bytes((folder / "with_create.sql").read_bytes() + b"\n\n")
    again = run(repository, folder)
    assert [load_manifest(repository, one).origin["adopted_from"] for one in again["adopted"]] == ["later.sql"]
    assert sorted(one["id"] for one in again["present"]) == sorted(one["id"] for one in first["adopted"])
    assert len(read_catalogue(repository).backups) == len(NAMES) + 1


def test_a_dry_run_tells_and_does_nothing(repository: LocalRepository, folder: Path) -> None:
    result = run(repository, folder, dry_run=True)
    assert (result["adopted"], result["present"]) == ([], [])
    assert sorted(one["path"] for one in result["found"]) == sorted(NAMES)
    assert read_catalogue(repository).backups == ()
    assert [one["id"] for one in run(repository, folder)["found"]] == [one["id"] for one in result["found"]]


def test_into_s3(s3: S3Server, folder: Path) -> None:
    repository = open_repository(f"s3://{s3.bucket()}/pg", s3=S3Options(client_factory=s3.client))
    repository.init()
    assert len(run(repository, folder)["adopted"]) == len(NAMES)
    assert {backup.state for backup in read_catalogue(repository).backups} == {"written"}


@pytest.mark.parametrize(
    ("options", "name", "series"),
    [
        ((), "all.sql", "old/@cluster"),
        (("--globals-only",), "all.sql", "old/@globals"),
        (("--globals-only",), "roles.sql", "old/@globals"),  # it has tablespaces
        (("--tablespaces-only",), "all.sql", "old/@tablespaces"),
        (("--roles-only",), "roles_2025-03-01.sql", "old/@roles"),
        (("--roles-only",), "all.sql", "old/@globals"),  # what --globals-only writes without tablespaces
        (("--roles-only",), "globals_and_roles.sql", "old/@globals"),
    ],
)
def test_a_cluster(
    options: tuple[str, ...],
    name: str,
    series: str,
    repository: LocalRepository,
    tmp_path: Path,
    server18: PostgresServer,
) -> None:
    folder, space = tmp_path / "cluster", f"space_{secrets.token_hex(4)}"
    folder.mkdir()
    with server18.params.connect() as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute(f"CREATE TABLESPACE {space} LOCATION ''")
        try:
            (folder / name).write_bytes(tool(server18, server18.params, "pg_dumpall", *options))
        finally:
            connection.execute(f"DROP TABLESPACE {space}")
    (reference,) = run(repository, folder)["adopted"]
    assert reference["series"] == series
    manifest = load_manifest(repository, reference)
    assert (manifest.kind, manifest.client.tool) == ("cluster", "pg_dumpall")
    assert verify(reference=reference, repository=repository)["verified"] == "archive"


def test_when_it_was_made(repository: LocalRepository, folder: Path) -> None:
    now = datetime.now(timezone.utc)
    hour_later = (now + timedelta(hours=1)).timestamp()
    for path in folder.rglob("*"):
        os.utime(path, (hour_later, hour_later))
    tokyo = {one["path"]: one for one in run(repository, folder, time_zone="Asia/Tokyo", dry_run=True)["found"]}
    started = {one["path"]: datetime.fromisoformat(one["started_at"]) for one in run(repository, folder)["found"]}
    # An archive says it (in this machine's zone, and the tools ran in UTC); a script has only its file's time, which
    # counts at most as now.
    for name in ("custom.dump", "tar.tar", "older/directory", "with_create.sql"):
        assert abs(started[name] - now) < timedelta(minutes=5)
    assert datetime.fromisoformat(tokyo["custom.dump"]["started_at"]) == started["custom.dump"] - timedelta(hours=9)


def test_a_time_after_the_files_own_is_of_another_zone(repository: LocalRepository, folder: Path) -> None:
    found = run(repository, folder, time_zone="America/Los_Angeles", dry_run=True)["found"]
    for one in found:
        modified = max(path.stat().st_mtime for path in [folder / one["path"], *(folder / one["path"]).glob("*.dat")])
        assert datetime.fromisoformat(one["started_at"]).timestamp() == int(modified)


def test_a_file_that_is_not_a_dump_is_skipped_and_reported(repository: LocalRepository, folder: Path) -> None:
    custom, script = (folder / "custom.dump").read_bytes(), (folder / "with_create.sql").read_bytes()
    tar = (folder / "tar.tar").read_bytes()
    for path in (folder / "older/directory").iterdir():
        path.unlink()
    (folder / "older/directory").rmdir()
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    odd = {
        "backup.sh": (b"#!/bin/sh\npg_dump app\n", "not a dump of PostgreSQL"),
        "empty.sql": (b"", "not a dump of PostgreSQL"),
        "cut.dump": (custom[:200], "is truncated inside its table of contents"),
        "future.dump": (b"PGDMP\x01\x63" + custom[7:], "has archive version 1.99"),
        "custom.dump.gz": (gzip.compress(custom), "an archive of pg_dump that is compressed with gzip"),
        "tar.dump.gz": (gzip.compress(tar), "an archive of pg_dump that is compressed with gzip"),
        "cut.sql.gz": (gzip.compress(script)[:100], "is truncated"),
        "cut.sql": (
            script[: script.index(b"COPY public.film")]
            + b"COPY public.film (id, title) FROM stdin;\n1\tx\n-- PostgreSQL database dump complete\n",
            "is truncated",
        ),
        "other.gz": (gzip.compress(b"something else"), "not a dump of PostgreSQL"),
        "toc.dat.tar": (b"toc.dat".ljust(512, b"\0"), "not a dump of PostgreSQL"),
    }
    for name, (data, _) in odd.items():
        (folder / name).write_bytes(data)
    odd["link.dump"] = (b"", "a symbolic link, which is not followed")
    (folder / "link.dump").symlink_to(folder / "backup.sh")
    logged: list[str] = []
    result = run(repository, folder, log=logged.append)
    assert result["adopted"] == []
    assert {one["path"] for one in result["skipped"]} == set(odd)
    for one in result["skipped"]:
        assert odd[one["path"]][1] in one["reason"]
        assert f"skipped {one['path']}: {one['reason']}" in logged


@pytest.mark.parametrize(
    "name", ["manifest.json", "pin.json", ".hidden.sql", "verification-x.json", "a\nb.sql", "a\\b.sql"]
)
def test_names_that_mean_something_in_a_repository(repository: LocalRepository, folder: Path, name: str) -> None:
    alone = folder / "alone"
    alone.mkdir()
    (folder / "with_create.sql").rename(alone / name)
    (reference,) = run(repository, alone)["adopted"]
    assert str(reference["artifact"]).startswith("film%20%22rental%22_20")
    assert load_manifest(repository, reference).origin["adopted_from"] == name
    assert [backup.state for backup in read_catalogue(repository).backups] == ["written"]


def test_an_interrupted_adoption_leaves_nothing_and_goes_on_the_next_time(
    repository: LocalRepository, folder: Path
) -> None:
    cancel = Cancel()

    def log(line: str) -> None:
        if line.startswith("adopted"):
            cancel.set()

    with pytest.raises(Canceled):
        run(repository, folder, cancel=cancel, log=log)
    catalogue = read_catalogue(repository)
    assert (len(catalogue.backups), catalogue.leftovers) == (1, ())
    result = run(repository, folder)
    assert (len(result["adopted"]), len(result["present"])) == (len(NAMES) - 1, 1)


def test_a_crash_half_way_is_written_again(repository: LocalRepository, folder: Path) -> None:
    (one,) = [one for one in run(repository, folder, dry_run=True)["found"] if one["path"] == "older/directory"]
    repository.write_bytes(f"{one['series']}/{one['id']}/directory/toc.dat", b"half")
    result = run(repository, folder)
    (reference,) = [one for one in result["adopted"] if one["format"] == "directory"]
    assert verify(reference=reference, repository=repository)["verified"] == "archive"


def test_what_was_adopted_and_is_not_whole_any_more_is_no_success(repository: LocalRepository, folder: Path) -> None:
    for reference in run(repository, folder)["adopted"]:
        if reference["format"] == "tar":
            repository.delete([reference["key"]])
    result = run(repository, folder)
    assert (len(result["adopted"]), len(result["present"])) == (0, len(NAMES) - 1)
    (skipped,) = result["skipped"]
    assert skipped["path"] == "tar.tar"
    assert "exists already, and is incomplete: " in skipped["reason"]
    assert " HINT: Delete " in skipped["reason"]


def test_what_cannot_be(repository: LocalRepository, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist on this machine"):
        run(repository, tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="time zone 'CEST5' does not exist"):
        run(repository, folder, time_zone="CEST5")
    with pytest.raises(RepositoryNotFound):
        run(LocalRepository(tmp_path / "no repository"), folder)


def test_a_script_with_a_byte_order_mark_and_windows_line_ends(folder: Path) -> None:
    script = (folder / "with_create.sql").read_bytes()
    found = sniff_file(io.BytesIO(b"\xef\xbb\xbf" + script.replace(b"\n", b"\r\n")), "windows.sql")
    assert found is not None
    assert (found.format, found.database, found.server_version) == ("plain", 'film "rental"', "18.4")
