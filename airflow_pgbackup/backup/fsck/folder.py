"""Check one backup's folder: its manifest, its artifact by names and sizes, its verifications, its pin, and other
files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_pgbackup.backup.fsck.findings import Faults
from airflow_pgbackup.backup.fsck.inventory import Folder
from airflow_pgbackup.backup.fsck.verifications import check_verification
from airflow_pgbackup.backup.removal import is_abandoned
from airflow_pgbackup.errors import ManifestError
from airflow_pgbackup.quantities import human_age, human_bytes
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.catalogue import PIN_FILE, Leftover
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.evidence import artifact_entry
from airflow_pgbackup.repository.json_document import MAX_BYTES, excess
from airflow_pgbackup.repository.layout import MANIFEST_FILE, VerificationName, attempt_of, backup_folder, is_ours
from airflow_pgbackup.repository.manifest import FORMAT_VERSION, FileDigest, Manifest

_RESTORE_BY_HAND = "the artifact itself may still restore with PostgreSQL's own tools"
_REMOVE = "Check it, and remove it by hand: fsck and prune remove only files that are certainly ours."


@dataclass(frozen=True)
class FolderContext:
    """The context in which every folder is checked.

    :param uuid: the repository's; None where it is not known.
    :param grace: a leftover that has grown within it may belong to a running dump.
    """

    repository: Repository
    uuid: str | None
    now: datetime
    grace: timedelta
    cancel: CancelFlag


@dataclass
class CheckedFolder:
    """What the check of one folder found.

    :ivar files: files of the artifact that exist with the right size, with their entries, by key.
    :ivar uuid: the repository that the manifest names.
    :ivar system_identifier: of the server that it names.
    """

    findings: Faults = field(default_factory=Faults)
    files: dict[str, tuple[FileDigest, Entry]] = field(default_factory=dict)
    uuid: str | None = None
    system_identifier: str | None = None


def check_folder(folder: Folder, context: FolderContext) -> CheckedFolder:
    """Check what a listing shows of a folder, and read its small files.

    :raises BackupNotFound: a file of it disappeared since it was listed.
    :raises RepositoryError: a file of it cannot be read.
    """
    checked = CheckedFolder()
    if not folder.is_backup:
        _check_incomplete(folder, context, checked.findings)
        _check_special(folder, set(), checked.findings)
        return checked
    manifest = _read_manifest(folder, context, checked.findings)
    if manifest is None:
        _check_special(folder, set(), checked.findings)
        return checked
    checked.uuid = manifest.repository
    checked.system_identifier = manifest.source.system_identifier
    expected = dict(_expected(folder, manifest))
    _check_artifact(folder, expected, checked)
    _check_special(folder, set(expected), checked.findings)
    _check_others(folder, manifest, expected, context, checked.findings)
    for path in sorted(folder.entries):
        if (name := VerificationName.parse(path)) is not None and path not in expected:
            context.cancel.check()
            check_verification(context.repository, folder, name, manifest, context.now, checked.findings)
    return checked


def _read_manifest(folder: Folder, context: FolderContext, findings: Faults) -> Manifest | None:
    key, entry = f"{folder.key}/{MANIFEST_FILE}", folder.entries[MANIFEST_FILE]
    hint = f"Restore the manifest from a copy of the repository; {_RESTORE_BY_HAND}."
    if not 0 < entry.size <= MAX_BYTES:
        findings.error("manifest", key, f"has {entry.size:,} bytes, expected 1 to {MAX_BYTES:,}", hint)
        return None
    data = context.repository.read_bytes(key, limit=MAX_BYTES)
    try:
        manifest = Manifest.from_json(data)
    except ManifestError as error:
        if is_newer(data):
            hint = f"Upgrade airflow-pgbackup; {_RESTORE_BY_HAND}."
            findings.error("manifest_newer", key, error.message, hint)
        else:
            findings.error("manifest", key, error.message, hint)
        return None
    if (manifest.series, manifest.id) != (folder.series, folder.id):
        findings.error(
            "manifest_place",
            key,
            f"describes backup {manifest.name}",
            f"Move the folder to {backup_folder(manifest.series, manifest.id)}, if that backup is not there.",
        )
        return None
    if context.uuid not in (None, manifest.repository):
        findings.warning(
            "manifest_repository",
            key,
            f"was written in repository {manifest.repository}; this one is {context.uuid}",
            "It restores as it is. To copy backups, use pgbackup upload, which writes a manifest for the copy.",
        )
    if manifest.started_at > context.now + SKEW:
        findings.warning(
            "clock",
            folder.key,
            f"starts in the future, at {manifest.started_at.isoformat()}",
            "Set the clock of the worker that made it; until then retention and freshness ignore the backup.",
        )
    return manifest


def _expected(folder: Folder, manifest: Manifest) -> Iterator[tuple[str, FileDigest]]:
    """Yield the path in the folder of each file of the artifact."""
    for file in manifest.artifact.files:
        path = manifest.key(file).removeprefix(f"{folder.key}/")
        yield path, file


def _check_artifact(folder: Folder, expected: dict[str, FileDigest], checked: CheckedFolder) -> None:
    hint = "Restore another backup of the series, and check the repository's storage for faults."
    for path, file in expected.items():
        key = f"{folder.key}/{path}"
        if path in folder.special:
            continue  # reported as such
        entry = artifact_entry(folder.entries, path)
        if entry is None:
            checked.findings.error("artifact_missing", key, f"is missing; expected {file.size:,} bytes", hint)
        elif entry.size != file.size:
            checked.findings.error("artifact_size", key, f"has {entry.size:,} bytes, expected {file.size:,}", hint)
        else:
            checked.files[key] = (file, entry)


def _check_special(folder: Folder, expected: set[str], findings: Faults) -> None:
    """Report what is not a regular file; a local repository follows no links."""
    artifact = _with_parents(expected)
    for path in sorted(folder.special):
        key = f"{folder.key}/{path}"
        if path == PIN_FILE:
            _pin(key, findings)
        elif path == MANIFEST_FILE or VerificationName.parse(path) or path in artifact:
            findings.error(
                "not_regular",
                key,
                "is not a regular file",
                "Put the file itself there: a repository follows no links.",
            )
        else:
            findings.warning("foreign_file", key, "is not a regular file, or has a name that is not ours", _REMOVE)


def _check_others(
    folder: Folder, manifest: Manifest, expected: dict[str, FileDigest], context: FolderContext, findings: Faults
) -> None:
    """Report what belongs neither to the artifact nor to its documents."""
    prefix = manifest.artifact_key.removeprefix(f"{folder.key}/") + "/"
    attempts: dict[str, list[Entry]] = {}
    foreign: list[str] = []
    for path, entry in sorted(folder.entries.items()):
        if path in expected or path in (MANIFEST_FILE, PIN_FILE) or VerificationName.parse(path):
            continue
        attempt = attempt_of(path)
        if is_ours(path) and attempt is not None and attempt != manifest.artifact.attempt:
            attempts.setdefault(attempt, []).append(entry)
        elif path.startswith(f"{PIN_FILE}/"):
            _pin(f"{folder.key}/{PIN_FILE}", findings)
        elif manifest.artifact.format == "directory" and path.startswith(prefix):
            findings.error(
                "artifact_extra",
                entry.key,
                "is not a file of this dump",
                "Find out what put it there, and remove it: no verification passes beside it.",
            )
        else:
            foreign.append(path)
    _check_foreign(folder, foreign, findings)
    for attempt, entries in attempts.items():
        what = Leftover(
            series=folder.series,
            id=folder.id,
            size=sum(entry.size for entry in entries),
            modified=max(entry.modified for entry in entries),
            attempt=attempt,
        )
        age, size = _age(what.modified, context), human_bytes(what.size)
        if context.now - what.modified < context.grace:
            findings.note("running", what.folder, f"another attempt, {size}, grew {age} ago", "It may be running.")
        else:
            message = f"an attempt that did not become the backup, {size}, untouched for {age}"
            findings.leftover("attempt", message, what, "the files of the attempt are removed")


def _check_foreign(folder: Folder, paths: Sequence[str], findings: Faults) -> None:
    """Report files that are not of this backup; of another backup that was moved into its folder, only the manifest."""
    moved = {above for path in paths if (above := path.removesuffix(f"/{MANIFEST_FILE}")) != path}
    for above in sorted(moved):
        findings.error(
            "manifest_place",
            f"{folder.key}/{above}/{MANIFEST_FILE}",
            "a manifest in the folder of another backup",
            "Move its folder back to SERVER/DATABASE/ID; the manifest names them as series and id.",
        )
    for path in paths:
        if moved.isdisjoint(_with_parents({path})):
            findings.warning("foreign_file", f"{folder.key}/{path}", "is not a file of this backup", _REMOVE)


def _check_incomplete(folder: Folder, context: FolderContext, findings: Faults) -> None:
    entries = {path: entry for path, entry in folder.entries.items() if is_ours(path)}
    _check_foreign(folder, sorted(folder.entries.keys() - entries.keys()), findings)
    if not entries:
        return  # nothing that a repair removes
    what = Leftover(
        series=folder.series,
        id=folder.id,
        size=sum(entry.size for entry in entries.values()),
        modified=max(entry.modified for entry in entries.values()),
    )
    age, size = _age(what.modified, context), human_bytes(what.size)
    data = any(path != PIN_FILE and not VerificationName.parse(path) for path in entries)
    if PIN_FILE in entries and data:
        findings.warning(
            "incomplete",
            folder.key,
            f"no manifest, {size}, untouched for {age}; pinned",
            "Look whether the artifact can be rescued; unpin the folder and prune removes it.",
        )
    elif MANIFEST_FILE in folder.special:
        return  # whatever stands there instead of a manifest is reported; a person puts the manifest back
    elif context.now - what.modified < context.grace:
        findings.note("running", folder.key, f"no manifest, {size}, grew {age} ago", "A dump may be running.")
    elif not is_abandoned(context.repository, what):
        findings.error(
            "manifest_unlisted",
            f"{folder.key}/{MANIFEST_FILE}",
            "exists, but the store does not list it, or it cannot be read",
            "Check and repair the index of the store: no command finds the backup until it is listed.",
        )
    else:
        message = f"no manifest, {size}, untouched for {age}"
        findings.leftover("incomplete", message, what, "the folder is removed")


def _with_parents(paths: set[str]) -> set[str]:
    """Return the paths and the directories above them."""
    return {path[:end] for path in paths for end in (*(m.start() for m in re.finditer("/", path)), len(path))}


def _pin(key: str, findings: Faults) -> None:
    findings.error(
        "pin",
        key,
        "is not a regular file, so prune ignores it as a pin",
        "Remove it, and pin the backup again.",
    )


def is_newer(data: bytes) -> bool:
    """Return whether a document claims a newer major version than this release reads."""
    if excess(data):
        return False
    try:
        version = str(json.loads(data).get("format_version", ""))
        return int(version.partition(".")[0][:9]) > int(FORMAT_VERSION.partition(".")[0])
    except (ValueError, AttributeError, RecursionError):
        return False


def _age(moment: datetime, context: FolderContext) -> str:
    return human_age(context.now - moment)
