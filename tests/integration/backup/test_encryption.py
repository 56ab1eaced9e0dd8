"""Encrypted backups: made with public keys, read with a secret one, never condemned without it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.diff import diff
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest, reference_of
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.restore_command import restore_command_of
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.encryption.header import MAGIC
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import ConfigurationError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.manifest import FileDigest, directory_sha256
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

OWNER, OTHER = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
MARKED = "a row that must not be readable in the repository"
DUMPS = RunContext(settings=Settings(recipients=(str(OWNER.to_public()), str(OTHER.to_public()))))
READS = RunContext(identities=Identities((OWNER,)))

KEY_FINDINGS = {"recipients", "single_recipient", "identity"}
FORMATS = {
    "custom": DumpOptions(),
    "plain": DumpOptions(format="plain", compress="none"),
    "compressed plain": DumpOptions(format="plain", compress="gzip"),
    "tar": DumpOptions(format="tar"),
    "directory": DumpOptions(format="directory", jobs=2, compress="none"),
}


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(
        server18,
        None,
        "create table film (id int primary key, title text)",
        f"insert into film select n, '{MARKED}' from generate_series(1, 3000) n",
        "select lo_from_bytea(4711, 'a large object')",
    )


@pytest.fixture(params=["local", "s3"])
def repository(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server) -> Repository:
    client = s3.client()
    options = S3Options(client_factory=lambda: client)
    uri = f"file://{tmp_path}/repository" if request.param == "local" else f"s3://{s3.bucket()}/pg"
    made = open_repository(uri, s3=options)
    made.init()
    return made


@pytest.mark.every_value
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_proven_with_an_identity_and_not_without(
    format: str, repository: Repository, database: ConnectionParams, server18: PostgresServer
) -> None:
    reference = dump_database(
        connection=database, server="s", repository=repository, options=FORMATS[format], context=DUMPS
    )
    manifest = load_manifest(repository, reference)
    for file in manifest.artifact.files:
        data = repository.read_bytes(manifest.key(file))
        assert file.path.endswith(".age")
        assert data.startswith(MAGIC)
        assert MARKED.encode() not in data
    assert manifest.artifact.name.endswith(".age")

    with pytest.raises(NotProven, match=r"is encrypted, and no identity was given"):
        verify(reference=reference, repository=repository)
    assert read_evidence(repository, manifest.series, manifest.id).backup.state == "notproven"
    assert verify(reference=reference, repository=repository, level="integrity")["verified"] == "integrity"
    with pytest.raises(NotProven, match=r"is encrypted, and no identity was given"):
        restore(reference=reference, repository=repository, target=RestoreTarget(connection=server18.params))

    assert verify(reference=reference, repository=repository, context=READS)["verified"] == "archive"
    target = RestoreTarget(connection=database.with_database(f"{database.dbname}_copy"), mode="create")
    try:
        assert restore(reference=reference, repository=repository, target=target, context=READS)["rows"] == 3000
    finally:
        with server18.params.connect() as session:
            session.execute(f'drop database if exists "{target.connection.dbname}" with (force)'.encode())


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_rehearsed_from_the_ciphertext(format: str, here: Repository, database: ConnectionParams) -> None:
    reference = dump_database(connection=database, server="s", repository=here, options=FORMATS[format], context=DUMPS)
    assert verify(reference=reference, repository=here, level="restore", context=READS)["verified"] == "restore"


def test_a_cluster(here: Repository, server16: PostgresServer) -> None:
    reference = dump_cluster(
        connection=server16.params,
        server="s",
        repository=here,
        options=DumpAllOptions(globals_only=True),
        context=DUMPS,
    )
    assert str(reference["artifact"]).endswith(".sql.age")
    assert verify(reference=reference, repository=here, context=READS)["verified"] == "archive"


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_uploaded_and_fetched_without_an_identity(
    format: str, here: Repository, database: ConnectionParams, s3: S3Server, tmp_path: Path
) -> None:
    reference = dump_database(connection=database, server="s", repository=here, options=FORMATS[format], context=DUMPS)
    client = s3.client()
    there = open_repository(f"s3://{s3.bucket()}", s3=S3Options(client_factory=lambda: client))
    there.init()
    copy = upload(reference=reference, source=here, destination=there, minimum_level=None)
    assert verify(reference=copy, repository=there, context=READS)["verified"] == "archive"
    manifest = load_manifest(there, copy)
    assert manifest.artifact.encryption == load_manifest(here, reference).artifact.encryption
    (tmp_path / "as it is").mkdir()
    (tmp_path / "plain").mkdir()
    assert download(there, manifest, tmp_path / "as it is").name == manifest.artifact.name
    plain = download(there, manifest, tmp_path / "plain", identities=READS.identities)
    assert f"{plain.name}.age" == manifest.artifact.name
    assert restore_command_of(manifest, decrypted=True).endswith(plain.name)


def test_with_another_identity_it_is_not_proven(here: Repository, database: ConnectionParams) -> None:
    reference = dump_database(connection=database, server="s", repository=here, options=DumpOptions(), context=DUMPS)
    stranger = RunContext(identities=Identities((pyrage.x25519.Identity.generate(),)))
    for level in ("archive", "restore"):
        with pytest.raises(NotProven, match="none of the identities decrypts"):
            verify(reference=reference, repository=here, level=level, context=stranger)
    second = RunContext(identities=Identities((OTHER,)))
    assert verify(reference=reference, repository=here, context=second)["verified"] == "archive"


def test_a_restore_reads_the_identity_only_of_an_encrypted_backup(here: Repository, database: ConnectionParams) -> None:
    target = RestoreTarget(connection=database.with_database(f"{database.dbname}_copy"), mode="create")
    for context in (RunContext(), DUMPS):
        options = DumpOptions(schema_only=True)
        reference = dump_database(connection=database, server="s", repository=here, options=options, context=context)
        unreadable = RunContext(settings=Settings(identity_file="/nonexistent"))
        refused = pytest.raises(ConfigurationError, match="cannot read the identity file")
        with refused if context is DUMPS else nullcontext():
            restore(reference=reference, repository=here, target=target, dry_run=True, context=unreadable)


def test_a_comparison_reads_the_identity_only_of_an_encrypted_backup(
    here: Repository, database: ConnectionParams
) -> None:
    unreadable = RunContext(settings=Settings(identity_file="/nonexistent"))
    for context in (RunContext(), DUMPS):
        options = DumpOptions(schema_only=True)
        reference = dump_database(connection=database, server="s", repository=here, options=options, context=context)
        manifest = load_manifest(here, reference)
        one = read_evidence(here, manifest.series, manifest.id)
        refused = pytest.raises(ConfigurationError, match="cannot read the identity file")
        with refused if context is DUMPS else nullcontext():
            diff(repository=here, before=one, after=one, context=unreadable)


@pytest.mark.parametrize("format", ["custom", "directory", "tar"])
def test_the_tables_of_two_nights_are_compared(format: str, here: Repository, database: ConnectionParams) -> None:
    def dumped() -> Evidence:
        reference = dump_database(
            connection=database, server="s", repository=here, options=FORMATS[format], context=DUMPS
        )
        manifest = load_manifest(here, reference)
        return read_evidence(here, manifest.series, manifest.id)

    before = dumped()
    with database.connect() as session:
        session.execute("create table actor (id int)")
    after = dumped()
    found = diff(repository=here, before=before, after=after, context=READS)
    assert [change.name for change in found.definitions] == ["actor"]
    without = diff(repository=here, before=before, after=after)
    assert "no identity was given" in str(without.not_compared)


@pytest.mark.parametrize(
    ("recipients", "said"),
    [((str(OWNER),), "a secret key was given as a recipient"), (("age1bad",), "is not a public key of age")],
    ids=["secret", "bad"],
)
def test_a_bad_recipient_is_refused_before_anything_is_written(
    recipients: tuple[str, ...], said: str, here: Repository, database: ConnectionParams
) -> None:
    before = [entry.key for entry in here.list()]
    context = RunContext(settings=Settings(recipients=recipients))
    with pytest.raises(ConfigurationError, match=said) as caught:
        dump_database(connection=database, server="s", repository=here, options=DumpOptions(), context=context)
    assert str(OWNER) not in str(caught.value)
    assert [entry.key for entry in here.list()] == before


def test_no_readable_byte_on_the_repositorys_disk_while_a_directory_is_dumped(
    tmp_path: Path, here: Repository, database: ConnectionParams
) -> None:
    """pg_dump itself writes a directory: where it is private, and only encrypted members go to the repository."""
    temp = tmp_path / "temp"
    temp.mkdir()
    seen: list[str] = []

    def look(_: str) -> None:
        for folder, _, names in os.walk(tmp_path / "repository"):
            seen.extend(str(Path(folder, name)) for name in names)

    context = replace(DUMPS, settings=replace(DUMPS.settings, temp_dir=str(temp)), log=look)
    options = DumpOptions(format="directory", jobs=2, verbose=True)
    dump_database(connection=database, server="s", repository=here, options=options, context=context)
    look("")
    assert {Path(path).suffix for path in seen} <= {".age", ".json"}
    assert list(temp.iterdir()) == []


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_a_forged_artifact_is_noticed(format: str, here: Repository, database: ConnectionParams) -> None:
    """Whoever owns the repository knows the public keys: he can encrypt other bytes, and write a manifest for them."""
    reference = dump_database(connection=database, server="s", repository=here, options=FORMATS[format], context=DUMPS)
    manifest = load_manifest(here, reference)
    files = []
    for file in manifest.artifact.files:
        data = pyrage.encrypt(b"PGDMP of somebody else", [OWNER.to_public()])
        here.local_path(manifest.key(file)).write_bytes(data)
        files.append(FileDigest(file.path, len(data), hashlib.sha256(data).hexdigest()))
    size, sha256 = sum(file.size for file in files), files[0].sha256
    if format == "directory":
        sha256 = directory_sha256(files)
    forged = replace(manifest, artifact=replace(manifest.artifact, files=tuple(files), size=size, sha256=sha256))
    key = layout.manifest_key(manifest.series, manifest.id)
    here.local_path(key).write_bytes(forged.to_json())
    with pytest.raises(VerificationFailed, match="does not decrypt to the bytes that were dumped"):
        verify(
            reference=reference_of(here, read_evidence(here, manifest.series, manifest.id)),
            repository=here,
            context=READS,
        )


def test_check_warns_of_keys_that_will_be_missed(here: Repository, database: ConnectionParams) -> None:
    def codes(**more: object) -> set[tuple[str, str]]:
        settings = Settings(recipients=(str(OWNER.to_public()),))
        found = check(
            connection=database,
            server="s",
            repository=here,
            context=replace(RunContext(settings=settings), **more),  # type: ignore[arg-type]
        )
        return {(finding.severity, finding.code) for finding in found if finding.code in KEY_FINDINGS}

    assert codes() == {("warning", "single_recipient")}
    assert codes(identities=Identities((OWNER,))) == {("warning", "single_recipient")}
    assert codes(identities=Identities((OTHER,))) == {("warning", "single_recipient"), ("error", "identity")}
    assert codes(settings=DUMPS.settings, identities=Identities((OTHER,))) == set()
    assert codes(settings=Settings(recipients=("age1bad",))) == {("error", "recipients")}
    assert codes(settings=replace(DUMPS.settings, identity_file="/nonexistent")) == {("error", "identity")}


AGE = """import sys, pyrage
assert sys.argv[1:3] == ["--decrypt", "--identity"] and sys.argv[4] == "--output", sys.argv
key = pyrage.x25519.Identity.from_str(open(sys.argv[3]).read().strip())
pyrage.decrypt_file(sys.argv[6], sys.argv[5], [key])
"""


@pytest.mark.parametrize("format", FORMATS)
def test_the_manifests_command_restores_it_without_us(
    format: str, here: Repository, database: ConnectionParams, server18: PostgresServer, tmp_path: Path
) -> None:
    """Run by a shell, with PostgreSQL's programs and age: the one of the machine, or its library."""
    reference = dump_database(connection=database, server="s", repository=here, options=FORMATS[format], context=DUMPS)
    manifest = load_manifest(here, reference)
    (tmp_path / "bin").mkdir()
    if shutil.which("age") is None:
        (tmp_path / "bin" / "age").write_text(f"#!{sys.executable}\n{AGE}")
        (tmp_path / "bin" / "age").chmod(0o755)
    folder = here.local_path(manifest.artifact_key).parent
    (folder / "key.txt").write_text(str(OWNER))
    copy = f"{database.dbname}_restored"
    with client_environment(server18.params) as env:
        env["PATH"] = f"{server18.bin_dir}:{tmp_path / 'bin'}:/usr/bin:/bin"
        done = subprocess.run(
            ["sh", "-c", manifest.restore_command], cwd=folder, env=env, capture_output=True, text=True
        )
    try:
        assert done.returncode == 0, done.stderr
        with server18.params.with_database(copy).connect() as session:
            assert session.execute("select count(*), max(title) from film").fetchall() == [(3000, MARKED)]
    finally:
        with server18.params.connect() as session:
            session.execute(f'drop database if exists "{copy}" with (force)'.encode())
