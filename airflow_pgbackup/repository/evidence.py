"""What a backup's own files prove: manifest, artifact and verifications, read and compared with each other.

The catalogue believes file names, which anybody who may put files can make. Here a backup counts for what its files
say, as long as they are what we write:

- the manifest keeps its schema, and lies in the folder of the backup that it describes;
- every file of the artifact is there, in the size that the manifest gives;
- a verification keeps its schema, says what its name says, is about this backup and this artifact, is neither from
  before the backup nor from the future, and a pass has the checks of its level;
- a pass of a dump that we compressed has read it to its end, whatever its level.

What is not so is ignored, and named. A failure that cannot be believed is not proof of a failure, and the passes
before it are proof of nothing any more: the backup is ``notproven`` until it passes again.

Nothing here is a signature. Somebody who forges a whole backup with all that belongs to it has made one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from airflow_pgbackup.errors import BackupNotFound, ManifestError, VerificationFailed
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE, THREADS, Backup, find_folder, read_manifest
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import LEVELS, MANIFEST_FILE, Series, VerificationName
from airflow_pgbackup.repository.manifest import MAX_BYTES, US, Manifest
from airflow_pgbackup.repository.state import standing
from airflow_pgbackup.repository.verification import Verification

SKEW = timedelta(minutes=5)
"""How far the clocks of two workers may disagree."""
MOST_VERIFICATIONS = 200
"""Of one backup, the newest; a weekly look for four years. Older ones are ignored."""
MOST_BYTES = 4 * MAX_BYTES
"""Of the verifications of one backup together."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One backup, believed.

    :param backup: with the state, level, verifications and size that its files prove; ``problem`` says why that is
        less than its file names claim.
    :param manifest: None where it cannot be believed.
    :param verifications: those that can be believed, oldest first.
    :param ignored: what was not believed and why, ``verification-….json: …``.
    """

    backup: Backup
    manifest: Manifest | None
    verifications: tuple[Verification, ...] = ()
    ignored: tuple[str, ...] = ()

    def require_manifest(self) -> Manifest:
        """:raises ManifestError: it cannot be believed."""
        if self.manifest is None:
            raise ManifestError(
                f"the manifest of backup {self.backup.series}/{self.backup.id} cannot be read: {self.backup.problem}",
                hint="choose another backup; the artifact itself may still restore with PostgreSQL's own tools",
            )
        return self.manifest

    def require_whole(self) -> Manifest:
        """:raises ManifestError: see above. :raises VerificationFailed: the artifact is not there in its size."""
        manifest = self.require_manifest()
        if self.backup.state == "incomplete":
            raise VerificationFailed(
                f"backup {manifest.series}/{manifest.id} is incomplete: {self.backup.problem}",
                hint="choose another backup",
            )
        return manifest


def is_whole(evidence: Evidence) -> bool:
    """Whether its artifact is there, whatever else is known of it."""
    return evidence.manifest is not None and evidence.backup.state != "incomplete"


def read_evidence(repository: Repository, series: Series, backup_id: str, *, now: datetime | None = None) -> Evidence:
    """Read one backup: a listing of its folder, its manifest, its verifications.

    :param now: aware, by default the clock's.
    :raises BackupNotFound: there is none, or it disappeared during the operation.
    :raises RepositoryError: the store did not answer, which says nothing about the backup.
    """
    backup, entries = find_folder(repository, series, backup_id)
    size = entries[MANIFEST_FILE].size
    if not 0 < size <= MAX_BYTES:
        return Evidence(replace(backup, problem=f"its manifest has {size} bytes"), None)
    try:
        manifest = read_manifest(repository, series, backup_id)
    except ManifestError as error:
        return unreadable(backup, error.message)
    believed, doubted, ignored = _read_verifications(
        repository, backup, entries, manifest, now or datetime.now(timezone.utc)
    )
    names = tuple(sorted(believed))
    # A listing from before this manifest may show what another attempt wrote, and prune has removed meanwhile.
    problem = _missing(manifest, entries) and _missing(manifest, find_folder(repository, series, backup_id)[1])
    if problem:
        state, level = "incomplete", None
    else:
        state, level = standing([*names, *doubted])
        if state == "failed" and standing(names)[0] != "failed":
            state, problem = "notproven", f"{max(doubted).file} cannot be believed"
    backup = replace(
        backup,
        state=state,
        level=level,
        verifications=names,
        size=manifest.artifact.size,
        problem=problem,
        labels=manifest.labels,
    )
    return Evidence(backup, manifest, tuple(believed[name] for name in names), tuple(ignored))


def read_each(
    repository: Repository, backups: Sequence[Backup], *, now: datetime | None = None, ahead: int = THREADS
) -> Iterator[Evidence]:
    """The evidence of these, in their order, read when it is asked for. One that disappeared meanwhile is unreadable.

    :param ahead: after the first, which mostly is enough, so many are read at a time.
    :raises RepositoryError: the store did not answer.
    """

    def read(backup: Backup) -> Evidence:
        try:
            return read_evidence(repository, backup.series, backup.id, now=now)
        except BackupNotFound:
            return unreadable(backup, "it disappeared meanwhile")

    if backups:
        yield read(backups[0])
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(1, len(backups), ahead):
            yield from list(pool.map(read, backups[start : start + ahead]))


def unreadable(backup: Backup, problem: str) -> Evidence:
    return Evidence(replace(backup, state="unreadable", level=None, problem=problem), None)


def may_count(backup: Backup, minimum_level: str | None) -> bool:
    """Whether a listed backup claims a pass at that level or above: if not, reading it can prove none.

    :param minimum_level: None: anything may count.
    """
    if minimum_level is None:
        return True
    enough = LEVELS[LEVELS.index(minimum_level) :]
    return any(seen.result == "pass" and seen.level in enough for seen in backup.verifications)


def parse_verification(data: bytes, name: VerificationName, manifest: Manifest) -> Verification:
    """A verification of this backup, of which only its time is not compared with anything but its name.

    :raises ManifestError: it cannot be believed; says why.
    """
    verification = Verification.from_json(data)
    if verification.backup_id != manifest.id:
        raise ManifestError(f"it is about backup {verification.backup_id}")
    if verification.artifact_sha256 not in (None, manifest.artifact.sha256):
        raise ManifestError(f"it is about an artifact with sha256 {verification.artifact_sha256}")
    if (verification.finished_at, verification.level, verification.result) != (name.at, name.level, name.result):
        raise ManifestError(
            f"it says {verification.level} {verification.result} at {verification.finished_at.isoformat()}"
        )
    if verification.result == "pass":
        passed = {check.name for check in verification.checks if check.result == "pass"}
        if lacking := {"integrity", verification.level} - passed:
            raise ManifestError(f"it passed without a check of {' and '.join(sorted(lacking))}")
        if manifest.artifact.rewritten and not passed & {"archive", "restore"}:
            raise ManifestError(f"it did not read the dump, which {US} compressed")
        if verification.differences or any(check.result in ("fail", "notproven") for check in verification.checks):
            raise ManifestError("it passed with a check that did not")
    return verification


def _read_verifications(
    repository: Repository, backup: Backup, entries: Mapping[str, Entry], manifest: Manifest, now: datetime
) -> tuple[dict[VerificationName, Verification], list[VerificationName], list[str]]:
    """Those to believe, the failures that cannot be, and why each that is ignored is."""
    believed: dict[VerificationName, Verification] = {}
    doubted: list[VerificationName] = []
    ignored: list[str] = []
    room, unread = MOST_BYTES, 0
    for number, name in enumerate(sorted(backup.verifications, reverse=True)):
        size = entries[name.file].size
        if why := _out_of_time(name, manifest, now):
            ignored.append(f"{name.file}: {why}")
            continue
        if size > MAX_BYTES:
            ignored.append(f"{name.file}: it has {size} bytes")
        elif number >= MOST_VERIFICATIONS or size > room:
            unread += 1
        else:
            room -= size
            try:
                data = repository.read_bytes(f"{backup.folder}/{name.file}", limit=size)
                believed[name] = parse_verification(data, name, manifest)
                continue
            except BackupNotFound as error:
                # With its backup, whose manifest went before it; or alone, and then it was not prune.
                read_manifest(repository, manifest.series, manifest.id)
                ignored.append(f"{name.file}: {error.message}")
            except ManifestError as error:
                ignored.append(f"{name.file}: {error.message}")
        if name.result == "fail":
            doubted.append(name)
    if unread:
        ignored.append(f"{unread} older verifications: too many, or too large, to be read")
    return believed, doubted, ignored


def _out_of_time(name: VerificationName, manifest: Manifest, now: datetime) -> str | None:
    if name.at > now + SKEW:
        return "it is from the future"
    if name.at < manifest.started_at - SKEW:
        return "it is from before the backup"
    return None


def _missing(manifest: Manifest, entries: Mapping[str, Entry]) -> str | None:
    """What of the artifact is not there, or not in its size; None where all is."""
    folder = f"{manifest.series.path}/{manifest.id}/"
    wrong = []
    for file in manifest.artifact.files:
        path = manifest.key(file).removeprefix(folder)
        entry = None if path in (MANIFEST_FILE, PIN_FILE) or VerificationName.parse(path) else entries.get(path)
        if entry is None:
            wrong.append(f"{path} is missing")
        elif entry.size != file.size:
            wrong.append(f"{path} has {entry.size} bytes, expected {file.size}")
    return f"{wrong[0]} (and {len(wrong) - 1} more)" if len(wrong) > 1 else wrong[0] if wrong else None
