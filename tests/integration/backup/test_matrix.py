"""Every format on every PostgreSQL here: dumped, verified, uploaded, and back by PostgreSQL's own tools alone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import BUILDS, Build, each, run_by_hand

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ClientError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools import clients
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

Fresh = Callable[..., ConnectionParams]

FILL = (
    "create table film (film_id int primary key, title text not null, note text, at timestamptz, raw bytea)",
    "insert into film select n, 'film ' || n, case n % 3 when 0 then E'tab\\tand\\nline \\\\.' when 1 then '' end,"
    " '2026-11-22 02:00+01'::timestamptz + n * interval '1 hour', decode(md5(n::text), 'hex')"
    " from generate_series(1, 500) n",
    'create table "Odd ""name" (a serial, b double precision[])',
    """insert into "Odd ""name" (b) select array[n / 7.0, 'NaN', '-infinity'] from generate_series(1, 200) n""",
    "create table nothing (a int)",
    "create materialized view counted as select count(*) as films from film",
    "select lo_from_bytea(4711, 'a large object')",
)  # fmt: skip
EMPTY = ("delete from film", "refresh materialized view counted")
TABLES = ("film", '"Odd ""name"', "nothing", "counted", "pg_largeobject")

FORMATS: dict[str, dict[str, Any]] = {
    "custom": {},
    "directory": {"jobs": 2},
    "tar": {},
    "plain": {},
}


def contents(connection: ConnectionParams) -> dict[str, object]:
    """Every row of every table, whatever their order."""
    with connection.connect() as session:
        session.execute("set timezone = 'UTC'")
        return {
            table: session.execute(f"select t::text from {table} t order by 1").fetchall()  # type: ignore[arg-type]
            for table in TABLES
        }


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[Callable[[Build], PostgresServer]]:
    """The running server of a build, one for this module."""
    running: dict[Build, PostgresServer] = {}

    def start(build: Build) -> PostgresServer:
        if build not in running:
            # one name for all, so that owners are there where a dump of one is restored into another
            password = request.getfixturevalue("canary")
            server = PostgresServer(build.bin_dir, password=password, tcp=True, superuser="matrix")
            running[build] = server.__enter__()
        return running[build]

    yield start
    for server in running.values():
        server.stop()


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    repository = open_repository((tmp_path / "repository").as_uri())
    repository.init()
    return repository


@pytest.fixture
def there(s3: S3Server) -> Repository:
    repository = open_repository(f"s3://{s3.bucket()}/backups", s3=S3Options(client_factory=s3.client))
    repository.init()
    return repository


def circle(reference: dict[str, object], here: Repository, there: Repository, folder: Path, settings: Settings) -> str:
    """Verify, upload, verify there, download; the command that restores what came back."""
    verified = verify(reference=reference, repository=here, context=RunContext(settings=settings))
    assert verified["verified"] == "archive"
    uploaded = upload(reference=verified, source=here, destination=there)
    assert verify(reference=uploaded, repository=there, context=RunContext(settings=settings))["verified"] == "archive"
    manifest = load_manifest(there, uploaded)
    download(there, manifest, folder)
    return manifest.restore_command


@pytest.mark.every_value
@each(BUILDS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_database(
    build: Build,
    format: str,
    started: Callable[[Build], PostgresServer],
    fresh_database: Fresh,
    here: Repository,
    there: Repository,
    tmp_path: Path,
) -> None:
    server = started(build)
    database = fresh_database(server, None, *FILL)
    reference = dump_database(
        connection=database,
        server="main",
        repository=here,
        options=DumpOptions(format=format, **FORMATS[format]),
        context=RunContext(settings=build.settings),
    )
    manifest = load_manifest(here, reference)
    assert manifest.client.version == manifest.source.server_version == f"{build.version[0]}.{build.version[1]}"
    if format in ("custom", "directory"):
        assert manifest.artifact.compression.method == ("zstd" if build.tls and build.major > 15 else "gzip")
    command = circle(reference, here, there, tmp_path, build.settings)
    rows = {
        table["name"]: table["rows"]
        for table in json.loads(here.read_bytes(next(e.key for e in here.list() if "archive-pass" in e.key)))["tables"]
    }
    assert rows == {"film": 500, 'Odd "name': 200, "nothing": 0}

    fresh_database(server, f"{database.dbname}_restored")
    with server.params.connect() as session:  # the command makes it; the fixture drops it
        session.execute(f'drop database "{database.dbname}_restored" with (force)')
    run_by_hand(command, tmp_path, server)
    assert contents(database.with_database(f"{database.dbname}_restored")) == contents(database)


@each(BUILDS)
def test_a_cluster(
    build: Build,
    started: Callable[[Build], PostgresServer],
    fresh_database: Fresh,
    here: Repository,
    there: Repository,
    tmp_path: Path,
    canary: str,
) -> None:
    server = started(build)
    one, two = fresh_database(server, None, *FILL), fresh_database(server, None, *FILL, *EMPTY)
    reference = dump_cluster(
        connection=server.params,
        server="main",
        repository=here,
        options=DumpAllOptions(),
        context=RunContext(settings=build.settings),
    )
    command = circle(reference, here, there, tmp_path, build.settings)
    with PostgresServer(build.bin_dir, password=canary, tcp=True) as other:
        run_by_hand(command, tmp_path, other)
        for database in (one, two):
            assert contents(other.params.with_database(database.dbname)) == contents(database)


@pytest.fixture
def only_client(monkeypatch: pytest.MonkeyPatch) -> Callable[[Build], Settings]:
    """A worker that has the programs of one version and no other."""

    def make(build: Build) -> Settings:
        monkeypatch.setattr(clients, "WELL_KNOWN", ())
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setenv("PATH", "/nonexistent")
        return build.settings

    return make


@each([build for build in BUILDS if build.major < BUILDS[-1].major])
def test_a_client_newer_than_the_server(
    build: Build,
    started: Callable[[Build], PostgresServer],
    fresh_database: Fresh,
    only_client: Callable[[Build], Settings],
    here: Repository,
    there: Repository,
    tmp_path: Path,
) -> None:
    newest = BUILDS[-1]
    settings = only_client(newest)
    database = fresh_database(started(build), None, *FILL)
    reference = dump_database(
        connection=database,
        server="main",
        repository=here,
        options=DumpOptions(),
        context=RunContext(settings=settings),
    )
    manifest = load_manifest(here, reference)
    assert (manifest.client.version.split(".")[0], manifest.source.server_version.split(".")[0]) == (
        str(newest.major),
        str(build.major),
    )
    command = circle(reference, here, there, tmp_path, settings)
    # Back into the source's own version where it can be: it may store what only its patch release knows, as 17.12 does.
    # pg_restore 17 and newer begin with a setting that servers before 17 do not have.
    target = started(build if build.major >= 17 else newest)
    copy = fresh_database(target, f"{database.dbname}_restored")
    with target.params.connect() as session:
        session.execute(f'drop database "{copy.dbname}" with (force)')
    run_by_hand(command, tmp_path, target, bin_dir=newest.bin_dir)
    assert contents(copy) == contents(database)


@each([build for build in BUILDS if build.major > BUILDS[0].major])
def test_a_client_older_than_the_server_is_refused(
    build: Build,
    started: Callable[[Build], PostgresServer],
    fresh_database: Fresh,
    only_client: Callable[[Build], Settings],
    here: Repository,
) -> None:
    oldest = BUILDS[0]
    database = fresh_database(started(build), None, *FILL)
    with pytest.raises(ClientError) as caught:
        dump_database(
            connection=database,
            server="m",
            repository=here,
            options=DumpOptions(),
            context=RunContext(settings=only_client(oldest)),
        )
    assert f"no pg_dump here fits PostgreSQL {build.major}: found {oldest.version[0]}." in caught.value.message
    assert f"postgresql-client-{build.major}" in (caught.value.hint or "")
    assert [entry.key for entry in here.list()] == ["repository.json"]
