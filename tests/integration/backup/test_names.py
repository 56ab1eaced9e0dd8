"""Any name of a database, role, table, server or artifact: it is a name, from the dump to the restore by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builds import run_by_hand
from psycopg import sql

from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import OptionError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

Fresh = Callable[..., ConnectionParams]

NAMES = [
    "host=evil dbname=x",
    "postgresql://h/x",
    "-lead",
    "--help",
    "..",
    ".hidden",
    "a/b",
    "@cluster",
    "dvdrental_2026",
    "Ünïcödé 数据库 🐘",
    "line\nbreak\ttab\rreturn",
    'quo\'te "d" `back` \\slash',
    " spaces  ",
    "%41%2F",
    "$(touch pwned); {date} &|<>*?[a]!#~",
    "verification-x",
    "x" * 63,
    "ü" * 31,
]
ODD = "odd \"name' $1 \\.\nCOPY public.t FROM stdin;"


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    repository = open_repository((tmp_path / 'it\'s a "repository" %20').as_uri())
    repository.init()
    return repository


@pytest.fixture
def there(s3: S3Server) -> Repository:
    repository = open_repository(f"s3://{s3.bucket()}/it's a prefix", s3=S3Options(client_factory=s3.client))
    repository.init()
    return repository


@pytest.fixture
def odd_role(server18: PostgresServer) -> Iterator[str]:
    name = sql.Identifier(ODD)
    with server18.params.connect() as session:
        session.execute(sql.SQL("create role {}").format(name))
    yield ODD
    with server18.params.connect() as session:
        session.execute(sql.SQL("drop role {}").format(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_database_of_that_name(
    name: str,
    server18: PostgresServer,
    fresh_database: Fresh,
    here: Repository,
    there: Repository,
    tmp_path: Path,
) -> None:
    database = fresh_database(server18, name, "create table t (a int)", "insert into t select generate_series(1, 7)")
    assert {finding.code for finding in check(connection=database, server=name, repository=here)} <= {"not_covered"}
    for format in ("custom", "plain"):
        options = DumpOptions(format=format)
        dumped = dump_database(connection=database, server=name, repository=here, options=options)
        assert dumped["database"] == name
        assert Series.parse(str(dumped["series"])) == Series(name, name)
        uploaded = upload(reference=verify(reference=dumped, repository=here), source=here, destination=there)
        assert verify(reference=uploaded, repository=there)["verified"] == "archive"
        manifest = load_manifest(there, json.loads(json.dumps(uploaded)))
        download(there, manifest, tmp_path)
        restored = restore_by_hand(manifest.restore_command, tmp_path, server18)
        assert restored.dbname.startswith(name[:20])
        assert rows(restored, "t") == [(n,) for n in range(1, 8)]
        with server18.params.connect() as session:
            session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(restored.dbname)))
    assert {backup.series for backup in read_catalogue(there).backups} == {Series(name, name)}
    assert not (tmp_path / "pwned").exists()


def restore_by_hand(command: str, folder: Path, server: PostgresServer) -> ConnectionParams:
    """The one database that is there afterwards and was not before."""
    before = databases(server)
    run_by_hand(command, folder, server)
    (new,) = databases(server) - before
    return server.params.with_database(new)


def databases(server: PostgresServer) -> set[str]:
    with server.params.connect() as session:
        return {str(name) for (name,) in session.execute("select datname from pg_database")}


def rows(database: ConnectionParams, table: str) -> list[tuple[object, ...]]:
    with database.connect() as session:
        return session.execute(sql.SQL("select * from {} order by 1").format(sql.Identifier(table))).fetchall()


def test_all_of_them_in_a_cluster(
    server18: PostgresServer, fresh_database: Fresh, here: Repository, there: Repository, tmp_path: Path, canary: str
) -> None:
    ordinary = [name for name in NAMES if not set(name) & {"\n", "\r"}]
    for name in ordinary:
        fresh_database(server18, name, "create table t (a int)", "insert into t values (1)")
    dumped = dump_cluster(connection=server18.params, server="s", repository=here, options=DumpAllOptions())
    uploaded = upload(reference=verify(reference=dumped, repository=here), source=here, destination=there)
    verify(reference=uploaded, repository=there)
    manifest = load_manifest(there, uploaded)
    download(there, manifest, tmp_path)
    with PostgresServer(server18.bin_dir, password=canary, tcp=True) as other:
        run_by_hand(manifest.restore_command, tmp_path, other)
        assert databases(other) == databases(server18)
        for name in ordinary:
            assert rows(other.params.with_database(name), "t") == [(1,)]
    assert not (tmp_path / "pwned").exists()


def test_a_cluster_with_a_line_break_in_a_name(
    server18: PostgresServer, fresh_database: Fresh, here: Repository
) -> None:
    """pg_dumpall passes names to pg_dump through a shell, and refuses what that cannot take."""
    fresh_database(server18, "line\nbreak")
    with pytest.raises(ToolError) as caught:
        dump_cluster(connection=server18.params, server="s", repository=here, options=DumpAllOptions())
    print(caught.value)
    assert "newline" in caught.value.message
    assert "exclude_databases" in (caught.value.hint or "")
    codes = {f.code: f for f in check(connection=server18.params, server="s", options=DumpAllOptions())}
    assert codes["database_name"].severity == "error"
    # leaving it out is a way, and a dump of its own is the other
    options = DumpAllOptions(exclude_databases=["line*"])
    dump_cluster(connection=server18.params, server="s", repository=here, options=options)


def test_roles_schemas_tables_and_columns(
    odd_role: str,
    server18: PostgresServer,
    fresh_database: Fresh,
    here: Repository,
    there: Repository,
    tmp_path: Path,
) -> None:
    odd, table = sql.Identifier(ODD), sql.Identifier(ODD, ODD)
    database = fresh_database(server18)
    with database.connect() as session:
        session.execute(sql.SQL("create schema {}").format(odd))
        session.execute(sql.SQL("create table {} ({} text)").format(table, odd))
        session.execute(sql.SQL("insert into {} values ({})").format(table, sql.Literal(ODD)))
        session.execute(sql.SQL("create table {} (a int)").format(sql.Identifier("other")))
        session.execute(sql.SQL("comment on table {} is {}").format(table, sql.Literal(ODD)))
        session.execute(sql.SQL("alter table {} owner to {}").format(table, odd))
        session.execute(sql.SQL("grant select on {} to {}").format(table, odd))
    pattern = '"' + ODD.replace('"', '""') + '"'
    for format in ("custom", "tar", "directory", "plain"):
        for selection in ({}, {"schemas": [pattern]}, {"tables": [f"{pattern}.{pattern}"]}):
            options = DumpOptions(format=format, **selection)  # type: ignore[arg-type]
            dumped = dump_database(connection=database, server="s", repository=here, options=options)
            verified = verify(reference=dumped, repository=here)
            (key,) = [e.key for e in here.list() if str(dumped["id"]) in e.key and "archive-pass" in e.key]
            counted = {(t["schema"], t["name"]): t["rows"] for t in json.loads(here.read_bytes(key))["tables"]}
            assert counted == {(ODD, ODD): 1, **({} if selection else {("public", "other"): 0})}
        uploaded = upload(reference=verified, source=here, destination=there)
        assert verify(reference=uploaded, repository=there)["verified"] == "archive"
    assert check(connection=database, server="s", options=DumpOptions(tables=[f"{pattern}.{pattern}"])) == []
    (other,) = (
        f for f in check(connection=database, server="s", options=DumpOptions(role=ODD)) if f.code == "table_select"
    )
    assert other.objects == ("public.other",)


@pytest.mark.every_value
@pytest.mark.parametrize(
    "template",
    ['it\'s "{database}" of {server}', "-rf {date}", "ünï 数据", "%41 $(touch pwned)", "verification-{time}", "~"],
)
@pytest.mark.parametrize("format", ["custom", "directory"])
def test_artifact_names(
    template: str,
    format: str,
    server18: PostgresServer,
    fresh_database: Fresh,
    here: Repository,
    there: Repository,
    tmp_path: Path,
) -> None:
    database = fresh_database(server18, None, "create table t (a int)", "insert into t values (1)")
    dumped = dump_database(
        connection=database, server="s", repository=here, options=DumpOptions(format=format), artifact_template=template
    )
    uploaded = upload(reference=verify(reference=dumped, repository=here), source=here, destination=there)
    verify(reference=uploaded, repository=there)
    manifest = load_manifest(there, uploaded)
    download(there, manifest, tmp_path)
    restored = restore_by_hand(manifest.restore_command, tmp_path, server18)
    assert rows(restored, "t") == [(1,)]
    with server18.params.connect() as session:
        session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(restored.dbname)))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("template", ["a/b", "../{database}", "{database}\n", ".{database}", "{secret}", "x" * 300])
def test_artifact_names_that_are_none(
    template: str, server18: PostgresServer, fresh_database: Fresh, here: Repository
) -> None:
    with pytest.raises(OptionError):
        dump_database(
            connection=fresh_database(server18),
            server="s",
            repository=here,
            options=DumpOptions(),
            artifact_template=template,
        )
    assert [entry.key for entry in here.list()] == ["repository.json"]
