"""An artifact replaced between its check and its use, by a rename or in place, its time forged: what is used is what
was hashed, or nothing is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from restoring import restored
from tampering import HONEST, STOLEN, TABLE, Victim, between_readings, swap, text_of, victim

from airflow_pgbackup.backup.adopt import carry_out, open_sources, plan_adoption
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import RepositoryError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.local.root import Root
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

Fresh = Callable[..., ConnectionParams]

HOW = ["renamed over", "written in place"]
# What no tool has to open by its name is read again, and must be found out; of the rest a private copy is used.
STREAMED: list[dict[str, Any]] = [{"format": "custom", "compress": "none"}, {"format": "plain", "compress": "none"}]
COPIED: list[dict[str, Any]] = [{"format": "tar"}, {"format": "directory", "compress": "none"}]


def name(options: object) -> str:
    return str(options["format"]) if isinstance(options, dict) else str(options).replace(" ", "-")


@pytest.fixture
def source(server18: PostgresServer, fresh_database: Fresh) -> ConnectionParams:
    return fresh_database(server18, None, *TABLE)


@pytest.fixture
def made(source: ConnectionParams, tmp_path: Path, request: pytest.FixtureRequest) -> Victim:
    return victim(source, tmp_path / "pg", **request.param)


def while_swapped(made: Victim, how: str, *, times: int = 1) -> AbstractContextManager[None]:
    manifest, files = made.manifest, made.files

    def act() -> None:
        for path in files:
            swap(path, how)

    return between_readings(made.repository, map(manifest.key, manifest.artifact.files), act, times=times)


@pytest.mark.parametrize("how", HOW, ids=name)
@pytest.mark.parametrize("made", STREAMED, ids=name, indirect=True)
def test_read_to_its_end(made: Victim, how: str) -> None:
    with while_swapped(made, how), pytest.raises(RepositoryError, match="changed after its digest was checked"):
        verify(reference=made.reference, repository=made.repository)
    assert made.reports() == []  # nothing is known of it


@pytest.mark.parametrize("how", HOW, ids=name)
@pytest.mark.parametrize("made", COPIED, ids=name, indirect=True)
def test_read_to_its_end_by_its_name(made: Victim, how: str) -> None:
    verify(reference=made.reference, repository=made.repository)
    honest = made.report().tables
    with while_swapped(made, how):
        assert verify(reference=made.reference, repository=made.repository)["verified"] == "archive"
    assert made.report().tables == honest
    assert any(STOLEN in path.read_bytes() for path in made.files)


@pytest.mark.parametrize("made", [*STREAMED, *COPIED], ids=name, indirect=True)
def test_rehearsed(made: Victim, tmp_path: Path) -> None:
    """A rehearsal reads its artifact several times: each time the same."""
    verify(reference=made.reference, repository=made.repository)
    honest = [(table.name, table.rows, table.sha256) for table in made.report().tables]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with while_swapped(made, "renamed over"):
        settings = Settings(temp_dir=str(temporary))
        done = verify(
            reference=made.reference, repository=made.repository, level="restore", context=RunContext(settings=settings)
        )
    assert done["verified"] == "restore"
    assert [(table.name, table.rows, table.sha256) for table in made.report().tables] == honest
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("how", HOW, ids=name)
@pytest.mark.parametrize("made", STREAMED, ids=name, indirect=True)
def test_restored(made: Victim, how: str, server18: PostgresServer, fresh_database: Fresh) -> None:
    target = fresh_database(server18)
    with while_swapped(made, how), pytest.raises(RepositoryError, match="changed after its digest was checked"):
        restored(made.reference, made.repository, target)
    assert b"CREATE TABLE" not in text_of(server18.bin_dir, target)


@pytest.mark.every_value
@pytest.mark.parametrize("how", HOW, ids=name)
@pytest.mark.parametrize(
    ("made", "options"),
    [*((each, {}) for each in COPIED), (STREAMED[0], {"jobs": 2}), (COPIED[1], {"jobs": 2})],
    ids=["tar", "directory", "custom-jobs", "directory-jobs"],
    indirect=["made"],
)
def test_restored_by_its_name(
    made: Victim, options: dict[str, Any], how: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    target = fresh_database(server18)
    with while_swapped(made, how):
        restored(made.reference, made.repository, target, options=options)
    text = text_of(server18.bin_dir, target)
    assert HONEST in text
    assert STOLEN not in text


@pytest.mark.parametrize("made", [STREAMED[1]], ids=name, indirect=True)
def test_a_script_swapped_between_its_two_readings(
    made: Victim, server18: PostgresServer, fresh_database: Fresh
) -> None:
    """It is read through before it runs: what runs is what was read."""
    target = fresh_database(server18)
    with while_swapped(made, "renamed over", times=2), pytest.raises(RepositoryError, match="changed after its digest"):
        restored(made.reference, made.repository, target)
    assert b"CREATE TABLE" not in text_of(server18.bin_dir, target)


@pytest.mark.parametrize("made", [*STREAMED, COPIED[1]], ids=name, indirect=True)
def test_copied(made: Victim, tmp_path: Path) -> None:
    """Upload and get read once: what they wrote is what they hashed."""
    other = open_repository(f"file://{tmp_path / 'other'}")
    other.init()
    with while_swapped(made, "written in place"):
        reference = upload(reference=made.reference, source=made.repository, destination=other, minimum_level=None)
    assert verify(reference=reference, repository=other)["verified"] == "archive"
    assert all(STOLEN not in path.read_bytes() for path in Victim(other, reference).files)
    with pytest.raises(VerificationFailed, match="checksum mismatch"):
        download(made.repository, made.manifest, tmp_path)
    assert not (tmp_path / made.manifest.artifact.name).exists()


@pytest.mark.parametrize("made", [*STREAMED, COPIED[1]], ids=name, indirect=True)
def test_a_bad_artifact_is_not_uploaded(made: Victim, tmp_path: Path) -> None:
    for path in made.files:
        swap(path, "written in place")
    other = open_repository(f"file://{tmp_path / 'other'}")
    other.init()
    with pytest.raises((VerificationFailed, RepositoryError), match="checksum mismatch"):
        upload(reference=made.reference, source=made.repository, destination=other, minimum_level=None)
    assert [entry.key for entry in other.list()] == ["repository.json"]


def test_in_a_bucket(s3: S3Server, source: ConnectionParams, server18: PostgresServer, fresh_database: Fresh) -> None:
    """There the second reading asks for the very version that was hashed."""
    client, bucket = s3.client(), s3.bucket()
    repository = open_repository(f"s3://{bucket}", s3=S3Options(client_factory=lambda: client))
    repository.init()
    for options in STREAMED:
        reference = dump_database(connection=source, server="s", repository=repository, options=DumpOptions(**options))
        manifest = load_manifest(repository, reference)
        key = manifest.key(manifest.artifact.files[0])

        def act(key: str = key) -> None:
            data = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            client.put_object(Bucket=bucket, Key=key, Body=data.replace(HONEST, STOLEN))

        with between_readings(repository, {key}, act), pytest.raises(RepositoryError, match="changed since"):
            verify(reference=reference, repository=repository)
        with pytest.raises(VerificationFailed, match="checksum mismatch"):
            restored(reference, repository, fresh_database(server18))


def a_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("link", [False, True], ids=["copied", "linked"])
@pytest.mark.parametrize("how", ["written in place", "a link", "a link on the way"], ids=name)
def test_adopted(how: str, link: bool, source: ConnectionParams, server18: PostgresServer, tmp_path: Path) -> None:
    """A folder that somebody else writes to: a file that is hashed becomes another one before it is copied."""
    folder = tmp_path / "dumps" / "nightly"
    folder.mkdir(parents=True)
    dump, secret = folder / "app.dump", tmp_path / "secret"
    with client_environment(source) as env:
        command = [server18.bin_dir / "pg_dump", "-w", "--format=custom", "--compress=0", f"--file={dump}"]
        subprocess.run(command, env=env, check=True)
    secret.mkdir()
    (secret / "app.dump").write_bytes(dump.read_bytes())
    swap(secret / "app.dump", "written in place")
    repository = open_repository(f"file://{tmp_path / 'pg'}")
    repository.init()
    plan = plan_adoption(repository=repository, sources=open_sources([tmp_path / "dumps"]), server="old")
    if how == "written in place":
        swap(dump, how)
    elif how == "a link":
        a_link(dump, secret / "app.dump")
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(secret)
    before = (secret / "app.dump").read_bytes()
    done: Any = carry_out(plan, link=link, move=True)
    assert (secret / "app.dump").read_bytes() == before
    assert done["removed"] == []
    assert done["adopted"] == []
    assert [one["path"] for one in done["skipped"]] == ["nightly/app.dump"]
    assert [entry.key for entry in repository.list()] == ["repository.json"]


def test_a_folder_swapped_for_a_link_while_files_in_it_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the repository's directory chooses the names of files, but not where we delete them."""
    repository = open_repository(f"file://{tmp_path / 'pg'}")
    repository.init()
    repository.write_bytes("s/db/shadow", b"")
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "pg" / "s" / "db"
    elsewhere.mkdir()
    (elsewhere / "shadow").touch()
    looked = Root.path

    def look_and_swap(self: Root, key: str) -> Path:
        path = looked(self, key)
        folder.rename(folder.with_name("aside"))
        folder.symlink_to(elsewhere)
        return path

    monkeypatch.setattr(Root, "path", look_and_swap)
    repository.delete(["s/db/shadow"])
    assert (elsewhere / "shadow").exists()
