"""Read the files of a backup (manifest, artifact, verifications) and compare them, to find its proven state.

The catalogue relies on file names, which anyone who can write files can choose. This module relies on the contents of
the files, and only on those that are valid:

- the manifest conforms to its schema, and is in the folder of the backup that it describes;
- every file of the artifact exists, by a listing or by its key, with the size that the manifest states;
- a verification conforms to its schema, agrees with its name, this backup and this artifact, is neither older than the
  backup nor from the future, and, if it is a pass, has the checks of its level;
- a pass of a dump that this package compressed includes reading it to its end, whatever its level.

Whatever violates this is ignored and listed. An invalid failure does not prove a failure, but the passes before it no
longer prove anything either: the backup is ``notproven`` until it passes again. A failure that is out of time may be
later than any pass, since a clock was wrong, so it revokes all of them.

None of this is a signature. Anyone who forges all files of a backup consistently has made a valid backup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryError, VerificationFailed
from airflow_pgbackup.interruption import THREADS, request_threads
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import PIN_FILE, Backup, find_folder, read_manifest
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.layout import LEVELS, MANIFEST_FILE, REPOSITORY_FILE, Series, VerificationName
from airflow_pgbackup.repository.manifest import MAX_BYTES, US, Manifest
from airflow_pgbackup.repository.state import standing
from airflow_pgbackup.repository.verification import Verification
from airflow_pgbackup.text import first_problem

MOST_VERIFICATIONS = 200
"""The newest verifications of a backup that are read: four years of weekly ones. Older ones are ignored."""
MOST_BYTES = 4 * MAX_BYTES
"""The limit for all verifications of one backup together."""
MOST_ASKED = 50
"""Files of an artifact that are asked for by their keys if a listing lacks them; if it lacks more, none is."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One backup, in the state that its files prove.

    :param backup: with the state, level, verifications and size that its files prove; ``problem`` says why that is
        less than its file names claim.
    :param manifest: None if it is invalid.
    :param verifications: the valid ones, oldest first.
    :param ignored: what is invalid and why, ``verification-….json: …``.
    :param entries: the files of its folder by their paths in it, as listed before any was read.
    """

    backup: Backup
    manifest: Manifest | None
    verifications: tuple[Verification, ...] = ()
    ignored: tuple[str, ...] = ()
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def shortcomings(self) -> list[str]:
        """Return what the file names claim wrongly, a line each."""
        return [*([self.backup.problem] if self.backup.problem else []), *self.ignored]

    def require_manifest(self) -> Manifest:
        """Return the manifest.

        :raises ManifestError: it is invalid.
        """
        if self.manifest is None:
            raise ManifestError(
                f"the manifest of backup {self.backup.name} cannot be read: {self.backup.problem}",
                hint="Choose another backup, or restore the artifact with PostgreSQL's own tools.",
            )
        return self.manifest

    def require_complete(self) -> Manifest:
        """Return the manifest of a backup with a complete artifact.

        :raises ManifestError: the manifest is invalid.
        :raises VerificationFailed: a file of the artifact is missing or has another size.
        """
        manifest = self.require_manifest()
        if self.backup.state == "incomplete":
            raise VerificationFailed(
                f"backup {manifest.name} is incomplete: {self.backup.problem}",
                hint="Choose another backup.",
            )
        return manifest


def is_complete(evidence: Evidence) -> bool:
    """Return whether the manifest is valid and every file of the artifact exists with its size."""
    return evidence.manifest is not None and evidence.backup.state != "incomplete"


def read_evidence(
    repository: Repository, series: Series, backup_id: str, *, now: datetime | None = None, limit: int = MOST_BYTES
) -> Evidence:
    """Return the evidence of one backup: list its folder, read its manifest and its verifications.

    :param limit: bytes of the manifest, and of all verifications together; a larger manifest is unreadable, and of the
        verifications the newest within the limit are read.
    :param now: with a time zone; by default the current time.
    :raises BackupNotFound: it does not exist, or disappeared during the operation.
    :raises RepositoryError: the store did not answer, which says nothing about the backup.
    """
    backup, entries = find_folder(repository, series, backup_id)
    size = entries[MANIFEST_FILE].size
    if limit < size <= MAX_BYTES:
        return unreadable(backup, f"its manifest has {size} bytes")
    if not 0 < size <= MAX_BYTES:
        return Evidence(replace(backup, problem=f"its manifest has {size} bytes"), None)
    try:
        manifest = read_manifest(repository, series, backup_id)
    except ManifestError as error:
        return unreadable(backup, error.message)
    now = now or datetime.now(timezone.utc)
    valid, invalid_failures, ignored = _read_verifications(repository, backup, entries, manifest, now, limit)
    names = tuple(sorted(valid))
    problem = missing_files(manifest, entries) and _confirm_missing(repository, manifest)
    if problem:
        state, level = "incomplete", None
    else:
        failures = (name for name in backup.verifications if name.result == "fail")
        out_of_time = {name: why for name in failures if (why := _out_of_time(name, manifest, now))}
        state, level, problem = _standing(names, invalid_failures, out_of_time)
    backup = replace(
        backup,
        state=state,
        level=level,
        verifications=names,
        size=manifest.artifact.size,
        problem=problem,
        labels=manifest.labels,
    )
    return Evidence(backup, manifest, tuple(valid[name] for name in names), tuple(ignored), entries)


def _standing(
    valid: Sequence[VerificationName],
    invalid_failures: Sequence[VerificationName],
    out_of_time: Mapping[VerificationName, str],
) -> tuple[str, str | None, str | None]:
    """Return state, level and problem of a complete backup.

    :param out_of_time: failures, and why their time is impossible.
    """
    state, level = standing([*valid, *invalid_failures])
    if state == "failed" and standing(valid)[0] == "failed":
        return state, level, None
    if out_of_time:
        newest = max(out_of_time)
        return "notproven", None, f"{newest.file}: {out_of_time[newest]}"
    if state == "failed":
        return "notproven", level, f"{max(invalid_failures).file} is invalid"
    return state, level, None


def read_each(
    repository: Repository,
    backups: Sequence[Backup],
    *,
    now: datetime | None = None,
    ahead: int = THREADS,
    limit: int = MOST_BYTES,
) -> Iterator[Evidence]:
    """Yield the evidence of backups in their order, reading it on demand. A backup that has disappeared is unreadable.

    :param ahead: how many to read at a time after the first, which is usually enough.
    :param limit: of each, see :func:`read_evidence`.
    :raises RepositoryError: the store did not answer.
    """

    def read(backup: Backup) -> Evidence:
        try:
            return read_evidence(repository, backup.series, backup.id, now=now, limit=limit)
        except BackupNotFound:
            return unreadable(backup, "it disappeared during the operation")

    if backups:
        yield read(backups[0])
    with request_threads() as pool:
        for start in range(1, len(backups), ahead):
            yield from list(pool.map(read, backups[start : start + ahead]))


def unreadable(backup: Backup, problem: str) -> Evidence:
    """Return the evidence of a backup whose manifest is invalid."""
    return Evidence(replace(backup, state="unreadable", level=None, problem=problem), None)


def may_count(backup: Backup, minimum_level: str | None) -> bool:
    """Return whether a listed backup claims a pass at that level or above; if not, reading it cannot prove one.

    :param minimum_level: None for any backup.
    """
    if minimum_level is None:
        return True
    enough = LEVELS[LEVELS.index(minimum_level) :]
    return any(seen.result == "pass" and seen.level in enough for seen in backup.verifications)


def parse_verification(data: bytes, name: VerificationName, manifest: Manifest) -> Verification:
    """Return a verification of this backup. Its time is compared only with its name.

    :raises ManifestError: it is invalid, for the reason in the message.
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
        # Whoever has no identity can check no more than the bytes of an encrypted artifact.
        unread = manifest.artifact.rewritten and not manifest.artifact.encryption
        if unread and not passed & {"archive", "restore"}:
            raise ManifestError(f"it did not read the dump, which {US} compressed")
        if verification.differences or any(check.result in ("fail", "notproven") for check in verification.checks):
            raise ManifestError("it passed, but one of its checks did not")
    return verification


def _read_verifications(
    repository: Repository,
    backup: Backup,
    entries: Mapping[str, Entry],
    manifest: Manifest,
    now: datetime,
    limit: int,
) -> tuple[dict[VerificationName, Verification], list[VerificationName], list[str]]:
    """Return the valid verifications, the failures within time that are invalid, and a line for each ignored file."""
    valid: dict[VerificationName, Verification] = {}
    invalid_failures: list[VerificationName] = []
    ignored: list[str] = []
    room, unread = limit, 0
    for number, name in enumerate(sorted(backup.verifications, reverse=True)):
        size = entries[name.file].size
        if why := _out_of_time(name, manifest, now):
            ignored.append(f"{name.file}: {why}")
            continue
        found: Verification | str | None  # or why it is ignored; None: it is not read
        if size > MAX_BYTES:
            found = f"it has {size} bytes"
        elif number >= MOST_VERIFICATIONS or size > room:
            found = None
            unread += 1
        else:
            room -= size
            found = _read_verification(repository, f"{backup.folder}/{name.file}", name, manifest, limit=size)
        if isinstance(found, Verification):
            valid[name] = found
            continue
        if found is not None:
            ignored.append(f"{name.file}: {found}")
        if name.result == "fail":
            invalid_failures.append(name)
    if unread:
        ignored.append(f"{unread} older verifications: too many, or too large, to be read")
    return valid, invalid_failures, ignored


def _read_verification(
    repository: Repository, key: str, name: VerificationName, manifest: Manifest, *, limit: int
) -> Verification | str:
    """Return a verification, or why it is invalid.

    :raises BackupNotFound: the backup was deleted.
    """
    try:
        return parse_verification(repository.read_bytes(key, limit=limit), name, manifest)
    except BackupNotFound as error:
        # Either the backup was deleted, manifest first, or only this file was, which prune does not do.
        read_manifest(repository, manifest.series, manifest.id)
        return error.message
    except ManifestError as error:
        return error.message


def _out_of_time(name: VerificationName, manifest: Manifest, now: datetime) -> str | None:
    if name.at > now + SKEW:
        return "it is from the future"
    if name.at < manifest.started_at - SKEW:
        return "it is from before the backup"
    return None


def _confirm_missing(repository: Repository, manifest: Manifest) -> str | None:
    """Return what :func:`missing_files` says of a new listing, after asking the store for the files that it lacks.

    The first listing may be from before this manifest, with files of another attempt that prune has removed since. One
    from a damaged index of a bucket lacks files that exist.
    """
    entries = dict(find_folder(repository, manifest.series, manifest.id)[1])
    folder = f"{manifest.series.path}/{manifest.id}/"
    keys = [key for file in manifest.artifact.files if (key := manifest.key(file)).removeprefix(folder) not in entries]
    if len(keys) <= MOST_ASKED:
        for key in keys:
            try:
                entry = repository.stat(key)
            except RepositoryError:
                if repository.local_path(REPOSITORY_FILE) is None:
                    raise
                break  # a symbolic link, which the listing of a directory leaves out
            if entry is None:
                break
            entries[key.removeprefix(folder)] = entry
    return missing_files(manifest, entries)


def artifact_entry(entries: Mapping[str, Entry], path: str) -> Entry | None:
    """Return the entry of a file of the artifact; None if it is missing, or has the name of one of our own files.

    :param entries: of the backup's folder, by their paths in it.
    """
    return None if path in (MANIFEST_FILE, PIN_FILE) or VerificationName.parse(path) else entries.get(path)


def missing_files(manifest: Manifest, entries: Mapping[str, Entry]) -> str | None:
    """Summarize which files of the artifact are missing or have another size; None if there are none."""
    folder = f"{manifest.series.path}/{manifest.id}/"
    wrong = []
    for file in manifest.artifact.files:
        path = manifest.key(file).removeprefix(folder)
        entry = artifact_entry(entries, path)
        if entry is None:
            wrong.append(f"{path} is missing")
        elif entry.size != file.size:
            wrong.append(f"{path} has {entry.size} bytes, expected {file.size}")
    return first_problem(wrong) if wrong else None
