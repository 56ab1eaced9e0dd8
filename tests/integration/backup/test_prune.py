"""Pruning on a real folder and a real S3 server: what goes, what stays, and what a crash in between leaves."""

from __future__ import annotations

import gc
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from contexts import in_context
from honest import write_backup, write_verification

import airflow_pgbackup.backup.kept_backups as kept_backups
import airflow_pgbackup.backup.prune as prune_module
from airflow_pgbackup.backup.fsck.run import fsck
from airflow_pgbackup.backup.pin import pin, unpin
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.removal import UNLISTED, sweep
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import (
    BackupNotFound,
    Canceled,
    ConfigurationError,
    RepositoryError,
    RepositoryNotFound,
)
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE, read_catalogue, read_manifest
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import Series, new_attempt
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import MAX_BYTES
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.repository.verification import Verification

NOW = datetime.now(timezone.utc)
APP, STAGING = Series("prod", "app"), Series("prod", "app_staging")
DAILY = Policy(keep_daily=2)


@pytest.fixture
def repository(either_repository: Repository) -> Repository:
    return either_repository


def add(
    repository: Repository,
    *nights: int,
    series: Series = APP,
    mark: str = "archive-pass",
    members: Sequence[str] = ("app.dump",),
    manifest: bool = True,
) -> list[str]:
    """Backups of that many nights ago; their ids."""
    return [
        write_backup(
            repository,
            series,
            NOW - timedelta(days=night, hours=1),
            looks=[mark] if mark else [],
            members=dict.fromkeys(members, b"12345"),
            seed=f"{series}{night}",
            committed=manifest,
        ).id
        for night in nights
    ]


def ids(repository: Repository, series: Series = APP) -> list[str]:
    return [backup.id for backup in read_catalogue(repository, series=[series]).backups]


def keys(repository: Repository) -> list[str]:
    return [entry.key for entry in repository.list()]


def run(repository: Repository, policy: Policy = DAILY, **kwargs: Any) -> dict[str, Any]:
    result = prune(repository=repository, policy=policy, **in_context({"dry_run": False, "now": NOW, **kwargs}))
    json.dumps(result, allow_nan=False)
    return result


def test_what_the_policy_does_not_keep_goes_with_all_of_its_folder(repository: Repository) -> None:
    made = add(repository, 0, 1, 2, 3, members=["app.dir/toc.dat", "app.dir/1.dat"])
    other = add(repository, 0, 1, 2, series=STAGING)
    logged: list[str] = []
    result = run(repository, log=logged.append)
    assert ids(repository) == made[:2]
    assert ids(repository, STAGING) == other[:2]
    assert not [key for key in keys(repository) if made[2] in key or made[3] in key or other[2] in key]
    assert (result["kept"], result["removed"], result["bytes"]) == (4, 3, 25)
    assert result["dry_run"] is False
    assert result["repository_uuid"] == repository.uuid
    assert result["policy"]["keep_daily"] == 2
    first, third = result["decisions"][0], result["decisions"][2]
    assert first == {
        "series": "prod/app",
        "id": made[0],
        "started_at": first["started_at"],
        "size": 10,
        "state": "verified",
        "verified": "archive",
        "keep": True,
        "reasons": first["reasons"],
    }
    assert first["reasons"][:2] == ["newest backup", "last verified backup"]
    assert (third["keep"], third["reasons"]) == (False, ["no rule keeps it"])
    assert f"deleted prod/app/{made[3]} (10 bytes)" in logged
    assert "prod/app: 2 of 4 backups kept, 2 deleted (20 bytes)" in logged
    again = run(repository)
    assert (again["removed"], again["leftovers"]) == (0, [])


def test_a_dry_run_changes_nothing_and_says_the_same(repository: Repository) -> None:
    add(repository, 0, 1, 2, 3)
    add(repository, 9, manifest=False)
    before = keys(repository)
    logged: list[str] = []
    later = NOW + timedelta(days=2)
    planned = run(repository, dry_run=True, now=later, log=logged.append)
    assert keys(repository) == before
    assert "prod/app: 2 of 4 backups would be kept, 2 deleted (10 bytes)" in logged
    assert [line.split()[0] for line in logged[:5]] == ["keep", "keep", "delete", "delete", "sweep"]
    assert logged[0].endswith(f": newest backup; last verified backup; daily 1/2 ({NOW - timedelta(hours=1):%F})")
    assert planned["removed"] == 2
    assert len(planned["leftovers"]) == 1
    assert {**run(repository, now=later), "dry_run": True} == planned


def test_only_the_series_that_are_named(repository: Repository) -> None:
    app, staging = add(repository, 0, 1, 2), add(repository, 0, 1, 2, series=STAGING)
    other = add(repository, 0, 1, 2, series=Series("prod2", "app"))
    add(repository, 8, manifest=False), add(repository, 8, series=STAGING, manifest=False)
    later = NOW + timedelta(days=2)
    result = run(repository, series=SeriesSelection(server="prod", databases=["app"]), now=later)
    assert {d["series"] for d in result["decisions"]} == {"prod/app"}
    assert [one["key"].rpartition("/")[0] for one in result["leftovers"]] == ["prod/app"]
    assert (ids(repository), ids(repository, STAGING)) == (app[:2], staging)
    run(repository, series=SeriesSelection(server="prod"), now=later)
    assert ids(repository, STAGING) == staging[:2]
    assert ids(repository, Series("prod2", "app")) == other
    assert not read_catalogue(repository).leftovers
    assert run(repository, series=SeriesSelection(server="prod", databases=[]))["decisions"] == []


def test_nothing_goes_while_nothing_is_proven_and_that_is_said(repository: Repository) -> None:
    made = add(repository, 0, 1, 2, mark="restore-notproven") + add(repository, 3, mark="")
    result = run(repository, Policy(keep_last=1))
    assert result["notes"] == ["prod/app: no backup verified at archive: nothing is deleted"]
    assert ids(repository) == made
    assert all("not verified at archive" in " ".join(d["reasons"]) for d in result["decisions"])
    # One that is proven, and the older ones may go.
    add(repository, 0, series=STAGING)
    newest = write_verification(repository, read_manifest(repository, APP, made[0]), "archive", "pass", NOW)
    assert run(repository, Policy(keep_last=1))["notes"] == []
    assert ids(repository) == [newest.split("/")[2]]


def test_pins(repository: Repository) -> None:
    made = add(repository, 0, 1, 2, 3)
    pin(repository=repository, series=APP, id=made[3], reason="before the migration")
    pin(repository=repository, series=APP, id=made[3])
    run(repository)
    assert ids(repository) == [*made[:2], made[3]]
    assert json.loads(repository.read_bytes(f"prod/app/{made[3]}/{PIN_FILE}"))["reason"] == "before the migration"
    unpin(repository=repository, series=APP, id=made[3])
    unpin(repository=repository, series=APP, id=made[3])
    run(repository)
    assert ids(repository) == made[:2]
    assert not [key for key in keys(repository) if made[3] in key], "the pin of a pruned backup would be a leftover"
    for act in (pin, unpin):
        with pytest.raises(BackupNotFound):
            act(repository=repository, series=APP, id=made[3])


def test_leftovers_are_swept_when_they_are_old_and_ours(repository: Repository) -> None:
    made = add(repository, 0)
    add(repository, 5, members=["app.dir/toc.dat", "app.dir/1.dat"], mark="", manifest=False)
    foreign = ["notes.txt", "prod/notes.txt", "prod/app/latest/manifest.json", "prod/a b/20200101T000000Z-000000/x"]
    for key in foreign:
        repository.write_bytes(key, b"somebody's")
    before = keys(repository)
    assert run(repository)["leftovers"] == []
    assert keys(repository) == before, "a dump may be running there"
    result = run(repository, now=NOW + timedelta(days=2))
    assert [one["size"] for one in result["leftovers"]] == [10]
    assert ids(repository) == made
    assert set(foreign) < set(keys(repository))
    assert len(keys(repository)) == len(before) - 2
    assert result["notes"] == [
        "ignored foreign files: notes.txt, prod/a b/20200101T000000Z-000000/x, prod/app/latest/manifest.json and 1 more"
    ]


def test_very_many_foreign_files_are_not_counted(tmp_path: Path) -> None:
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    for number in range(200):
        (tmp_path / "pg" / f"{number:03}.txt").touch()
    notes = run(repository)["notes"]
    assert notes == ["ignored foreign files: 000.txt, 001.txt, 002.txt and 97 more, at least"]


def test_a_backup_in_the_folder_of_another_stays(repository: Repository) -> None:
    made = add(repository, 0, 5)
    moved = [f"prod/app/{one}/{made[1]}/{file}" for one in made for file in ("manifest.json", "app.dump")]
    for key in moved:
        repository.write_bytes(key, b"moved")
    repository.delete([f"prod/app/{made[0]}/manifest.json"])
    for _ in range(2):
        run(repository, Policy(keep_last=1, minimum_level=None), now=NOW + timedelta(days=2))
    assert set(moved) <= set(keys(repository))


@pytest.mark.usefixtures("utime_counts")
def test_temporary_files_of_a_killed_dump_are_swept(tmp_path: Path) -> None:
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    add(repository, 0)
    old = tmp_path / "pg/prod/app/20200101T000000Z-000000/.pgbackup-tmp-0123456789abcdef"
    young = tmp_path / "pg/prod/app/20200101T000000Z-000000/.pgbackup-tmp-fedcba9876543210"
    old.parent.mkdir(parents=True)
    for path in (old, young):
        path.write_bytes(b"half a dump")
    days_ago = time.time() - 3 * 86400
    os.utime(old, (days_ago, days_ago))
    assert [one["key"] for one in run(repository)["leftovers"]] == [str(old.relative_to(tmp_path / "pg"))]
    assert not old.exists()
    assert young.exists()


@pytest.mark.usefixtures("utime_counts")
@pytest.mark.parametrize("only", [{}, {"server": "prod"}, {"server": "prod", "databases": ["app"]}], ids=str)
def test_probes_of_roles_that_may_not_delete_are_swept(tmp_path: Path, only: dict[str, Any]) -> None:
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    add(repository, 0)
    old, young = (tmp_path / "pg" / f".pgbackup-tmp-probe-{name}" for name in ("0123456789abcdef", "fedcba9876543210"))
    for path in (old, young):
        path.write_bytes(b"probe")
    days_ago = time.time() - 3 * 86400
    os.utime(old, (days_ago, days_ago))
    assert [one["key"] for one in run(repository, series=SeriesSelection(**only))["leftovers"]] == [old.name]
    assert not old.exists()
    assert young.exists()


def test_folders_that_a_killed_prune_left_empty_are_swept(tmp_path: Path) -> None:
    """Killed when the last file was gone, and before its folder was."""
    root = tmp_path / "pg"
    repository = LocalRepository(root)
    repository.init()
    add(repository, 0)
    days_ago = time.time() - 3 * 86400
    ours = [root / "prod/app/20200101T000000Z-000000", root / "prod/old/20200101T000000Z-000000/7d41c09e/app.dir"]
    young = root / "prod/app/20200102T000000Z-000000"
    foreign = [root / "mnt", root / "prod/app/latest"]
    for path in (*ours, young, *foreign):
        path.mkdir(parents=True)
        if path != young:
            os.utime(path, (days_ago, days_ago))
    swept = run(repository)["leftovers"]
    assert [one["key"] for one in swept] == [str(path.relative_to(root)) for path in ours]
    assert not ours[0].exists()
    assert not (root / "prod/old").exists(), "with the folders around it"
    assert all(path.is_dir() for path in (young, *foreign))


def test_an_empty_folder_in_which_a_dump_begins_is_left(tmp_path: Path) -> None:
    root = tmp_path / "pg"
    repository = LocalRepository(root)
    repository.init()
    folder = root / "prod/app/20200101T000000Z-000000"
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    left = repository.unfinished_writes(timedelta(hours=1))
    repository.write_bytes("prod/app/20200101T000000Z-000000/7d41c09e/app.dump", b"x")
    repository.remove_unfinished(left)
    assert keys(repository) == ["prod/app/20200101T000000Z-000000/7d41c09e/app.dump", "repository.json"]


def test_what_other_attempts_left_beside_a_backup_is_swept(repository: Repository) -> None:
    made = write_backup(repository, APP, NOW - timedelta(hours=1), attempt="00000001")
    for attempt in ("00000000", "00000002"):
        repository.write_bytes(f"prod/app/{made.id}/{attempt}/app.dump", b"of a killed try")
    assert run(repository)["leftovers"] == [], "it may be running"
    later = NOW + timedelta(days=2)
    pin(repository=repository, series=APP, id=made.id)
    planned = run(repository, dry_run=True, now=later)
    assert [one["key"][-8:] for one in planned["leftovers"]] == ["00000000", "00000002"]
    run(repository, now=later)
    left = [key.removeprefix(f"prod/app/{made.id}/") for key in keys(repository) if made.id in key]
    assert left[:3] == ["00000001/app.dump", "manifest.json", "pin.json"]
    assert len(left) == 4, "and the verification"


def test_attempts_beside_a_manifest_that_cannot_be_read_are_left(repository: Repository) -> None:
    id = write_backup(repository, APP, NOW - timedelta(hours=1), attempt="00000001", committed=False).id
    repository.write_bytes(f"prod/app/{id}/00000002/app.dump", b"x")
    repository.write_bytes(f"prod/app/{id}/manifest.json", b"{}")
    before = keys(repository)
    assert run(repository, now=NOW + timedelta(days=2))["leftovers"] == []
    assert keys(repository) == before


def test_a_verification_that_came_too_late_is_swept(repository: Repository) -> None:
    """Of a backup that was pruned meanwhile, by a verify that was killed before it looked again."""
    manifest = write_backup(repository, APP, NOW - timedelta(days=5))
    repository.delete([key for key in keys(repository) if key != "repository.json"])
    write_verification(repository, manifest, "archive", "pass", NOW)
    assert len(run(repository, now=NOW + timedelta(days=2))["leftovers"]) == 1
    assert keys(repository) == ["repository.json"]


def test_uploads_of_a_killed_dump_are_swept(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, client = s3.bucket(), s3.client()
    repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=s3.client))
    repository.init()
    for key in ("pg/prod/app/20200101T000000Z-000000/app.dump", "pg/prod/app/somebody.bin", "other/x.bin"):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"x")
    assert run(repository)["leftovers"] == []
    # Nobody can wait for an hour here.
    monkeypatch.setattr("airflow_pgbackup.backup.removal.LEAST_GRACE", timedelta(0))
    result = run(repository, grace=timedelta(0))
    assert [one["key"] for one in result["leftovers"]] == ["prod/app/20200101T000000Z-000000/app.dump"]
    left = {upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket)["Uploads"]}
    assert left == {"pg/prod/app/somebody.bin", "other/x.bin"}


def test_a_short_grace_is_refused(repository: Repository) -> None:
    with pytest.raises(ConfigurationError, match="deletes files of a running dump"):
        run(repository, grace=timedelta(minutes=59))


def test_what_is_no_repository_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound):
        run(LocalRepository(tmp_path / "unmounted"))


# -- what happens in between ----------------------------------------------------------------------------------------


class Crash(BaseException):
    """As kill -9: nothing of ours handles it."""


class Crashing(LocalRepository):
    """Dies before its n-th deletion. The keys of one call go in any order, as a store's do."""

    def __init__(self, root: Path, after: int, seed: int) -> None:
        super().__init__(root)
        self.left = after
        self._random = random.Random(seed)

    def _delete(self, keys: Sequence[str]) -> None:
        for key in self._random.sample(list(keys), len(keys)):
            if self.left == 0:
                raise Crash
            self.left -= 1
            super()._delete([key])


def test_a_crash_between_any_two_deletions_leaves_every_remaining_backup_whole(tmp_path: Path) -> None:
    members = ["app.dir/toc.dat", "app.dir/1.dat", "app.dir/2.dat"]
    crashed = 0
    for after in range(100):
        root = tmp_path / str(after)
        repository = LocalRepository(root)
        repository.init()
        made = add(repository, 0, 1, 2, 3, members=members) + add(repository, 4, mark="archive-fail", members=members)
        add(repository, 7, members=members, manifest=False)
        before = {backup.id: backup for backup in read_catalogue(repository).backups}
        later = NOW + timedelta(days=2)
        try:
            run(Crashing(root, after, seed=after), now=later)
        except Crash:
            crashed += 1
        found = read_catalogue(repository).backups
        assert [backup.id for backup in found][:2] == made[:2], "what is to be kept is there"
        for backup in found:
            assert backup == before[backup.id], "and whatever is there is whole"
        # The oldest go first.
        assert [backup.id for backup in found] == made[: len(found)]
        run(repository, now=later)
        assert ids(repository) == made[:2]
        assert len(keys(repository)) == 1 + 2 * (len(members) + 2), "nothing is left behind"
        if crashed <= after:
            break
    # Three backups of five keys each, and a leftover of four.
    assert crashed == 19


class Meanwhile(LocalRepository):
    """Does something else just before a folder is looked at again."""

    def __init__(self, root: Path, action: Callable[[str], object]) -> None:
        super().__init__(root)
        self._action = action

    def list(self, prefix: str = "") -> Iterator[Entry]:
        if prefix.count("/") == 2:
            self._action(prefix)
        return super().list(prefix)


def test_a_dump_that_commits_meanwhile_is_not_swept(tmp_path: Path) -> None:
    root = tmp_path / "pg"
    plain = LocalRepository(root)
    plain.init()
    made = add(plain, 0) + add(plain, 5, manifest=False)
    repository = Meanwhile(root, lambda folder: plain.write_bytes(f"{folder}/manifest.json", b"{}"))
    result = run(repository, now=NOW + timedelta(days=2))
    assert result["notes"] == [f"prod/app/{made[1]} is being written: kept"]
    assert ids(plain) == made


class DamagedIndex(LocalRepository):
    """A store whose listings lack manifests, which a HEAD and a GET still find."""

    def __init__(self, root: Path, hidden: str) -> None:
        super().__init__(root)
        self._hidden = hidden

    def list(self, prefix: str = "") -> Iterator[Entry]:
        return (one for one in super().list(prefix) if not one.key.endswith(f"{self._hidden}/manifest.json"))

    def list_all(self, prefix: str = "") -> Iterator[Entry]:
        return (one for one in super().list_all(prefix) if not one.key.endswith(f"{self._hidden}/manifest.json"))


@pytest.mark.parametrize("policy", [DAILY, None])
def test_a_backup_whose_manifest_is_not_listed_is_not_swept(tmp_path: Path, policy: Policy | None) -> None:
    root = tmp_path / "pg"
    plain = LocalRepository(root)
    plain.init()
    made = add(plain, 0, 1)
    before, later = keys(plain), NOW + timedelta(days=2)
    damaged = DamagedIndex(root, made[0])
    result: Any = prune(repository=damaged, policy=policy, dry_run=False, now=later)
    assert result["leftovers"] == []
    assert [note for note in result["notes"] if made[0] in note] == [f"prod/app/{made[0]} {UNLISTED}"]
    (leftover,) = read_catalogue(damaged).leftovers
    assert sweep(damaged, leftover) == UNLISTED
    report = fsck(repository=damaged, repair=True, now=later)
    assert [(one.code, one.key) for one in report.findings] == [
        ("manifest_unlisted", f"prod/app/{made[0]}/manifest.json")
    ]
    assert keys(plain) == before


@pytest.mark.usefixtures("utime_counts")
def test_a_dump_that_still_grows_is_not_swept(tmp_path: Path) -> None:
    root = tmp_path / "pg"
    plain = LocalRepository(root)
    plain.init()
    (id,) = add(plain, 5, manifest=False, members=["app.dir/toc.dat"])
    days_ago = time.time() - 3 * 86400
    for path in (root / f"prod/app/{id}").rglob("*"):
        os.utime(path, (days_ago, days_ago))
    repository = Meanwhile(root, lambda folder: plain.write_bytes(f"{folder}/app.dir/1.dat", b"x"))
    assert run(repository)["notes"] == [f"prod/app/{id} is being written: kept"]
    assert f"prod/app/{id}/app.dir/toc.dat" in keys(plain)


def test_a_pin_that_comes_meanwhile_holds(tmp_path: Path) -> None:
    root = tmp_path / "pg"
    plain = LocalRepository(root)
    plain.init()
    made = add(plain, 0, 1, 2)
    listed: list[str] = []

    def pin_when_decided(folder: str) -> None:
        if folder in listed:  # it was listed once to be read
            pin(repository=plain, series=APP, id=folder.split("/")[2])
        listed.append(folder)

    repository = Meanwhile(root, pin_when_decided)
    assert run(repository)["notes"] == [f"prod/app/{made[2]} was pinned during the operation: kept"]
    assert ids(plain) == made


def test_two_prunes_at_once_do_each_other_no_harm(tmp_path: Path) -> None:
    root = tmp_path / "pg"
    plain = LocalRepository(root)
    plain.init()
    made = add(plain, 0, 1, 2, 3)
    once: list[str] = []

    def other(folder: str) -> None:
        if not once:
            once.append(folder)
            run(plain)

    run(Meanwhile(root, other))
    assert ids(plain) == made[:2]


def test_a_key_that_cannot_be_deleted_stops_its_backup_and_no_other(s3: S3Server) -> None:
    bucket = s3.bucket()
    repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=s3.client))
    repository.init()
    made = add(repository, 0, 1, 2, 3, 4)
    held = f"pg/prod/app/{made[3]}/manifest.json"

    def client() -> Any:
        """As an IAM policy does that denies one key: 200, and an error for it in the answer."""
        made_client = s3.client()

        def keep(params: dict[str, Any], **_: object) -> None:
            body = params["Delete"]["Objects"]
            params["Delete"]["Objects"] = [one for one in body if one["Key"] != held] or [{"Key": "nothing"}]
            refused.append(len(body) != len(params["Delete"]["Objects"]) or body == [{"Key": held}])

        def answer(parsed: dict[str, Any], **_: object) -> None:
            if refused.pop():
                parsed["Errors"] = [{"Key": held, "Code": "AccessDenied", "Message": "Access Denied"}]

        refused: list[bool] = []
        made_client.meta.events.register("provide-client-params.s3.DeleteObjects", keep)
        made_client.meta.events.register("after-call.s3.DeleteObjects", answer)
        return made_client

    careful = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=client))
    with pytest.raises(RepositoryError) as caught:
        run(careful)
    assert f"1 of 3 deletions failed; the first: prod/app/{made[3]}: not deleted" in caught.value.message
    assert "AccessDenied" in caught.value.message
    found = read_catalogue(repository).backups
    assert [backup.id for backup in found] == [made[0], made[1], made[3]]
    assert found[2].state == "verified", "its artifact is untouched"


def test_object_lock_is_respected_and_reported(s3: S3Server) -> None:
    client, bucket = s3.client(), f"locked-{os.getpid()}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    until = (datetime.now(timezone.utc) + timedelta(days=30)).replace(microsecond=0)
    extra = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    locking = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=s3.client, extra_args=extra))
    repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=s3.client))
    repository.init()
    newest, locked, free = [*add(repository, 0), *add(locking, 5), *add(repository, 6)]
    result = run(repository, Policy(keep_last=1))
    assert ids(repository) == [newest, locked]
    assert result["decisions"][1]["reasons"] == [f"locked until {until.isoformat()}"]
    assert result["decisions"][2]["id"] == free
    assert (result["kept"], result["removed"], result["locked"]) == (2, 1, 1)
    assert f"1 backup that no rule keeps is locked, until {until.isoformat()} at the earliest" in result["notes"][-1]


def test_a_locked_backup_stays_if_its_manifest_was_overwritten_without_a_lock(s3: S3Server) -> None:
    client, bucket = s3.client(), f"overwritten-{os.getpid()}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    uri = f"s3://{bucket}/pg"
    options = S3Options.of_store({"lock_for": "30d"}, client_factory=s3.client)
    locking = open_repository(uri, s3=options)
    repository = open_repository(uri, s3=S3Options(client_factory=s3.client))
    repository.init()
    newest, locked = [*add(repository, 0), *add(locking, 5)]
    key = next(each for each in keys(repository) if f"{locked}/manifest.json" in each)
    client.put_object(Bucket=bucket, Key=f"pg/{key}", Body=repository.read_bytes(key))
    assert repository.protection.locked(key) is None
    result = run(repository, Policy(keep_last=1))
    assert ids(repository) == [newest, locked]
    assert result["locked"] == 1


def test_a_canceled_prune_stops_between_two_backups(repository: Repository) -> None:
    made = add(repository, 0, 1, 2, 3)
    cancel = Cancel()

    def log(line: str) -> None:
        if line.startswith("deleted"):
            cancel.set()

    with pytest.raises(Canceled):
        run(repository, cancel=cancel, log=log)
    assert ids(repository) == made[:3]
    assert not [key for key in keys(repository) if made[3] in key]


@pytest.mark.parametrize("size", [0, MAX_BYTES + 1])
def test_a_manifest_that_is_empty_or_huge(repository: Repository, size: int) -> None:
    """A full disk left it. It names no attempt, so what an attempt wrote is swept later."""
    attempt = new_attempt()
    made = [write_backup(repository, APP, NOW - timedelta(days=n, hours=1), attempt=attempt).id for n in range(2)]
    key = f"prod/app/{made[1]}/manifest.json"
    repository.delete([key])
    repository.write_bytes(key, b" " * size)
    found = prune(repository=repository, policy=Policy(keep_last=1), dry_run=False)
    assert (found["kept"], found["removed"]) == (1, 1)
    assert ids(repository) == made[:1]
    prune(repository=repository, policy=Policy(keep_last=1), dry_run=False, now=NOW + timedelta(days=3))
    assert {entry.key.split("/")[2] for entry in repository.list("prod/app")} == {made[0]}


@pytest.mark.every_value
@pytest.mark.parametrize("event", ["fails", "fails on a fast clock", "is removed", "loses a file"])
def test_what_replaces_a_backup_no_longer_counts_when_it_is_to_be_deleted(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    [newest, *older] = add(repository, 0, 1, 2)
    add(repository, 0, 1, series=STAGING)
    folder, act = f"prod/app/{newest}", prune_module._Prune.act

    def late(self: prune_module._Prune) -> None:
        if event == "is removed":
            repository.delete([f"{folder}/manifest.json"])
        elif event == "loses a file":
            repository.delete([f"{folder}/app.dump"])
        else:
            at = datetime.now(timezone.utc) + timedelta(hours="clock" in event)
            write_verification(repository, read_manifest(repository, APP, newest), "restore", "fail", at)
        act(self)

    monkeypatch.setattr(prune_module._Prune, "act", late)
    found = prune(repository=repository, policy=Policy(keep_last=1), dry_run=False)
    assert set(ids(repository)) >= set(older)
    assert len(ids(repository, STAGING)) == 1, "the other series is pruned"
    assert found["removed"] == 1
    assert f"prod/app: kept backup {newest} no longer counts: it " in str(found["notes"])


def test_only_what_replaces_a_deleted_backup_is_read_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repository, 0, 1, 2)
    add(repository, 0, series=STAGING)
    list_folder, read, listed, seen = kept_backups.find_folder, kept_backups.read_evidence, list[str](), list[str]()

    def listing(one: Repository, series: Series, backup_id: str) -> Any:
        listed.append(series.path)
        return list_folder(one, series, backup_id)

    def counting(one: Repository, series: Series, backup_id: str, **options: Any) -> Any:
        seen.append(series.path)
        return read(one, series, backup_id, **options)

    monkeypatch.setattr(kept_backups, "find_folder", listing)
    monkeypatch.setattr(kept_backups, "read_evidence", counting)
    prune(repository=repository, policy=Policy(keep_last=1), dry_run=False)
    assert (seen, listed) == (["prod/app"] * 3, ["prod/app"] * 2), "the kept one is listed before any, and its series"


def test_the_tables_of_verifications_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of tables in each verification of each backup would fill the worker's memory."""
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    add(repository, 1, 2, 3, 4)
    read, kept = kept_backups.KeptBackups.read, list[int]()

    def live() -> int:
        gc.collect()
        # isinstance() would ask objects that load modules when they are asked.
        return sum(type(each) is Verification for each in gc.get_objects())

    def reading(self: kept_backups.KeptBackups, backups: Any) -> Any:
        before, found = live(), read(self, backups)
        assert len(found) == 4
        kept.append(live() - before)
        return found

    monkeypatch.setattr(kept_backups.KeptBackups, "read", reading)
    assert run(repository)["removed"] == 2
    assert kept == [0]
