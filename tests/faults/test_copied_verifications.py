"""A copy of a backup, by upload or rewrap, is interrupted, or its source holds an invalid file: no copy looks better
than its source."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyrage
import pytest
from honest import write_backup, write_verification

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.rewrap import rewrap
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import BackupNotFound, RepositoryError, VerificationFailed
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.layout import Series, VerificationName, backup_folder
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.settings import Settings

APP = Series("prod", "app")
TO = Settings(recipients=(str(pyrage.x25519.Identity.generate().to_public()),))
BY = ["upload", "rewrap"]


class Copying:
    """A backup, and a verb that copies it.

    :ivar lines: what the verb has logged.
    """

    def __init__(self, folder: Path, verb: str, looks: Sequence[str]) -> None:
        self.lines: list[str] = []
        self.verb = verb
        self.source = self.destination = _repository(folder / "source")
        if verb == "upload":
            self.destination = _repository(folder / "destination")
        self.id = write_backup(self.source, APP, datetime.now(timezone.utc) - timedelta(days=1), looks=looks).id

    def run(self, *, minimum_level: str | None = None) -> dict[str, object]:
        context = RunContext(settings=TO, log=self.lines.append)
        reference = reference_of(self.source, self.before())
        if self.verb == "rewrap":
            return rewrap(reference=reference, repository=self.source, context=context)
        return upload(
            reference=reference,
            source=self.source,
            destination=self.destination,
            minimum_level=minimum_level,
            context=context,
        )

    def before(self) -> Evidence:
        return read_evidence(self.source, APP, self.id)

    def copy(self) -> Evidence:
        """The one copy."""
        copies = [
            backup
            for backup in read_catalogue(self.destination).backups
            if self.verb == "upload" or backup.id != self.id
        ]
        assert len(copies) == 1
        return read_evidence(self.destination, APP, copies[0].id)

    def spoil(self, number: int, data: bytes = b"{") -> str:
        """Overwrite a verification. :return: the name of its file."""
        name = self.before().backup.verifications[number].file
        path = self.source.local_path(f"{self.before().backup.folder}/{name}")
        assert path is not None
        path.write_bytes(data)
        return name

    def remove_source(self) -> None:
        self.source.delete([entry.key for entry in self.source.list(backup_folder(APP, self.id))])


def _repository(folder: Path) -> LocalRepository:
    made = LocalRepository(folder)
    made.init()
    return made


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Copying]:
    def made(verb: str, *looks: str) -> Copying:
        return Copying(tmp_path, verb, looks)

    return made


def stands(evidence: Evidence) -> tuple[str, str | None]:
    return evidence.backup.state, evidence.backup.level


def is_verification(key: str) -> bool:
    return VerificationName.parse(key.rpartition("/")[2]) is not None


@pytest.mark.parametrize("verb", BY)
@pytest.mark.parametrize(
    ("looks", "after_first"),
    [
        (("archive-pass", "restore-fail"), ("failed", None)),
        (("archive-pass", "restore-pass", "archive-fail"), ("failed", None)),
        (("restore-fail", "archive-pass", "restore-pass"), ("failed", None)),
        (("archive-pass", "restore-pass"), ("verified", "archive")),
    ],
)
def test_killed_between_two_verifications(
    make: Callable[..., Copying],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    looks: Sequence[str],
    after_first: tuple[str, str | None],
) -> None:
    copying = make(verb, *looks)
    write, written = copying.destination.write_bytes, list[str]()

    def write_once(key: str, data: bytes, **options: Any) -> Any:
        if is_verification(key):
            if written:
                raise KeyboardInterrupt
            written.append(key)
        return write(key, data, **options)

    with monkeypatch.context() as patched:
        patched.setattr(copying.destination, "write_bytes", write_once)
        with pytest.raises(KeyboardInterrupt):
            copying.run()
    assert stands(copying.copy()) == after_first
    copying.run()
    assert stands(copying.copy()) == stands(copying.before()), "a retry writes the others"


@pytest.mark.parametrize("verb", BY)
@pytest.mark.parametrize(
    ("looks", "invalid", "state"),
    [
        (("archive-pass", "restore-fail"), 1, ("notproven", None)),
        (("restore-pass", "archive-fail", "archive-pass"), 1, ("verified", "archive")),
    ],
)
def test_an_invalid_failure(
    make: Callable[..., Copying], verb: str, looks: Sequence[str], invalid: int, state: tuple[str, str | None]
) -> None:
    copying = make(verb, *looks)
    name = copying.spoil(invalid)
    assert stands(copying.before()) == state
    assert copying.run()["verified"] is None
    assert stands(copying.copy()) == ("written", None)
    assert any(line.startswith(f"warning: skipped {name}: ") for line in copying.lines)
    assert "warning: skipped all passes, since a failure that cannot be read may revoke them" in copying.lines


@pytest.mark.parametrize("verb", BY)
@pytest.mark.parametrize(
    ("looks", "invalid", "state"),
    [
        (("archive-fail", "restore-pass"), 0, ("verified", "restore")),  # revoked anyway
        (("archive-pass", "archive-fail", "restore-fail"), 1, ("failed", None)),
        (("archive-pass", "restore-pass"), 1, ("verified", "archive")),
    ],
)
def test_what_an_invalid_file_does_not_change_is_copied(
    make: Callable[..., Copying], verb: str, looks: Sequence[str], invalid: int, state: tuple[str, str | None]
) -> None:
    copying = make(verb, *looks)
    copying.spoil(invalid)
    copying.run()
    assert stands(copying.copy()) == stands(copying.before()) == state


@pytest.mark.parametrize("removed", ["archive-pass", "restore-fail"])
def test_an_upload_whose_source_is_removed_before_its_verifications_are_read(
    make: Callable[..., Copying], monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    copying = make("upload", "archive-pass", "restore-fail")
    read = copying.source.read_bytes

    def read_bytes(key: str, **options: Any) -> bytes:
        is_copied = any(entry.key.endswith("manifest.json") for entry in copying.destination.list())
        if is_copied and key.endswith(f"{removed}.json"):
            copying.remove_source()
        return read(key, **options)

    monkeypatch.setattr(copying.source, "read_bytes", read_bytes)
    with pytest.raises(BackupNotFound, match=r"was removed from .* during the operation"):
        copying.run()
    assert stands(copying.copy()) == ("written", None)


def test_an_upload_during_which_a_failure_is_overwritten(
    make: Callable[..., Copying], monkeypatch: pytest.MonkeyPatch
) -> None:
    copying = make("upload", "archive-pass", "restore-fail")
    read, reads = copying.source.read_bytes, list[str]()

    def reading(key: str, **options: Any) -> bytes:
        is_copied = any(entry.key.endswith("manifest.json") for entry in copying.destination.list())
        if is_copied and key.endswith("restore-fail.json"):
            reads.append(key)
            if len(reads) == 2:  # after it was found valid
                copying.spoil(1)
        return read(key, **options)

    with monkeypatch.context() as patched:
        patched.setattr(copying.source, "read_bytes", reading)
        with pytest.raises(RepositoryError, match=r"restore-fail\.json changed during the operation"):
            copying.run()
    assert stands(copying.copy()) == ("written", None)
    copying.run()
    assert stands(copying.copy()) == ("written", None), "the source is not proven"


@pytest.mark.parametrize("verb", BY)
@pytest.mark.parametrize("when", ["while the artifact is copied", "while the verifications are copied"])
@pytest.mark.parametrize("ahead", [timedelta(), timedelta(hours=1)])
def test_the_source_fails_meanwhile(
    make: Callable[..., Copying], monkeypatch: pytest.MonkeyPatch, verb: str, when: str, ahead: timedelta
) -> None:
    """A failure of a clock that is ahead cannot be copied, so its copy has no passes either."""
    copying = make(verb, "archive-pass", "restore-pass")
    manifest = copying.before().require_manifest()
    write, failed = copying.destination.write_bytes, list[str]()

    def writing(key: str, data: bytes, **options: Any) -> Any:
        made = write(key, data, **options)
        of_copy = verb == "upload" or copying.id not in key
        is_time = is_verification(key) if "verifications" in when else key.endswith("manifest.json")
        if of_copy and is_time and not failed:
            failed.append(key)
            at = datetime.now(timezone.utc) + ahead
            write_verification(copying.source, manifest, "restore", "fail", at)
        return made

    with monkeypatch.context() as patched:
        patched.setattr(copying.destination, "write_bytes", writing)
        copying.run()
    assert failed
    assert stands(copying.copy()) == (("written", None) if ahead else ("failed", None))


@pytest.mark.parametrize("verb", BY)
def test_the_source_fails_while_what_came_meanwhile_is_copied(
    make: Callable[..., Copying], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    copying = make(verb, "archive-pass")
    manifest = copying.before().require_manifest()
    write, coming = copying.destination.write_bytes, ["restore-pass", "archive-pass", "archive-fail"]

    def writing(key: str, data: bytes, **options: Any) -> Any:
        made = write(key, data, **options)
        if is_verification(key) and (verb == "upload" or copying.id not in key) and coming:
            level, result = coming.pop(0).split("-")
            write_verification(copying.source, manifest, level, result, datetime.now(timezone.utc))
        return made

    with monkeypatch.context() as patched:
        patched.setattr(copying.destination, "write_bytes", writing)
        reference = copying.run()
    assert coming == []
    assert (stands(copying.copy()), reference["verified"]) == (("failed", None), None)


def test_an_upload_of_a_verified_backup_that_fails_meanwhile(
    make: Callable[..., Copying], monkeypatch: pytest.MonkeyPatch
) -> None:
    copying = make("upload", "archive-pass")
    probe, manifest = copying.destination.probe, copying.before().require_manifest()

    def probing(*arguments: Any) -> bool:
        write_verification(copying.source, manifest, "archive", "fail", datetime.now(timezone.utc))
        return probe(*arguments)

    monkeypatch.setattr(copying.destination, "probe", probing)
    with pytest.raises(VerificationFailed, match=r"failed verification, .* HINT: Choose another backup"):
        copying.run(minimum_level="archive")
    assert stands(copying.copy()) == ("failed", None)


@pytest.mark.parametrize("verb", BY)
def test_a_retry_copies_a_failure_that_came_after_the_copy(make: Callable[..., Copying], verb: str) -> None:
    """The failure refuses the upload, but first reaches the copy that exists."""
    copying = make(verb, "archive-pass")
    copying.run(minimum_level="archive")
    assert stands(copying.copy()) == ("verified", "archive")
    write_verification(
        copying.source, copying.before().require_manifest(), "archive", "fail", datetime.now(timezone.utc)
    )
    if verb == "upload":
        with pytest.raises(VerificationFailed, match=r"failed verification, .* HINT: Choose another backup"):
            copying.run(minimum_level="archive")
    else:
        copying.run()
    assert stands(copying.copy()) == ("failed", None)


@pytest.mark.parametrize("verb", BY)
def test_a_copy_that_failed_by_itself_gets_no_pass_of_its_source(make: Callable[..., Copying], verb: str) -> None:
    copying = make(verb, "archive-pass")
    copying.run()
    old, new = copying.before().require_manifest(), copying.copy().require_manifest()
    failure = write_verification(copying.destination, new, "archive", "fail", datetime.now(timezone.utc))
    write_verification(copying.source, old, "restore", "pass", datetime.now(timezone.utc))
    for _ in range(2):
        with pytest.raises(VerificationFailed, match=rf"is a copy that failed .*: {Path(failure).name}. HINT: Delete"):
            copying.run(minimum_level="archive")
        assert stands(copying.copy()) == ("failed", None)
    write_verification(copying.destination, new, "archive", "pass", datetime.now(timezone.utc))
    assert copying.run(minimum_level="archive")["verified"] == "restore"


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(b"XXXXX"), lambda path: path.write_bytes(b"1"), lambda path: None, os.mkfifo],
    ids=["changed", "cut", "lost", "replaced"],
)
def test_a_sound_copy_stays_verified_when_its_source_is_damaged(
    make: Callable[..., Copying], damage: Callable[[Path], object]
) -> None:
    copying = make("upload", "archive-pass")
    copying.run(minimum_level="archive")
    reference = reference_of(copying.source, copying.before())
    path = copying.source.local_path(copying.before().require_manifest().artifact_key)
    assert path is not None
    sound = path.read_bytes()
    path.unlink()
    damage(path)
    with pytest.raises(VerificationFailed, match=r"mismatch|missing|not a regular file"):
        verify(reference=reference, repository=copying.source, level="integrity")
    path.unlink(missing_ok=True)
    path.write_bytes(sound)  # the disk is back
    assert stands(copying.before()) == ("failed", None)
    with pytest.raises(VerificationFailed):
        copying.run(minimum_level="archive")
    assert stands(copying.copy()) == ("verified", "archive")


@pytest.mark.parametrize("verb", BY)
def test_a_copy_that_lost_its_file_is_not_made_again(make: Callable[..., Copying], verb: str) -> None:
    copying = make(verb, "archive-pass")
    copying.run()
    before = list(copying.destination.list())
    lost = copying.copy().require_manifest().artifact_key
    copying.destination.delete([lost])
    with pytest.raises(RepositoryError, match=r"is incomplete: .* is missing\. HINT: Delete .* again"):
        copying.run()
    assert list(copying.destination.list()) == [entry for entry in before if entry.key != lost]
