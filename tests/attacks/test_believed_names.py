"""Somebody who may only put files into a repository makes no backup count, and makes none of ours go."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import forgeries
import pytest
from forgeries import NOT_VERIFIED, NOT_WHOLE, UNREADABLE, Forgery, claim
from honest import write_backup, write_verification
from hostile_s3 import DATED, Answer, HostileS3, item, listing

from airflow_pgbackup.backup.choose_backup import choose_backup
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.drill import choose_drill
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.freshness import freshness
from airflow_pgbackup.backup.freshness_rules import FreshnessRules
from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.reference import SEED, find_committed, load_manifest
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import BackupNotFound, NotProven, PgBackupError, RepositoryError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import MOST_VERIFICATIONS, Evidence, read_evidence
from airflow_pgbackup.repository.layout import Series, VerificationName, backup_folder, id_suffix
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

SERIES = Series("prod", "app")
ALL = (*NOT_WHOLE, *NOT_VERIFIED)
each = pytest.mark.parametrize("forge", ALL, ids=lambda forge: forge.__name__)
places = pytest.mark.parametrize("place", ["folder", "bucket"])


@pytest.fixture(scope="module")
def template(
    server18: PostgresServer, client_dirs: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A repository with one real backup, verified at level archive; and its reference."""
    database = server18.params.with_database("app")
    with server18.params.connect() as session:
        session.execute("create database app template template0")
    with database.connect() as session:
        session.execute("create table t as select generate_series(1, 1000) as n")
    root, settings = tmp_path_factory.mktemp("template") / "pg", Settings(client_dirs=tuple(client_dirs))
    repository = LocalRepository(root)
    repository.init()
    made = dump_database(
        connection=database,
        server="prod",
        repository=repository,
        options=DumpOptions(),
        context=RunContext(settings=settings),
    )
    made = verify(reference=made, repository=repository, context=RunContext(settings=settings))
    with server18.params.connect() as session:
        session.execute("drop database app")
    return root, made


@pytest.fixture
def place() -> str:
    return "folder"


@pytest.fixture
def repository(
    place: str, template: tuple[Path, dict[str, Any]], tmp_path: Path, request: pytest.FixtureRequest
) -> Repository:
    """A copy of it."""
    if place == "folder":
        shutil.copytree(template[0], tmp_path / "pg")
        return LocalRepository(tmp_path / "pg")
    s3: S3Server = request.getfixturevalue("s3")
    return in_bucket(template[0], s3, s3.bucket(), "pg")


def in_bucket(root: Path, s3: S3Server, bucket: str, prefix: str) -> Repository:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(root).as_posix()}"
            s3.client().put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return open_repository(f"s3://{bucket}/{prefix}", s3=S3Options(client_factory=s3.client))


@pytest.fixture
def real(repository: Repository, template: tuple[Path, dict[str, Any]]) -> Evidence:
    evidence = read_evidence(repository, SERIES, template[1]["id"])
    assert (evidence.backup.state, evidence.backup.level, evidence.ignored) == ("verified", "archive", ())
    return evidence


def forge_newer(repository: Repository, real: Evidence, forge: Forgery, count: int = 3) -> list[str]:
    """Seconds newer than the real one: further on would be the future, which is nobody's place anyway."""
    return [forge(repository, real, second(real, 10 * n)) for n in range(1, count + 1)]


def second(real: Evidence, later: float) -> datetime:
    return real.backup.started_at + timedelta(seconds=later)


def listed(repository: Repository) -> dict[str, Backup]:
    return {backup.id: backup for backup in read_catalogue(repository).backups}


def pruned(repository: Repository, real: Evidence, **policy: Any) -> dict[str, Any]:
    result: dict[str, Any] = prune(
        repository=repository, policy=Policy(**policy), dry_run=False, now=second(real, 3600)
    )
    json.dumps(result, allow_nan=False)
    return result


def reference(repository: Repository, id: str) -> dict[str, object]:
    return {"repository_uuid": repository.uuid, "series": SERIES.path, "id": id, "repository": repository.uri}


# -- every forgery, before everything that decides -------------------------------------------------------------------


@each
def test_none_takes_the_place_of_the_real_one(repository: Repository, real: Evidence, forge: Forgery) -> None:
    forged = forge_newer(repository, real, forge)
    assert all(listed(repository)[id].level == "restore" for id in forged), "by its names it is the best there is"
    for policy in ({"keep_last": 3}, {"keep_last": 1}, {"keep_last": 1, "minimum_level": "integrity"}):
        result = pruned(repository, real, **policy)
        assert real.backup.id in listed(repository)
        kept = next(one for one in result["decisions"] if one["id"] == real.backup.id)
        assert (kept["keep"], kept["verified"]) == (True, "archive")
        assert not [one for one in result["decisions"] if one["id"] in forged and one["verified"]]
    assert read_evidence(repository, SERIES, real.backup.id) == real, "and whole"


@each
def test_the_result_of_prune_names_them(repository: Repository, real: Evidence, forge: Forgery) -> None:
    older = write_backup(repository, SERIES, second(real, -864_000)).id
    newest = write_backup(repository, SERIES, second(real, 60)).id
    forged = forge_newer(repository, real, forge)
    lines: list[str] = []
    result = prune(
        repository=repository,
        policy=Policy(keep_last=1),
        dry_run=False,
        now=second(real, 3600),
        context=RunContext(log=lines.append),
    )
    assert {one["id"] for one in result["ignored"]} == set(forged)  # type: ignore[attr-defined]
    assert all(any(id in line and "its files do not prove its state: " in line for line in lines) for id in forged)
    assert newest in listed(repository)
    assert older not in listed(repository), "what is real still goes"
    if forge in UNREADABLE:
        assert set(forged) < listed(repository).keys(), "what nobody can read is not ours to delete"


@each
def test_the_latest_is_the_real_one(repository: Repository, real: Evidence, forge: Forgery) -> None:
    forged = forge_newer(repository, real, forge)
    lines: list[str] = []
    for level in ("integrity", "archive"):
        lines.clear()
        found = choose_backup(repository, "prod/app", minimum_level=level, log=lines.append)
        assert (found["id"], found["verified"]) == (real.backup.id, "archive")
        assert len(lines) == 3
        assert all(
            f"warning: newer backup prod/app/{id} " in line for id, line in zip(reversed(forged), lines, strict=True)
        )
        assert all(line.endswith(f"; using {real.backup.id}") for line in lines)
    with pytest.raises(
        BackupNotFound, match=rf"no backup of prod/app in .* is verified at level restore; .*{forged[2]}"
    ):
        choose_backup(repository, "prod/app", minimum_level="restore")


@each
def test_none_is_uploaded(repository: Repository, real: Evidence, forge: Forgery, tmp_path: Path) -> None:
    (id,) = forge_newer(repository, real, forge, 1)
    there = LocalRepository(tmp_path / "there")
    there.init()
    for level in ("restore", "archive", "integrity"):
        with pytest.raises(PgBackupError) as caught:
            upload(reference=reference(repository, id), source=repository, destination=there, minimum_level=level)
        assert "\n" not in str(caught.value)
    assert [entry.key for entry in there.list()] == ["repository.json"]


@each
def test_none_is_fresh(repository: Repository, real: Evidence, forge: Forgery) -> None:
    forged = forge_newer(repository, real, forge)
    for max_drop in (0.9, None):
        for now, fresh in ((50, True), (100, False)):
            rules = FreshnessRules(max_age=timedelta(seconds=60), max_drop=max_drop)
            result: dict[str, Any] = freshness(repository=repository, rules=rules, now=second(real, now))
            assert result["fresh"] == fresh, result
            (series,) = result["series"]
            assert (series["id"], series["verified"]) == (real.backup.id, "archive")
            assert any(forged[2] in note for note in series["notes"]), "and it is named"


@pytest.mark.parametrize("forge", NOT_WHOLE, ids=lambda forge: forge.__name__)
def test_the_drill_takes_the_real_one(repository: Repository, real: Evidence, forge: Forgery) -> None:
    forge_newer(repository, real, forge)
    (drill,) = choose_drill(repository, max_bytes=1)
    assert drill["id"] == real.backup.id


@pytest.mark.parametrize("place", ["bucket"])
def test_all_of_them_in_a_bucket(repository: Repository, real: Evidence, tmp_path: Path) -> None:
    forged = [forge(repository, real, second(real, 2 * n)) for n, forge in enumerate(ALL, 1)]
    there = LocalRepository(tmp_path / "there")
    there.init()
    for id in forged:
        with pytest.raises(PgBackupError):
            upload(reference=reference(repository, id), source=repository, destination=there)
    lines: list[str] = []
    assert choose_backup(repository, "prod/app", log=lines.append)["id"] == real.backup.id
    assert lines[-1] == f"warning: {len(ALL) - 3} more newer backups of prod/app cannot be used"
    rules = FreshnessRules(max_age=timedelta(seconds=60))
    assert not freshness(repository=repository, rules=rules, now=second(real, 100))["fresh"]
    result = pruned(repository, real, keep_last=3)
    assert {one["id"] for one in result["ignored"]} == set(forged)
    assert real.backup.id in listed(repository)
    assert read_evidence(repository, SERIES, real.backup.id) == real


@each
def test_none_is_restored_but_by_its_id(
    repository: Repository,
    real: Evidence,
    forge: Forgery,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    client_dirs: list[str],
) -> None:
    (id,) = forge_newer(repository, real, forge, 1)
    target, settings = RestoreTarget(connection=fresh_database(server18)), Settings(client_dirs=tuple(client_dirs))
    if forge in NOT_WHOLE:
        with pytest.raises(PgBackupError) as caught:
            restore(
                reference=reference(repository, id),
                repository=repository,
                target=target,
                context=RunContext(settings=settings),
            )
        assert "\n" not in caught.value.message
        with target.connection.connect() as session:
            assert session.execute("select count(*) from pg_class where oid >= 16384").fetchone() == (0,)
    else:
        forged = reference(repository, id)
        result = restore(
            reference=forged, repository=repository, target=target, dry_run=True, context=RunContext(settings=settings)
        )
        assert f"backup prod/app/{id} " in str(result["warnings"])
        assert result["reference"]["verified"] is None  # type: ignore[index]


@each
def test_a_retry_takes_none_for_its_own(repository: Repository, real: Evidence, forge: Forgery) -> None:
    """The seed of a task can be guessed, and its six digits all the more."""
    (id,) = forge_newer(repository, real, forge, 1)
    assert id.endswith(f"-{id_suffix('forged')}")
    assert find_committed(repository, SERIES, "forged") is None


def test_a_backup_that_was_left_for_tonights_task_is_not_taken_for_its_own(
    here: Repository, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    """The seed is the names of DAG, task and run: who may write to a bucket can know it, but not the store's clock."""
    options: dict[str, Any] = {
        "connection": fresh_database(server18, None, "create table film (id int)"),
        "server": "s",
        "repository": here,
        "options": DumpOptions(),
    }
    left = dump_database(**options, context=RunContext(seed="tonight"))
    began = datetime.now(timezone.utc)
    retry = RunContext(seed="tonight", not_before=began)
    assert dump_database(**options, context=retry)["id"] == left["id"], "written while the run was running"
    while int(time.time()) <= began.timestamp():  # ids are of seconds
        time.sleep(0.05)
    tonight = RunContext(seed="tonight", not_before=began + timedelta(hours=6))
    made = dump_database(**options, context=tonight)
    assert made["id"] != left["id"]
    assert load_manifest(here, made).origin[SEED] == load_manifest(here, left).origin[SEED]


def test_a_verification_by_a_clock_that_is_behind_is_said_to_count_for_nothing_yet(
    repository: Repository, real: Evidence
) -> None:
    """The backup's worker was a day ahead."""
    members = {"app.dump": forgeries.bytes_of(repository, real)}
    made = write_backup(repository, SERIES, second(real, 86_400), looks=(), members=members)
    lines: list[str] = []
    with pytest.raises(NotProven, match=r"does not count as verified: .*: it is from the future"):
        verify(
            reference=reference(repository, made.id),
            repository=repository,
            level="integrity",
            context=RunContext(log=lines.append),
        )
    assert lines[-1].startswith("warning: ignored verification-")
    assert lines[-1].endswith("-integrity-pass.json: it is from the future")
    later = made.started_at + timedelta(minutes=1)
    assert read_evidence(repository, SERIES, made.id, now=later).backup.level == "integrity"


# -- the future, and too many --------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", [2030, 9999])
def test_ids_from_the_future(repository: Repository, real: Evidence, year: int) -> None:
    at = datetime(year, 12, 30, tzinfo=timezone.utc)
    forged = [forge(repository, real, at + timedelta(hours=n)) for n, forge in enumerate(ALL)]
    result = pruned(repository, real, keep_last=1)
    assert result["removed"] == 0
    assert listed(repository).keys() == {*forged, real.backup.id}
    lines: list[str] = []
    assert choose_backup(repository, "prod/app", log=lines.append)["id"] == real.backup.id
    assert "starts in the future; check the clocks; using" in lines[0]
    assert lines[3:] == [f"warning: {len(ALL) - 3} more newer backups of prod/app cannot be used"]
    assert [one["id"] for one in choose_drill(repository, max_bytes=1)] == [real.backup.id]


def test_a_flood_of_them(repository: Repository, real: Evidence) -> None:
    for n in range(300):
        forgeries.two_bytes(repository, real, second(real, n / 10 + 1).replace(microsecond=0) + timedelta(seconds=n))
    result = pruned(repository, real, keep_last=3)
    assert real.backup.id in listed(repository)
    assert len(result["ignored"]) == 100
    assert len(result["notes"]) == 4
    assert len(json.dumps([result["ignored"], result["notes"]])) < 100_000


# -- files put into the folder of a real one -------------------------------------------------------------------------


def put_beside(repository: Repository, real: Evidence, name: str, data: bytes) -> None:
    repository.write_bytes(f"{real.backup.folder}/{name}", data)


@places
def test_a_pass_put_beside_a_real_one(repository: Repository, real: Evidence, tmp_path: Path) -> None:
    there = LocalRepository(tmp_path / "there")
    there.init()
    put_beside(repository, real, claim(second(real, 30)), b"")
    assert listed(repository)[real.backup.id].level == "restore"
    assert choose_backup(repository, "prod/app")["verified"] == "archive"
    (ignored,) = read_evidence(repository, SERIES, real.backup.id).ignored
    assert (
        ignored
        == f"{claim(second(real, 30))}: a verification that is not JSON: Expecting value: line 1 column 1 (char 0)"
    )
    with pytest.raises(VerificationFailed, match=r"verified at archive only, and restore is required \(ignored: verif"):
        upload(
            reference=reference(repository, real.backup.id),
            source=repository,
            destination=there,
            minimum_level="restore",
        )


@places
def test_a_failure_put_beside_a_real_one(repository: Repository, real: Evidence) -> None:
    """It proves no failure, but what passed before is proof no more: a real failure may have been damaged."""
    write_backup(repository, SERIES, second(real, -864_000))
    put_beside(repository, real, claim(second(real, 2), result="fail"), b"")
    evidence = read_evidence(repository, SERIES, real.backup.id)
    assert (evidence.backup.state, evidence.backup.level) == ("notproven", None)
    assert evidence.backup.problem == f"{claim(second(real, 2), result='fail')} is invalid"
    assert pruned(repository, real, keep_last=1)["removed"] == 0
    write_verification(repository, real.require_manifest(), "restore", "pass", second(real, 30))
    assert read_evidence(repository, SERIES, real.backup.id).backup.level == "restore", "until it passes again"


def test_a_failure_from_the_future_proves_no_failure(repository: Repository, real: Evidence) -> None:
    """Like any failure put beside it, it revokes what has passed: a real one may come from a wrong clock."""
    name = VerificationName(second(real, 1e9), "restore", "fail").file
    put_beside(repository, real, name, b"")
    backup = read_evidence(repository, SERIES, real.backup.id).backup
    assert (backup.state, backup.problem) == ("notproven", f"{name}: it is from the future")


def test_too_many_verifications(repository: Repository, real: Evidence) -> None:
    """They are not all read, and what is not read proves nothing."""
    for n in range(MOST_VERIFICATIONS + 20):
        put_beside(repository, real, claim(second(real, 5 + n / 1000)), b"")
    evidence = read_evidence(repository, SERIES, real.backup.id)
    assert evidence.backup.state == "written"
    assert len(evidence.ignored) == MOST_VERIFICATIONS + 1
    assert evidence.ignored[-1] == "21 older verifications: too many, or too large, to be read"


def test_a_huge_verification(repository: Repository, real: Evidence) -> None:
    put_beside(repository, real, claim(second(real, 30)), b"[" * (33 * 1024**2))
    evidence = read_evidence(repository, SERIES, real.backup.id)
    assert (evidence.backup.level, len(evidence.ignored)) == ("archive", 1)


def test_the_turn_of_a_drill_is_not_taken_by_names(repository: Repository, real: Evidence) -> None:
    """A series that is said to have been rehearsed just now would never have its turn."""
    other = Series("prod", "other")
    made = write_backup(repository, other, second(real, -86400), looks=["archive-pass", "restore-pass"])
    assert [one["series"] for one in choose_drill(repository, max_bytes=1)] == ["prod/app"], "never rehearsed"
    for result in ("pass", "notproven"):
        put_beside(repository, real, claim(second(real, 30), result=result), b"")
    forgeries.empty_verification(repository, real, second(real, 40))
    assert [one["series"] for one in choose_drill(repository, max_bytes=1)] == ["prod/app"]
    assert made.id in listed(repository)


# -- copies within a store -------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def source(template: tuple[Path, dict[str, Any]], s3: S3Server, bucket: str) -> Repository:
    return in_bucket(template[0], s3, bucket, "pg")


@pytest.fixture
def destination(s3: S3Server, bucket: str) -> Repository:
    made = open_repository(f"s3://{bucket}/copies", s3=S3Options(client_factory=s3.client))
    made.init()
    return made


def artifact_key(repository: Repository, made: dict[str, Any]) -> str:
    manifest = load_manifest(repository, made)
    return manifest.key(manifest.artifact.files[0])


def test_a_copy_of_what_was_dumped(
    source: Repository, destination: Repository, template: tuple[Path, dict[str, Any]]
) -> None:
    made = template[1]
    copied = upload(reference=made, source=source, destination=destination)
    assert (copied["sha256"], copied["verified"]) == (made["sha256"], "archive")
    assert destination.read_bytes(artifact_key(destination, copied)) == source.read_bytes(artifact_key(source, made))


def test_an_object_put_over_an_artifact_is_not_copied(
    source: Repository, destination: Repository, template: tuple[Path, dict[str, Any]], s3: S3Server, bucket: str
) -> None:
    made = template[1]
    size, metadata = int(made["size"]), {"sha256": made["sha256"]}
    key = f"pg/{artifact_key(source, made)}"
    s3.client().put_object(Bucket=bucket, Key=key, Body=b"x" * size, Metadata=metadata)
    with pytest.raises(VerificationFailed, match=f"checksum mismatch: expected {made['sha256']}, found "):
        upload(reference=made, source=source, destination=destination)
    assert [entry.key for entry in destination.list()] == ["repository.json"]


@pytest.mark.parametrize("when", ["before-call.s3.CopyObject", "after-call.s3.CopyObject"])
def test_an_object_swapped_in_between_is_no_backup(
    destination: Repository, template: tuple[Path, dict[str, Any]], s3: S3Server, bucket: str, when: str
) -> None:
    """Once before the store copies, once before the copied version is read; and back again afterwards."""
    made = template[1]
    in_bucket(template[0], s3, bucket, "pg")
    client = s3.client()
    source = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
    copying = open_repository(f"s3://{bucket}/copies", s3=S3Options(client_factory=lambda: client))
    key = f"pg/{artifact_key(source, made)}"

    def swap(**_: object) -> None:
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"x" * int(made["size"]))

    client.meta.events.register(when, swap)
    with pytest.raises(RepositoryError):
        upload(reference=made, source=source, destination=copying)
    assert [entry.key for entry in destination.list()] == ["repository.json"]


def test_a_store_that_copies_something_else(
    destination: Repository, template: tuple[Path, dict[str, Any]], s3: S3Server, bucket: str
) -> None:
    made = template[1]
    in_bucket(template[0], s3, bucket, "pg")
    client = s3.client()
    client.put_object(Bucket=bucket, Key="other", Body=b"x" * int(made["size"]))
    source = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
    copying = open_repository(f"s3://{bucket}/copies", s3=S3Options(client_factory=lambda: client))

    def divert(params: dict[str, Any], **_: object) -> None:
        params["CopySource"] = {"Bucket": bucket, "Key": "other"}
        params.pop("CopySourceIfMatch", None)

    client.meta.events.register("provide-client-params.s3.CopyObject", divert)
    with pytest.raises(RepositoryError, match="differs from what was sent"):
        upload(reference=made, source=source, destination=copying)
    assert [entry.key for entry in destination.list()] == ["repository.json"]


def test_only_verifications_that_hold_are_copied(repository: Repository, real: Evidence, tmp_path: Path) -> None:
    put_beside(repository, real, claim(second(real, 30)), b"")
    put_beside(repository, real, claim(second(real, 1e9)), b"{}")
    there, lines = LocalRepository(tmp_path / "there"), list[str]()
    there.init()
    for _ in range(2):  # a retry adds what was made meanwhile, and no more
        copied = upload(
            reference=reference(repository, real.backup.id),
            source=repository,
            destination=there,
            context=RunContext(log=lines.append),
        )
        assert copied["verified"] == "archive"
        backup = listed(there)[real.backup.id]
        assert [seen.level for seen in backup.verifications] == ["archive"]
    assert any(line.startswith("warning: skipped verification-") for line in lines)


def test_a_manifest_alone_is_no_copy(repository: Repository, real: Evidence, tmp_path: Path) -> None:
    """Put there before: "it exists already" would be success without a backup."""
    there = LocalRepository(tmp_path / "there")
    there.init()
    folder = backup_folder(SERIES, real.backup.id)
    there.write_bytes(f"{folder}/x", b"x")
    there.write_bytes(f"{folder}/manifest.json", real.require_manifest().to_json())
    with pytest.raises(RepositoryError, match=r"is incomplete: .* is missing"):
        upload(reference=reference(repository, real.backup.id), source=repository, destination=there)


@pytest.mark.parametrize(
    "look", [lambda r, at: list(r.list(at)), lambda r, at: r.unfinished_writes(timedelta(0), prefix=at)]
)
def test_a_listing_of_one_backup_that_holds_another_is_not_acted_on(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[Repository, str], object]
) -> None:
    """Who answers a listing need not be who obeys a deletion: a proxy, where there is no TLS."""
    asked, other = "s/db/20261122T020000Z-3f9ac1", "pg/s/db/20261123T020000Z-3f9ac1/manifest.json"
    upload = f"<Upload><Key>{other}</Key><UploadId>1</UploadId><Initiated>2026-11-22T02:00:00Z</Initiated></Upload>"
    uploads = f"<ListMultipartUploadsResult>{upload}<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
    answers = {"list": listing(item(other)), "uploads": Answer(uploads.encode(), headers=DATED)}
    with HostileS3().running() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        store.script = lambda request: answers.get(request.operation)
        with pytest.raises(RepositoryError, match=f"a listing of 'pg/{asked}/' holds '{other}'"):
            look(open_repository("s3://bucket/pg"), asked)


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_what_stands_in_the_place_of_a_pin_is_none(tmp_path: Path, kind: str) -> None:
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    id = write_backup(repository, SERIES, datetime(2026, 11, 22, 2, tzinfo=timezone.utc)).id
    path = repository.local_path(f"{backup_folder(SERIES, id)}/pin.json")
    assert path is not None
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("manifest.json")
    with pytest.raises(RepositoryError, match=r"pin\.json"):
        pin(repository=repository, series=SERIES, id=id)
    path.unlink()
    pin(repository=repository, series=SERIES, id=id)
    assert read_evidence(repository, SERIES, id).backup.pinned
