"""adopt among others who write: nothing that a repository needs is taken out of it, and no dump is ever lost."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard

from airflow_pgbackup.backup.adopt import adopt, open_sources
from airflow_pgbackup.backup.adopt.enclosing import Enclosing
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import is_complete, read_evidence
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

END = "--\n-- PostgreSQL database dump complete\n--\n\n"


def script(text: str) -> bytes:
    """Return a script that does not name its database."""
    return f"--\n-- PostgreSQL database dump\n--\n\nSELECT '{text}';\n\n{END}".encode()


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    directory = tmp_path / "dumps"
    directory.mkdir()
    for name in ("crm_2025-03-01.sql", "crm_2025-03-02.sql"):
        (directory / name).write_bytes(script(name))
    return directory


def sound(repository: Repository) -> int:
    """Return the number of backups; each is complete."""
    backups = read_catalogue(repository).backups
    assert all(is_complete(read_evidence(repository, backup.series, backup.id)) for backup in backups)
    return len(backups)


@pytest.mark.parametrize("source", ["s/crm", "s/crm/{id}", "s/crm/{id}/{attempt}", "a file", "a glob", "a link"])
@pytest.mark.parametrize("destination", ["the same", "another"])
def test_a_move_takes_nothing_out_of_a_repository(here: LocalRepository, dumps: Path, source: str, destination: str,
                                                  tmp_path: Path) -> None:  # fmt: skip
    first: Any = adopt(repository=here, sources=[dumps], server="s")
    assert len(first["adopted"]) == 2
    root = here.local_path("s").parent
    file = next(root.rglob("*.sql"))
    if source == "a file":
        given = str(file)
    elif source == "a glob":
        given = f"{root}/s/*/*/*/*.sql"
    elif source == "a link":
        given = str(tmp_path / "link")
        Path(given).symlink_to(root / "s")
    else:
        given = f"{root}/{source.format(id=file.parent.parent.name, attempt=file.parent.name)}"
    repository = here
    if destination == "another":
        repository = LocalRepository(tmp_path / "another")
        repository.init()
    result: Any = adopt(repository=repository, sources=[given], server="t", move=True)
    assert (result["adopted"], result["removed"]) == ([], [])
    assert result["skipped"]
    for one in result["skipped"]:
        assert "of backups; pgbackup upload copies from one" in one["reason"]
    assert sound(here) == 2


def test_dumps_beside_the_backups_of_a_repository_are_adopted(here: LocalRepository, dumps: Path) -> None:
    beside = here.local_path("old").parent / "old"
    dumps.rename(beside)
    result: Any = adopt(repository=here, sources=[beside], server="s", move=True)
    assert len(result["adopted"]) == len(result["removed"]) == 2
    assert sound(here) == 2


@pytest.mark.every_value
@pytest.mark.parametrize("prefix", ["", "pg"])
@pytest.mark.parametrize("source", ["", "pg", "pg/s", "pg/s/crm/{id}", "pg/s/crm/{id}/*/*", "a key"])
def test_a_move_takes_nothing_out_of_a_repository_in_a_bucket(s3: S3Server, prefix: str, source: str) -> None:
    client, bucket, options = s3.client(), s3.bucket(), S3Options(client_factory=s3.client)
    repository = open_repository(f"s3://{bucket}/{prefix}", s3=options)
    repository.init()

    def adopted(given: str, **more: Any) -> Any:
        sources = open_sources([given], open_store=lambda uri: open_repository(uri, s3=options))
        return adopt(repository=repository, sources=sources, **more)

    for name in ("crm_2025-03-01.sql", "crm_2025-03-02.sql"):
        client.put_object(Bucket=bucket, Key=f"old/{name}", Body=script(name))
    assert len(adopted(f"s3://{bucket}/old", server="s")["adopted"]) == 2
    for name in ("crm_2025-03-01.sql", "crm_2025-03-02.sql"):  # what equals it elsewhere would be taken instead
        client.delete_object(Bucket=bucket, Key=f"old/{name}")
    (key, *_) = (entry.key for entry in repository.list("s/crm") if entry.key.endswith(".sql"))
    inside = key if source == "a key" else source.removeprefix("pg").lstrip("/").format(id=key.split("/")[2])
    given = "/".join(filter(None, [f"s3://{bucket}", prefix if source else "", inside]))
    result = adopted(given, server="t", move=True)
    assert (result["adopted"], result["removed"]) == ([], [])
    assert result["skipped"]
    for one in result["skipped"]:
        assert "of backups; pgbackup upload copies from one" in one["reason"]
    assert sound(repository) == 2


@pytest.mark.parametrize("link", [False, True], ids=["copied", "linked"])
def test_a_repair_at_the_same_time_removes_nothing_of_an_adoption(
    here: LocalRepository, dumps: Path, link: bool
) -> None:
    """The files are years old, and so are their hard links, but the attempt that makes them is not."""
    for file in dumps.iterdir():
        os.utime(file, (1e9, 1e9))

    class Repairing(Cancel):
        """Runs while a file is read, and before a manifest is written."""

        def check(self) -> None:
            running.extend(one.key for one in fsck(repository=here, repair=True).findings if one.code == "running")

    running: list[str] = []
    result: Any = adopt(
        repository=here, sources=[dumps], server="s", link=link, move=True, context=RunContext(cancel=Repairing())
    )
    assert len(result["adopted"]) == len(result["removed"]) == 2
    assert any(".pgbackup-tmp-" in key for key in running) and any(".pgbackup-tmp-" not in key for key in running)
    assert sound(here) == 2


@pytest.fixture(scope="module")
def archives(server18: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of dumps, named by their compression: two tables, one of them empty, and two large objects."""
    database = server18.params.with_database("adopted")
    with server18.params.connect() as session:
        session.execute("create database adopted template template0")
    with database.connect() as session:
        session.execute("create table t as select generate_series(1, 1000) as a")
        session.execute("create table empty (a int)")
        session.execute("select lo_from_bytea(0, 'one'), lo_from_bytea(0, 'two')")
    root = tmp_path_factory.mktemp("archives")
    for compression in ("gzip", "none"):
        with client_environment(database) as env:
            argv = ["-w", "-Fd", f"--compress={compression}", f"--file={root / compression}"]
            subprocess.run([server18.bin_dir / "pg_dump", *argv], env=env, check=True)
    for suffix, compress in (("zst", zstandard.compress), ("lz4", lz4.frame.compress)):  # this pg_dump has neither
        shutil.copytree(root / "none", root / suffix)
        for path in set((root / suffix).glob("*.dat")) - {root / suffix / "toc.dat"}:
            path.with_name(f"{path.name}.{suffix}").write_bytes(compress(path.read_bytes()))
            path.unlink()
    return root


@pytest.mark.parametrize("compression", ["gzip", "zst", "lz4", "none"])
@pytest.mark.parametrize("damage", ["nothing", "no data", "short data", "empty data", "no blob", "short list"])
def test_an_incomplete_directory_dump_is_skipped_and_kept(
    here: LocalRepository, archives: Path, compression: str, damage: str, tmp_path: Path
) -> None:
    """As a truncated script or custom archive is: a copy that is still running looks like this."""
    source = tmp_path / "app.dir"
    shutil.copytree(archives / compression, source)
    data = max(source.glob("[0-9]*.dat*"), key=lambda path: path.stat().st_size)
    if damage == "no data":
        data.unlink()
    elif damage == "short data":
        os.truncate(data, data.stat().st_size - 5)
    elif damage == "empty data":
        data.write_bytes(gzip.compress(b"") if compression == "gzip" else b"")
    elif damage == "no blob":
        next(source.glob("blob_*")).unlink()
    elif damage == "short list":
        listing = next(source.glob("blobs*.toc"))
        os.truncate(listing, listing.stat().st_size - 1)
    result: Any = adopt(repository=here, sources=[source], server="s", move=True)
    if damage == "nothing":
        assert len(result["adopted"]) == len(result["removed"]) == 1
        return
    assert (result["adopted"], result["removed"]) == ([], [])
    assert source.is_dir()
    (skipped,) = result["skipped"]
    assert re.search("lacks|truncated|is empty|large objects", skipped["reason"])


def test_links_and_special_files_are_named(here: LocalRepository, dumps: Path) -> None:
    (dumps / "a_latest.sql").symlink_to("crm_2025-03-02.sql")
    (dumps / "nas").symlink_to("/mnt")
    os.mkfifo(dumps / "fifo")
    result: Any = adopt(repository=here, sources=[dumps], server="s", dry_run=True)
    assert {one["path"]: one["reason"] for one in result["skipped"]} == {
        "fifo": "not a regular file",
        "a_latest.sql": "a symbolic link, which is not followed",
        "nas": "a symbolic link, which is not followed",
    }
    assert len(result["found"]) == 2, "the target of a link is a dump of its own"


@pytest.mark.parametrize("swapped", ["nightly", "nightly/2025"])
def test_a_directory_that_becomes_a_link_shows_nothing_outside(
    swapped: str, here: LocalRepository, dumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dumps / "nightly" / "2025").mkdir(parents=True)
    outside = tmp_path / "outside"
    (outside / "2025").mkdir(parents=True)
    for folder in (outside, outside / "2025"):
        (folder / "private.sql").write_bytes(b"")
    look = Enclosing.has_backup_at

    def swap(self: Enclosing, name: str) -> bool:
        if name == "nightly/2025" and not (dumps / swapped).is_symlink():
            (dumps / swapped).rename(tmp_path / "before")
            (dumps / swapped).symlink_to(outside)
        return look(self, name)

    monkeypatch.setattr(Enclosing, "has_backup_at", swap)
    result: Any = adopt(repository=here, sources=[dumps], server="s", dry_run=True)
    assert "private" not in str(result)
    assert {one["path"]: one["reason"] for one in result["skipped"]} == {
        "nightly/2025": "cannot be read: not a directory"
    }


def test_objects_with_odd_names_are_named(s3: S3Server, here: LocalRepository) -> None:
    client, bucket, options = s3.client(), s3.bucket(), S3Options(client_factory=s3.client)
    for key in ("old/crm_2025-03-01.sql", "old/a\tb.sql"):
        client.put_object(Bucket=bucket, Key=key, Body=script(key))
    client.put_object(Bucket=bucket, Key="old/console/", Body=b"")
    sources = open_sources([f"s3://{bucket}/old"], open_store=lambda uri: open_repository(uri, s3=options))
    result: Any = adopt(repository=here, sources=sources, server="s", dry_run=True)
    assert [one["path"] for one in result["found"]] == ["crm_2025-03-01.sql"]
    assert [one["path"] for one in result["skipped"]] == ["a\tb.sql"]
    assert "control character" in result["skipped"][0]["reason"]


def test_only_what_a_source_names_is_searched(here: LocalRepository, dumps: Path) -> None:
    """What lies beside it is not: a broken directory there is no reason to mention it."""
    beside = dumps / "beside"
    (beside / "toc.dat").mkdir(parents=True)
    (dumps / "[x]").mkdir()
    (dumps / "[x]" / "crm*_2025-03-03.sql").write_bytes(script("3"))
    for source, paths in (
        (dumps / "crm_2025-03-01.sql", {"crm_2025-03-01.sql"}),
        (dumps / "[x]" / "crm*_2025-03-03.sql", {"crm*_2025-03-03.sql"}),
        (f"{dumps}/crm*", {"crm_2025-03-01.sql", "crm_2025-03-02.sql"}),
        (f"{dumps}/[[]x]/*", {"[x]/crm*_2025-03-03.sql"}),
    ):
        result: Any = adopt(repository=here, sources=[source], server="s", dry_run=True)
        assert ({one["path"] for one in result["found"]}, result["skipped"]) == (paths, []), source
    with pytest.raises(ConfigurationError, match="nothing matches"):
        adopt(repository=here, sources=[f"{dumps}/[[]x]/*/.."], server="s", dry_run=True)
