"""Where adopted dumps come from, and what happens to them there: globs, buckets, links, moves, and a verification."""

from __future__ import annotations

import lzma
import os
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_pgbackup.backup.adopt import adopt, carry_out, open_sources, plan_adoption
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ConfigurationError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

END = "--\n-- PostgreSQL database dump complete\n--\n\n"


def script(text: str) -> bytes:
    """Return a script that does not name its database."""
    return f"--\n-- PostgreSQL database dump\n--\n\nSELECT '{text}';\n\n{END}".encode()


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    directory = tmp_path / "dumps"
    for name in (
        "crm_2025-03-01.sql",
        "crm_2025-03-02.sql",
        "old/2024/billing_2024-01-01.sql",
        "old/.hidden_2024-01-02.sql",
    ):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(script(name))
    return directory


@pytest.fixture
def app(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, "create table t (a int)", "insert into t select generate_series(1, 100)")


def dump(server: PostgresServer, params: ConnectionParams, *options: str) -> None:
    with client_environment(params) as env:
        subprocess.run([server.bin_dir / "pg_dump", "-w", *options], env=env, check=True)


def found(repository: Repository, *sources: str | Path, **more: Any) -> dict[str, str]:
    result: Any = adopt(repository=repository, sources=sources, server="s", dry_run=True, **more)
    return {one["path"]: one["series"] for one in result["found"]}


def test_globs_files_and_directories(repository: LocalRepository, dumps: Path) -> None:
    assert found(repository, f"{dumps}/*.sql") == {"crm_2025-03-01.sql": "s/crm", "crm_2025-03-02.sql": "s/crm"}
    assert found(repository, f"{dumps}/**/b*.sql") == {"old/2024/billing_2024-01-01.sql": "s/billing"}
    assert found(repository, f"{dumps}/ol?") == {
        "old/2024/billing_2024-01-01.sql": "s/billing",
        "old/.hidden_2024-01-02.sql": "s/hidden",
    }
    with pytest.raises(ConfigurationError, match=r"nothing matches .*/old/"):  # an asterisk, a leading dot
        found(repository, f"{dumps}/old/*.sql")
    assert found(repository, dumps / "crm_2025-03-02.sql") == {"crm_2025-03-02.sql": "s/crm"}
    assert found(repository, f"file://{dumps}/crm_2025-03-0[!1].sql") == {"crm_2025-03-02.sql": "s/crm"}
    twice = found(repository, dumps, dumps / "crm_2025-03-02.sql", f"{dumps}/*.sql")
    assert len(twice) == 4, "a file that several sources reach counts once"


def test_what_is_not_a_source(repository: LocalRepository, dumps: Path) -> None:
    for wrong, message in (
        ((), "no dumps to adopt given"),
        ((dumps / "missing.sql",), "does not exist on this machine"),
        ((f"{dumps}/missing/*.sql",), "is not a directory on this machine"),
        (("file://other/dumps",), "does not name a file of this machine"),
        (("ftp://host/dumps",), "ftp"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            found(repository, *wrong)
    result: Any = adopt(repository=repository, sources=[str(repository.local_path("x").parent)], server="s")
    assert [one["reason"] for one in result["skipped"]] == ["a repository of backups; pgbackup upload copies from one"]
    link = dumps / "link.sql"
    link.symlink_to(dumps / "crm_2025-03-01.sql")
    result = adopt(repository=repository, sources=[link], server="s")
    assert [one["reason"] for one in result["skipped"]] == ["a symbolic link, which is not followed"]


def test_another_database_is_not_labeled(repository: LocalRepository, dumps: Path) -> None:
    result: Any = adopt(repository=repository, sources=[dumps], server="s", database="crm")
    assert {one["path"] for one in result["found"]} == {"crm_2025-03-01.sql", "crm_2025-03-02.sql"}
    for one in result["skipped"]:
        assert "its file name does not match crm" in one["reason"]
    assert {backup.series.path for backup in read_catalogue(repository).backups} == {"s/crm"}
    alone: Any = adopt(
        repository=repository, sources=[dumps / "old/2024/billing_2024-01-01.sql"], server="s", database="b"
    )
    assert [one["series"] for one in alone["adopted"]] == ["s/b"]
    mapped = found(repository, dumps, database_patterns=["old/*/*=history", "{database}_2*.sql"])
    assert mapped["old/2024/billing_2024-01-01.sql"] == "s/history"
    assert mapped["crm_2025-03-01.sql"] == "s/crm"


def test_a_second_run_with_another_time_does_not_adopt_twice(repository: LocalRepository, dumps: Path) -> None:
    source = dumps / "crm_2025-03-01.sql"
    (first,) = adopt(repository=repository, sources=[source], server="s")["adopted"]  # type: ignore[misc]
    again: Any = adopt(repository=repository, sources=[source], server="s", time_patterns=["%Y-%d-%m"])
    assert again["adopted"] == []
    assert again["skipped"][0]["reason"].startswith(f"adopted before as {first['id']}, with another time")


def test_files_of_one_day_are_reported(repository: LocalRepository, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"crm_{'abc'[number]}.sql").write_bytes(script(str(number)))
    result: Any = adopt(
        repository=repository, sources=[f"{tmp_path}/*.sql"], server="s", database_patterns=["crm_*=crm"], dry_run=True
    )
    first, second = result["warnings"]
    assert first.startswith("the time of 3 of 3 dumps is that of the file")
    assert second == "the files of 3 dumps of s/crm were all last written on one day, perhaps when they were copied"


def test_links_share_the_bytes(repository: LocalRepository, dumps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, flushed = os.fsync, set[int]()

    def flushing(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flushing)
    result: Any = adopt(repository=repository, sources=[dumps], server="s", link=True)
    assert {path.stat().st_ino for path in dumps.rglob("*.sql*")} <= flushed, "whoever wrote them may not have"
    assert len(result["adopted"]) == 4
    for reference in result["adopted"]:
        manifest = load_manifest(repository, reference)
        stored = repository.local_path(manifest.key(manifest.artifact.files[0]))
        assert stored.samefile(dumps / str(manifest.origin["adopted_from"]))
        assert verify(reference=reference, repository=repository, level="integrity")["verified"] == "integrity"
    assert not list(Path(repository.local_path("s")).rglob(".pgbackup-tmp-*"))
    (dumps / "crm_2025-03-01.sql").write_bytes(script("other"))
    changed = next(one for one in result["adopted"] if one["artifact"] == "crm_2025-03-01.sql")
    with pytest.raises(VerificationFailed, match=r"sha256|bytes"):
        verify(reference=changed, repository=repository, level="integrity")


def test_a_dump_on_another_file_system_is_not_linked(
    repository: LocalRepository, dumps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refused)
    result: Any = adopt(repository=repository, sources=[dumps / "crm_2025-03-01.sql"], server="s", link=True)
    assert result["adopted"] == []
    assert result["skipped"][0]["reason"].startswith("it cannot be linked: another file system")
    assert [entry.key for entry in repository.list()] == ["repository.json"]


@pytest.mark.parametrize("link", [False, True], ids=["copied", "linked"])
def test_a_move_removes_what_was_adopted_and_nothing_else(
    link: bool, repository: LocalRepository, dumps: Path, server18: PostgresServer, app: ConnectionParams
) -> None:
    dump(server18, app, "-Fd", f"--file={dumps / 'app.dir'}")
    (dumps / "notes.txt").write_text("keep me")
    result: Any = adopt(repository=repository, sources=[dumps], server="s", link=link, move=True)
    assert len(result["adopted"]) == len(result["removed"]) == 5
    assert [path.name for path in dumps.rglob("*") if path.is_file()] == ["notes.txt"]
    assert not (dumps / "app.dir").exists()
    for reference in result["adopted"]:
        assert verify(reference=reference, repository=repository, level="integrity")["verified"] == "integrity"


def test_a_move_keeps_what_changed_and_what_fails(repository: LocalRepository, dumps: Path) -> None:
    changing, failing = dumps / "crm_2025-03-01.sql", dumps / "crm_2025-03-02.sql"
    plan = plan_adoption(repository=repository, sources=open_sources([changing, failing]), server="s")

    def verified(reference: Mapping[str, object]) -> dict[str, object]:
        if reference["artifact"] == failing.name:
            raise VerificationFailed("damaged")
        changing.write_bytes(script("written meanwhile"))
        return verify(reference=reference, repository=repository)

    logged: list[str] = []
    result: Any = carry_out(plan, move=True, verify=verified, context=RunContext(log=logged.append))
    assert result["removed"] == []
    assert [(one["path"], one["status"]) for one in result["failed"]] == [(failing.name, "failed")]
    assert changing.exists() and failing.exists()
    assert any("was adopted, but not removed: it has changed since it was read" in line for line in logged)


@pytest.mark.parametrize("move", [False, True])
def test_what_was_verified_at_a_lower_level_is_verified_again(
    move: bool, repository: LocalRepository, dumps: Path
) -> None:
    source = dumps / "crm_2025-03-01.sql"

    def at(level: str) -> dict[str, object]:
        def verified(reference: Mapping[str, object]) -> dict[str, object]:
            return verify(reference=reference, repository=repository, level=level)

        return adopt(repository=repository, sources=[source], server="s", verify=verified, level=level, move=move)

    adopt(
        repository=repository,
        sources=[source],
        server="s",
        verify=lambda each: verify(reference=each, repository=repository, level="integrity"),
        level="integrity",
    )
    (reference,) = at("archive")["present"]  # type: ignore[misc]
    assert reference["verified"] == "archive"
    assert source.exists() is not move


def test_a_move_removes_nothing_whose_pass_does_not_count(
    repository: LocalRepository, dumps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a pass that is dated in the future, which is ignored."""
    source = dumps / "crm_2025-03-01.sql"
    ahead = datetime.now(timezone.utc) + timedelta(hours=4)
    monkeypatch.setattr("airflow_pgbackup.backup.reading_record._time_to_write", lambda *_: ahead)
    result: Any = adopt(
        repository=repository,
        sources=[source],
        server="s",
        verify=lambda each: verify(reference=each, repository=repository),
        move=True,
    )
    (failed,) = result["failed"]
    assert failed["status"] == "not proven"
    assert "it is from the future" in failed["reason"]
    assert result["removed"] == []
    assert source.exists()


def test_a_move_removes_nothing_by_an_earlier_verification(repository: LocalRepository, dumps: Path) -> None:
    source = dumps / "crm_2025-03-01.sql"
    options: dict[str, Any] = {"repository": repository, "sources": [source], "server": "s"}
    adopt(**options, verify=lambda each: verify(reference=each, repository=repository))

    def fails(reference: Mapping[str, object]) -> dict[str, object]:
        raise VerificationFailed("damaged since")

    assert adopt(**options, verify=fails)["failed"] == []
    result: Any = adopt(**options, verify=fails, move=True)
    assert ([each["reason"] for each in result["failed"]], result["removed"]) == (["damaged since"], [])
    assert source.exists()


@pytest.mark.parametrize("target", ["the same store", "another store"])
def test_from_a_bucket(
    target: str, s3: S3Server, tmp_path: Path, server18: PostgresServer, app: ConnectionParams, client_dirs: list[str]
) -> None:
    client, bucket = s3.client(), s3.bucket()
    options = S3Options(client_factory=s3.client)
    local = tmp_path / "local"
    local.mkdir()
    for format, name in (("custom", "app.dump"), ("tar", "app.tar"), ("directory", "app.dir")):
        dump(server18, app, f"--format={format}", f"--file={local / name}")
    dump(server18, app, "--create", f"--file={local / 'app_2025-03-01.sql'}")
    compressed = local / "app_2025-03-01.sql.xz"
    compressed.write_bytes(lzma.compress((local / "app_2025-03-01.sql").read_bytes()))
    (local / "notes.txt").write_text("no dump")
    for path in local.rglob("*"):
        if path.is_file():
            client.put_object(Bucket=bucket, Key=f"old/{path.relative_to(local)}", Body=path.read_bytes())
    uri = f"s3://{bucket}/pg" if target == "the same store" else f"file://{tmp_path / 'pg'}"
    repository = open_repository(uri, s3=options)
    repository.init()

    def opened(*sources: str) -> Any:
        return open_sources(sources, open_store=lambda each: open_repository(each, s3=options))

    one: Any = adopt(repository=repository, sources=opened(f"s3://{bucket}/old/app.dump"), server="s", dry_run=True)
    assert [each["path"] for each in one["found"]] == ["app.dump"]
    some: Any = adopt(repository=repository, sources=opened(f"s3://{bucket}/old/*.sql*"), server="s", dry_run=True)
    assert {each["path"] for each in some["found"]} == {"app_2025-03-01.sql", "app_2025-03-01.sql.xz"}
    result: Any = adopt(
        repository=repository,
        sources=opened(f"s3://{bucket}/old"),
        server="s",
        move=True,
        link=target == "the same store",
    )
    assert len(result["adopted"]) == len(result["removed"]) == 5
    assert [each["path"] for each in result["skipped"]] == ["notes.txt"]
    left = client.list_objects_v2(Bucket=bucket, Prefix="old/")["Contents"]
    assert [each["Key"] for each in left] == ["old/notes.txt"]
    settings = RunContext(settings=Settings(client_dirs=tuple(client_dirs)))
    for reference in result["adopted"]:
        assert verify(reference=reference, repository=repository, context=settings)["verified"] == "archive"


def test_an_object_that_changes_after_the_plan_is_neither_adopted_nor_removed(
    s3: S3Server, repository: LocalRepository
) -> None:
    client, bucket = s3.client(), s3.bucket()
    options = S3Options(client_factory=s3.client)
    for key in ("old/crm_2025-03-01.sql", "old/crm_2025-03-02.sql"):
        client.put_object(Bucket=bucket, Key=key, Body=script(key))
    sources = open_sources([f"s3://{bucket}/old/"], open_store=lambda each: open_repository(each, s3=options))
    plan = plan_adoption(repository=repository, sources=sources, server="s")
    client.put_object(Bucket=bucket, Key="old/crm_2025-03-01.sql", Body=script("new"))
    client.delete_object(Bucket=bucket, Key="old/crm_2025-03-02.sql")
    result: Any = carry_out(plan, move=True)
    assert (result["adopted"], result["removed"]) == ([], [])
    assert {one["path"] for one in result["skipped"]} == {"crm_2025-03-01.sql", "crm_2025-03-02.sql"}
    assert client.get_object(Bucket=bucket, Key="old/crm_2025-03-01.sql")["Body"].read() == script("new")
    with pytest.raises(ClientError):
        client.head_object(Bucket=bucket, Key="old/crm_2025-03-02.sql")


def test_a_script_in_xz_is_restored(
    repository: LocalRepository, tmp_path: Path, server18: PostgresServer, app: ConnectionParams,
    fresh_database: Callable[..., ConnectionParams],
) -> None:  # fmt: skip
    plain = tmp_path / "app_2025-03-01.sql"
    dump(server18, app, f"--file={plain}")
    compressed = tmp_path / "app_2025-03-01.sql.xz"
    compressed.write_bytes(lzma.compress(plain.read_bytes()))
    (reference,) = adopt(repository=repository, sources=[compressed], server="s")["adopted"]  # type: ignore[misc]
    manifest = load_manifest(repository, reference)
    assert manifest.restore_command.startswith(
        "xz -t app_2025-03-01.sql.xz && createdb --template template0 -- app_restored && xz -dc app_2025-03-01.sql.xz"
    )
    target = fresh_database(server18)
    restore(reference=reference, repository=repository, target=RestoreTarget(connection=target))
    with client_environment(target) as env:
        counted = subprocess.run(
            [server18.bin_dir / "psql", "-wAtc", "select count(*) from t"], env=env, check=True, capture_output=True
        )
    assert counted.stdout == b"100\n"


def test_a_script_with_windows_line_ends_is_adopted_and_not_called_failed(
    repository: LocalRepository, tmp_path: Path
) -> None:
    source = tmp_path / "crm_2025-03-01.sql"
    source.write_bytes(script("x").replace(b"\n", b"\r\n"))
    (reference,) = adopt(repository=repository, sources=[source], server="s")["adopted"]  # type: ignore[misc]
    with pytest.raises(NotProven, match="Windows line ends"):
        verify(reference=reference, repository=repository)
    (backup,) = read_catalogue(repository).backups
    assert backup.state == "notproven"
