"""Archives with names of files outside: pg_restore opens every path that ``toc.dat`` and ``blobs*.toc`` of a directory
name, and follows links. The contents of a private file must not appear anywhere."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builds import BUILDS, Build, each
from restoring import restored
from tampering import (
    LARGE_OBJECT,
    TABLE,
    UP,
    Victim,
    blobs_toc,
    by_hand,
    data_file,
    rename_in_toc,
    text_of,
    victim,
)

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli import main
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ManifestError, PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

Fresh = Callable[..., ConnectionParams]


class Secret:
    """A file that only its owner can read.

    :ivar seen: everything that a consumer logged, wrote or returned; none of it may contain the secret.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, f"secret-{secrets.token_hex(8)}"
        path.write_text(f"{self.text}\n\\.\n\n\n")  # a table's rows to pg_restore, and a large object's bytes
        path.chmod(0o600)
        self.seen: list[object] = []

    @property
    def name(self) -> str:
        """Its path relative to any directory."""
        return UP + str(self.path).lstrip("/")


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Secret]:
    made = Secret(tmp_path / "secret")
    yield made
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink() and path != made.path]
    assert [path for path in written if made.text.encode() in path.read_bytes()] == []
    assert [said for said in made.seen if made.text in str(said)] == []


def directory(connection: ConnectionParams, parent: Path, build: Build | None = None) -> Victim:
    settings = build.settings if build else None
    return victim(connection, parent, settings=settings, format="directory", compress="none", jobs=2)


@pytest.fixture
def made(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> Victim:
    return directory(fresh_database(server18, None, *TABLE, LARGE_OBJECT), tmp_path / "pg")


def refused(
    made: Victim, secret: Secret, server: PostgresServer, target: ConnectionParams, *levels: str, match: str
) -> None:
    """Assert that every verb that would pass the archive to a PostgreSQL tool refuses it."""
    for level in levels:
        with pytest.raises(VerificationFailed, match=match) as caught:
            verify(
                reference=made.reference,
                repository=made.repository,
                level=level,
                context=RunContext(log=secret.seen.append),
            )
        secret.seen.append(caught.value)
        assert made.report().result == "fail"
    parallel = made.manifest.artifact.format in ("custom", "directory")
    for options in ({}, {"jobs": 2})[: 1 + parallel]:
        with pytest.raises(PgBackupError, match=match) as caught_:
            restored(made.reference, made.repository, target, options=options, log=secret.seen.append)
        secret.seen.append(caught_.value)
    secret.seen += [text_of(server.bin_dir, target), *made.reports()]


# -- names in the archive


@pytest.mark.every_value
@each(BUILDS)
@pytest.mark.parametrize("where", ["toc.dat", "blobs.toc", "another list"])
def test_names_that_lead_out_of_the_directory(where: str, build: Build, secret: Secret, tmp_path: Path) -> None:
    with PostgresServer(build.bin_dir) as server:
        with server.params.connect() as session:
            for statement in (*TABLE, LARGE_OBJECT, "create database target template template0"):
                session.execute(statement.encode())
        made = directory(server.params, tmp_path / "pg", build)
        if where == "toc.dat":
            rename_in_toc(made.artifact / "toc.dat", data_file(made.artifact).name, secret.name)
        else:
            path = blobs_toc(made.artifact)
            honest = path.read_bytes()
            path.write_text(f"4711 {secret.name}\n")
            if where == "another list":
                # pg_restore 17 reads the list that the entry of large objects names, 16 always blobs.toc.
                other = made.artifact / ("9999.dat" if build.major >= 17 else "blobs_9999.toc")
                if build.major >= 17:
                    path.rename(other)
                else:
                    other.write_bytes(honest)
                rename_in_toc(made.artifact / "toc.dat", path.name, other.name)
        made.sign()
        found, text = by_hand(build, made.artifact), secret.text.encode()
        # pg_restore of the latest patch releases refuses it.
        assert text in found or text.hex().encode() in found or b"invalid file name in archive" in found
        target = server.params.with_database("target")
        refused(made, secret, server, target, "archive", "restore", match="never writes|truncated or damaged")


def test_a_name_that_pg_restore_reads_differently(
    made: Victim, secret: Secret, server18: PostgresServer, fresh_database: Fresh
) -> None:
    """C ends a string at a null byte, and an integer has four bytes: pg_restore would read another name."""
    toc = made.artifact / "toc.dat"
    sound = toc.read_bytes()
    rename_in_toc(toc, "BLOBS", "BLOBS\0x")
    tampered = toc.read_bytes()
    for data in (tampered, sound[:8] + b"\x08" + sound[9:]):
        toc.write_bytes(data)
        made.sign()
        refused(made, secret, server18, fresh_database(server18), "archive", match="corrupt table of contents")


# -- members


def link_instead_of_a_member(made: Victim, secret: Secret) -> None:
    path = data_file(made.artifact)
    path.unlink()
    path.symlink_to(secret.path)


def link_in_the_manifest(made: Victim, secret: Secret) -> None:
    manifest = made.manifest
    link_instead_of_a_member(made, secret)
    files = tuple(
        replace(file, size=secret.path.stat().st_size) if file.path == data_file(made.artifact).name else file
        for file in manifest.artifact.files
    )
    made.write(made.artifact_of(files))


def link_that_is_not_in_the_manifest(made: Victim, secret: Secret) -> None:
    rename_in_toc(made.artifact / "toc.dat", data_file(made.artifact).name, "9999.dat")
    made.sign()
    (made.artifact / "9999.dat").symlink_to(secret.path)


def link_to_the_directory(made: Victim, secret: Secret) -> None:
    elsewhere = secret.path.with_name("elsewhere")
    made.artifact.rename(elsewhere)
    made.artifact.symlink_to(elsewhere)


def extra_member(made: Victim, secret: Secret) -> None:
    (made.artifact / "9999.dat").write_bytes(b"\\.\n\n\n")


def member_with_another_name(made: Victim, secret: Secret) -> None:
    (made.artifact / "README").write_bytes(b"read me")
    made.sign()


def member_in_two_compressions(made: Victim, secret: Secret) -> None:
    path = data_file(made.artifact)
    path.with_name(f"{path.name}.gz").write_bytes(b"")
    made.sign()


def missing_member(made: Victim, secret: Secret) -> None:
    data_file(made.artifact).unlink()


def missing_member_left_out_of_the_manifest(made: Victim, secret: Secret) -> None:
    data_file(made.artifact).unlink()
    made.sign()


def fifo_instead_of_a_member(made: Victim, secret: Secret) -> None:
    path = data_file(made.artifact)
    path.unlink()
    os.mkfifo(path)


def extra_fifo(made: Victim, secret: Secret) -> None:
    os.mkfifo(made.artifact / "9999.dat")


def directory_instead_of_a_member(made: Victim, secret: Secret) -> None:
    path = data_file(made.artifact)
    path.unlink()
    path.mkdir()


MEMBERS = [
    (link_instead_of_a_member, "is not a regular file"),
    (link_in_the_manifest, "is not a regular file"),
    (link_that_is_not_in_the_manifest, "9999.dat is not a file of this dump"),
    (link_to_the_directory, "is not a regular file or directory|is a symbolic link"),
    (extra_member, "9999.dat is not a file of this dump"),
    (member_with_another_name, "'README', a name that pg_dump never writes"),
    (member_in_two_compressions, "twice, in different compressions"),
    (missing_member, "is missing"),
    (fifo_instead_of_a_member, "is not a regular file"),
    (extra_fifo, "9999.dat is not a file of this dump"),
    (directory_instead_of_a_member, "is missing"),
]


@pytest.mark.parametrize(("tamper", "message"), MEMBERS, ids=lambda given: getattr(given, "__name__", ""))
def test_members_that_differ_from_the_dump(
    tamper: Callable[[Victim, Secret], None],
    message: str,
    made: Victim,
    secret: Secret,
    server18: PostgresServer,
    fresh_database: Fresh,
    tmp_path: Path,
) -> None:
    tamper(made, secret)
    refused(made, secret, server18, fresh_database(server18), "integrity", "archive", "restore", match=message)
    with pytest.raises(VerificationFailed, match=message):
        download(made.repository, made.manifest, tmp_path)
    assert not (tmp_path / made.manifest.artifact.name).exists()
    other = open_repository(f"file://{tmp_path / 'other'}")
    other.init()
    with pytest.raises(PgBackupError) as caught:
        upload(reference=made.reference, source=made.repository, destination=other, minimum_level=None)
    secret.seen.append(caught.value)
    assert [entry.key for entry in other.list()] == ["repository.json"]


def test_a_member_that_the_manifest_leaves_out(
    made: Victim, secret: Secret, server18: PostgresServer, fresh_database: Fresh
) -> None:
    missing_member_left_out_of_the_manifest(made, secret)
    refused(made, secret, server18, fresh_database(server18), "archive", "restore", match="lacks")


@pytest.mark.parametrize(
    "tamper",
    [
        link_instead_of_a_member,
        link_that_is_not_in_the_manifest,
        extra_member,
        fifo_instead_of_a_member,
        missing_member,
    ],
)
def test_a_tampered_directory_is_not_uploaded(
    tamper: Callable[[Victim, Secret], None], made: Victim, secret: Secret, s3: S3Server
) -> None:
    tamper(made, secret)
    client, bucket = s3.client(), s3.bucket()
    other = open_repository(f"s3://{bucket}", s3=S3Options(client_factory=lambda: client))
    other.init()
    with pytest.raises(PgBackupError) as caught:
        upload(reference=made.reference, source=made.repository, destination=other, minimum_level=None)
    secret.seen.append(caught.value)
    assert [entry.key for entry in other.list()] == ["repository.json"]


@pytest.mark.parametrize("path", ["../secret", "a/b", "..", "a\nb", ""])
def test_a_manifest_with_a_path(path: str, made: Victim) -> None:
    manifest = made.manifest
    first, *rest = manifest.artifact.files
    made.write(made.artifact_of((replace(first, path=path), *rest)))
    with pytest.raises(ManifestError, match="violates its schema"):
        verify(reference=made.reference, repository=made.repository)


# -- tar


def repacked(path: Path, change: Callable[[tarfile.TarInfo], tarfile.TarInfo]) -> None:
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            changed = change(member)
            tar.addfile(changed, io.BytesIO(data) if changed.isreg() else None)


def tar_link(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo:
    if member.name.endswith(".dat") and member.name != "toc.dat":
        member.type, member.linkname, member.size = tarfile.SYMTYPE, target, 0
    return member


def tar_name(member: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    if member.name == "restore.sql":
        member.name = name
    return member


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda member: tar_link(member, "../../../../etc/shadow"), "that is a link or another special file"),
        (lambda member: tar_name(member, "../../restore.sql"), "a name that pg_dump never writes"),
        (lambda member: tar_name(member, "toc.dat"), "toc.dat twice"),
    ],
    ids=["link", "path", "twice"],
)
def test_tampered_members_of_a_tar_file(
    change: Callable[[tarfile.TarInfo], tarfile.TarInfo],
    message: str,
    secret: Secret,
    server18: PostgresServer,
    fresh_database: Fresh,
    tmp_path: Path,
) -> None:
    made = victim(fresh_database(server18, None, *TABLE), tmp_path / "pg", format="tar")
    repacked(made.artifact, change)
    made.sign()
    refused(made, secret, server18, fresh_database(server18), "archive", "restore", match=message)


# -- formats


@pytest.mark.every_value
@pytest.mark.parametrize("said", ["custom", "tar", "plain"])
@pytest.mark.parametrize("really", ["custom", "tar", "plain", "directory"])
def test_a_manifest_with_the_wrong_format(
    really: str, said: str, secret: Secret, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    """pg_restore detects the format itself, and would read the file by other rules."""
    if really == said:
        return
    source = fresh_database(server18, None, *TABLE)
    made = victim(source, tmp_path / "pg", format=said, compress="none" if said != "tar" else None)
    other = tmp_path / "other"
    with client_environment(source) as env:
        command = [server18.bin_dir / "pg_dump", "-w", f"--format={really}", f"--file={other}"]
        subprocess.run(command, env=env, check=True)
    shutil.copyfile(other / "toc.dat" if really == "directory" else other, made.artifact)
    made.sign()
    message = f"is not of format {said}"
    refused(made, secret, server18, fresh_database(server18), "integrity", "restore", match=message)


# -- adopt and get


@pytest.mark.parametrize("member", ["toc.dat", "data", "beside"])
def test_a_directory_with_a_link_is_not_adopted(
    member: str, secret: Secret, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    with client_environment(fresh_database(server18, None, *TABLE)) as env:
        command = [server18.bin_dir / "pg_dump", "-w", "--format=directory", f"--file={dumps / 'app'}"]
        subprocess.run(command, env=env, check=True)
    path = {"toc.dat": dumps / "app/toc.dat", "data": data_file(dumps / "app"), "beside": dumps / "app/9999.dat"}[
        member
    ]
    path.unlink(missing_ok=True)
    path.symlink_to(secret.path)
    repository = open_repository(f"file://{tmp_path / 'pg'}")
    repository.init()
    done: Any = adopt(repository=repository, sources=[dumps], server="old", context=RunContext(log=secret.seen.append))
    assert done["adopted"] == []
    (skipped,) = done["skipped"]
    assert skipped["reason"] == f"cannot be read: {path.name}: a symbolic link, which is not followed"
    assert [entry.key for entry in repository.list()] == ["repository.json"]


@pytest.mark.parametrize("there", ["a dangling link", "a link", "a file", "a directory"])
def test_get_does_not_overwrite_or_follow_a_link(
    there: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = victim(fresh_database(server18, None, *TABLE), tmp_path / "pg")
    into, other = tmp_path / "into", tmp_path / "other"
    into.mkdir()
    target = into / made.manifest.artifact.name
    if there == "a dangling link":
        target.symlink_to(other)
    elif there == "a link":
        other.write_bytes(b"precious")
        target.symlink_to(other)
    elif there == "a file":
        target.write_bytes(b"precious")
    else:
        target.mkdir()
    before = [(path, path.is_symlink(), path.is_file() and path.read_bytes()) for path in into.iterdir()]
    series, id = made.manifest.series.path, made.manifest.id
    assert main(["get", made.repository.uri, series, id, "--into", str(into)]) != 0
    said = capfd.readouterr().err
    assert f"{target.name} exists already" in said.replace("\n", " ")
    assert "Traceback" not in said
    assert [(path, path.is_symlink(), path.is_file() and path.read_bytes()) for path in into.iterdir()] == before
    assert other.exists() == (there == "a link")


def test_get_leaves_nothing_of_a_damaged_artifact(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = victim(fresh_database(server18, None, *TABLE), tmp_path / "pg")
    data = made.artifact.read_bytes()
    made.artifact.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    into = tmp_path / "into"
    into.mkdir()
    manifest = made.manifest
    assert main(["get", made.repository.uri, manifest.series.path, manifest.id, "--into", str(into)]) != 0
    assert "differs from what was dumped" in capfd.readouterr().err
    assert list(into.iterdir()) == []
