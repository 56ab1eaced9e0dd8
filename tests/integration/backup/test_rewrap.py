"""Backups rewrapped to other recipients: the same dump, a new backup, nothing overwritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from airflow_pgbackup.backup.bulk import rewrap_all, summary
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.restore_command import restore_command_of
from airflow_pgbackup.backup.rewrap import rewrap
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import Canceled, ConfigurationError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

OLD, NEW, OFFLINE = (pyrage.x25519.Identity.generate() for _ in range(3))
DUMPS = RunContext(settings=Settings(recipients=(str(OLD.to_public()),)))
READS_OLD, READS_NEW = (RunContext(identities=Identities((one,))) for one in (OLD, NEW))
TO_NEW = RunContext(
    settings=Settings(recipients=(str(NEW.to_public()), str(OFFLINE.to_public()))), identities=Identities((OLD,))
)
SERIES = "s/app"
FORMATS = {
    "custom": DumpOptions(),
    "script that creates": DumpOptions(format="plain", compress="gzip", create=True),
    "directory": DumpOptions(format="directory", jobs=2, compress="none"),
}


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(
        server18,
        None,
        "create table film as select n, 'film ' || n from generate_series(1, 3000) n",
        "create table actor as select n, 'actor ' || n from generate_series(1, 500) n",
    )


@pytest.fixture(params=["local", "s3"])
def repository(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server) -> Repository:
    client = s3.client()
    uri = f"file://{tmp_path}/repository" if request.param == "local" else f"s3://{s3.bucket()}/pg"
    made = open_repository(uri, s3=S3Options(client_factory=lambda: client))
    made.init()
    return made


def dumped(
    repository: Repository, database: ConnectionParams, format: str = "custom", context: RunContext = DUMPS
) -> dict[str, object]:
    return dump_database(
        connection=database, server="s", repository=repository, options=FORMATS[format], context=context
    )


def plain_bytes(repository: Repository, reference: dict[str, object], identity: object, into: Path) -> dict[str, bytes]:
    """Return the files of a backup as any age program decrypts them."""
    manifest = load_manifest(repository, reference)
    return {
        file.path.removesuffix(".age"): pyrage.decrypt(repository.read_bytes(manifest.key(file)), [identity])
        for file in manifest.artifact.files
    }


@pytest.mark.every_value
@pytest.mark.parametrize("format", FORMATS)
def test_the_new_backup_holds_the_same_dump_for_other_keys(
    format: str, repository: Repository, database: ConnectionParams, tmp_path: Path
) -> None:
    old = verify(reference=dumped(repository, database, format), repository=repository, context=READS_OLD)
    before = load_manifest(repository, old)
    new = rewrap(reference=old, repository=repository, context=TO_NEW)
    after = load_manifest(repository, new)

    assert load_manifest(repository, old) == before, "the old backup is as it was"
    assert (after.series, after.started_at) == (before.series, before.started_at)
    assert str(new["id"]) > str(old["id"]), "rules of retention take the newer of one moment"
    assert after.artifact.encryption is not None
    assert set(after.artifact.encryption.recipients) == set(TO_NEW.settings.recipients)
    assert after.artifact.plain.files == before.artifact.plain.files
    assert after.restore_command == before.restore_command == restore_command_of(after)
    for identity in (NEW, OFFLINE):
        assert plain_bytes(repository, new, identity, tmp_path) == plain_bytes(repository, old, OLD, tmp_path)
    with pytest.raises(pyrage.DecryptError):
        plain_bytes(repository, new, OLD, tmp_path)

    assert new["verified"] == "archive"
    (carried,) = read_evidence(repository, after.series, after.id).verifications
    assert any("carried over from backup" in str(check.detail) for check in carried.checks)
    with pytest.raises(NotProven):
        verify(reference=new, repository=repository, context=READS_OLD)
    assert verify(reference=new, repository=repository, context=READS_NEW)["verified"] == "archive"


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_a_plain_backup_becomes_an_encrypted_one(
    format: str, repository: Repository, database: ConnectionParams
) -> None:
    old = dumped(repository, database, format, RunContext())
    new = rewrap(reference=old, repository=repository, context=TO_NEW)
    assert new["artifact"] == f"{old['artifact']}.age"
    assert new["verified"] is None, "nothing was known, so nothing is carried over"
    assert verify(reference=new, repository=repository, context=READS_NEW)["verified"] == "archive"


def test_a_second_call_finds_the_first_and_adds_later_verifications(
    here: Repository, database: ConnectionParams
) -> None:
    old = dumped(here, database)
    new = rewrap(reference=old, repository=here, context=TO_NEW)
    verify(reference=old, repository=here, context=READS_OLD)
    pin(repository=here, series=Series.parse(str(old["series"])), id=str(old["id"]))
    lines: list[str] = []
    again = rewrap(reference=old, repository=here, context=replace(TO_NEW, log=lines.append))
    assert {**again, "verified": None} == {**new, "verified": None}
    assert again["verified"] == "archive"
    assert any("is rewrapped already, as" in line for line in lines)
    assert [backup.pinned for backup in read_catalogue(here).backups] == [True, True]
    assert rewrap(reference=new, repository=here, context=TO_NEW)["id"] == new["id"]
    assert len(read_catalogue(here).backups) == 2


def test_daily_retention_prefers_the_new_one(here: Repository, database: ConnectionParams) -> None:
    old = verify(reference=dumped(here, database), repository=here, context=READS_OLD)
    new = rewrap(reference=old, repository=here, context=TO_NEW)
    prune(repository=here, policy=Policy(keep_daily=1), dry_run=False)
    assert [backup.id for backup in read_catalogue(here).backups] == [new["id"]]
    third = RunContext(settings=DUMPS.settings, identities=READS_NEW.identities)
    assert str(rewrap(reference=new, repository=here, context=third)["id"]) > str(new["id"])


def test_a_failure_of_the_dump_is_carried_over_too(here: Repository, database: ConnectionParams) -> None:
    old = dumped(here, database)
    folder = f"{old['series']}/{old['id']}"
    verify(reference=old, repository=here, context=READS_OLD)
    root = here.local_path(folder)
    assert root is not None
    (passed,) = root.glob("verification-*")
    failed = passed.with_name(passed.name.replace("-pass", "-fail"))
    failed.write_text(passed.read_text().replace('"result": "pass"', '"result": "fail"'))
    passed.unlink()
    new = rewrap(reference=old, repository=here, context=TO_NEW)
    assert read_evidence(here, Series.parse(str(new["series"])), str(new["id"])).backup.state == "failed"


def test_what_cannot_be_rewrapped_leaves_nothing(here: Repository, database: ConnectionParams) -> None:
    old = dumped(here, database)
    root = Path(here.uri.removeprefix("file://"))
    before = sorted(root.rglob("*"))
    for context, error, message in (
        (replace(TO_NEW, settings=Settings()), ConfigurationError, "no recipients are given"),
        (replace(TO_NEW, identities=None), NotProven, "no identity was given"),
        (replace(TO_NEW, identities=Identities((NEW,))), NotProven, "none of the identities decrypts"),
    ):
        with pytest.raises(error, match=message):
            rewrap(reference=old, repository=here, context=context)
        assert sorted(root.rglob("*")) == before
    canceled = Cancel()
    canceled.set()
    with pytest.raises(Canceled):
        rewrap(reference=old, repository=here, context=replace(TO_NEW, cancel=canceled))
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_damage_is_not_wrapped_again(format: str, repository: Repository, database: ConnectionParams) -> None:
    old = dumped(repository, database, format)
    file = load_manifest(repository, old).artifact.files[-1]
    key = load_manifest(repository, old).key(file)
    sound = repository.read_bytes(key)
    in_stanza = sound.index(b"\n", 60) - 5
    for place in (in_stanza, len(sound) - 1):
        changed = b"A" if sound[place : place + 1] != b"A" else b"B"
        repository.delete([key])
        repository.write_bytes(key, sound[:place] + changed + sound[place + 1 :])
        with pytest.raises(VerificationFailed, match="checksum mismatch: expected"):
            rewrap(reference=old, repository=repository, context=TO_NEW)
    assert [backup.id for backup in read_catalogue(repository).backups] == [old["id"]]


def test_many_go_on_where_they_stopped(here: Repository, database: ConnectionParams) -> None:
    first, second = dumped(here, database), dumped(here, database, context=RunContext())
    results = rewrap_all(repository=here, context=TO_NEW)
    next(results)
    results.close()
    done = list(rewrap_all(repository=here, context=TO_NEW))
    assert summary(done)["done"] == 1
    assert summary(done)["skipped"] == 2
    everything = list(rewrap_all(repository=here, context=TO_NEW))
    assert summary(everything)["skipped"] == len(everything) == 4
    made = {backup.id for backup in read_catalogue(here).backups} - {first["id"], second["id"]}
    assert len(made) == 2
    with pytest.raises(ConfigurationError, match="no recipients are given"):
        next(rewrap_all(repository=here, context=RunContext()))


def test_a_download_needs_the_new_key(here: Repository, database: ConnectionParams, tmp_path: Path) -> None:
    new = rewrap(reference=dumped(here, database), repository=here, context=TO_NEW)
    path = download(here, load_manifest(here, new), tmp_path, identities=READS_NEW.identities)
    assert path.read_bytes().startswith(b"PGDMP")
