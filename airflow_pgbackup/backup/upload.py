"""upload: copy a backup from one repository into another, manifest last.

The bytes are compared with the manifest's digests on their way; where the store copies by itself, the very version that
it was told to copy is read and compared before the manifest makes a backup of the copy. What exists already and is
whole stays as it is, so a task may run again; what an earlier try left half-way is taken away and written again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from airflow_pgbackup.backup.artifact import download
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.progress import Progress, human_bytes, human_seconds
from airflow_pgbackup.backup.reference import load_evidence, make_reference, take_back
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    ConfigurationError,
    ManifestError,
    RepositoryError,
    VerificationFailed,
)
from airflow_pgbackup.postgres.process import Cancel
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Entry, Repository
from airflow_pgbackup.repository.evidence import Evidence, parse_verification, read_evidence
from airflow_pgbackup.repository.layout import VerificationName
from airflow_pgbackup.repository.manifest import MAX_BYTES, FileDigest
from airflow_pgbackup.settings import Settings

_CHUNK = 1 << 20


def upload(
    *,
    reference: Mapping[str, object],
    source: Repository,
    destination: Repository,
    minimum_level: str | None = "archive",
    cancel: Cancel | None = None,
    log: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Copy a backup.

    :param minimum_level: refuse what its own files do not prove to be verified at this level or a higher one; None
        takes anything that is whole.
    :return: the reference to the copy.
    :raises VerificationFailed: not verified as asked, not whole, or the bytes are not those of the manifest (nothing is
        visible).
    :raises AlreadyExists: another backup with that id is there.
    :raises RepositoryError: either side.
    """
    if minimum_level is not None and minimum_level not in layout.LEVELS:
        raise ConfigurationError(
            f"minimum_level is {minimum_level!r}", hint=f"choose one of {', '.join(layout.LEVELS)}, or None"
        )
    evidence = load_evidence(source, reference)
    manifest = evidence.require_whole()
    if destination.uuid == source.uuid:
        raise ConfigurationError(
            f"{destination.uri} is the repository the backup is already in", hint="name another destination"
        )
    _require_level(evidence, minimum_level)
    sweep_leftovers(Settings(), log)
    say = log or (lambda line: None)
    job = _Copy(source, destination, evidence, cancel, say)
    if job.is_there():
        say(f"backup {manifest.series}/{manifest.id} is already in {destination.uri}")
        job.copy_verifications()
    else:
        destination.probe()
        job.run()
    return make_reference(destination, job.copied)


def _require_level(evidence: Evidence, minimum: str | None) -> None:
    backup, level = evidence.backup, evidence.backup.level
    if minimum is None:
        return
    if level is None or layout.LEVELS.index(level) < layout.LEVELS.index(minimum):
        ignored = f" (ignored: {evidence.ignored[0]})" if evidence.ignored else ""
        raise VerificationFailed(
            f"backup {backup.series}/{backup.id} is "
            + (f"verified at level {level} only, {minimum} is asked for" if level else "not verified")
            + ignored,
            hint=f"verify it at level {minimum} first, or pass minimum_level=None to upload it all the same",
        )


class _Copy:
    def __init__(
        self,
        source: Repository,
        destination: Repository,
        evidence: Evidence,
        cancel: Cancel | None,
        say: Callable[[str], None],
    ) -> None:
        self.source = source
        self.destination = destination
        self.evidence = evidence
        self.manifest = manifest = evidence.require_manifest()
        self.cancel = cancel
        self.say = say
        self.copied = dataclasses.replace(manifest, repository=destination.uuid)

    def is_there(self) -> bool:
        """Committed by an earlier try, whole and the same.

        :raises AlreadyExists: something else is committed under that id.
        :raises RepositoryError: a manifest is there, and its artifact is not.
        """
        try:
            found = read_evidence(self.destination, self.manifest.series, self.manifest.id)
        except BackupNotFound:
            return False
        there = found.require_manifest()
        if there.artifact.sha256 != self.manifest.artifact.sha256:
            raise AlreadyExists(
                f"another backup {there.series}/{there.id} is in {self.destination.uri}: sha256 "
                f"{there.artifact.sha256}, not {self.manifest.artifact.sha256}",
                hint="two repositories gave the same id to two dumps; upload to a repository of its own",
            )
        if found.backup.state == "incomplete":
            raise RepositoryError(
                f"backup {there.series}/{there.id} in {self.destination.uri} is incomplete: {found.backup.problem}",
                hint=f"Delete {self.destination.location(found.backup.folder)} and upload it again.",
            )
        return True

    def run(self) -> None:
        started = datetime.now(timezone.utc)
        manifest, artifact = self.manifest, self.manifest.artifact
        folder = layout.backup_folder(manifest.series, manifest.id)
        # No manifest there: whatever is, an earlier try of ours left half-way.
        self.destination.delete([entry.key for entry in self.destination.list(folder)])
        written: list[str] = []
        progress = Progress(self.say, f"uploading {artifact.name}")
        try:
            if artifact.format == "directory":
                written += self._directory()
            else:
                self._file(progress, written)
            self._require_all(written)
            written += self.copy_verifications()
            if self.cancel:
                self.cancel.check()
            self.destination.write_bytes(layout.manifest_key(manifest.series, manifest.id), self.copied.to_json())
        except BaseException:
            take_back(self.destination, written, self.say)
            raise
        seconds = (datetime.now(timezone.utc) - started).total_seconds()
        self.say(
            f"backup {manifest.series}/{manifest.id} uploaded to {self.destination.uri}: "
            f"{human_bytes(artifact.size)} in {human_seconds(seconds)}"
        )

    def _file(self, progress: Progress, written: list[str]) -> None:
        file = self.manifest.artifact.files[0]
        key = self.manifest.key(file)
        entry = self.source.stat(key)
        if entry is None or entry.size != file.size:
            found = f"has {entry.size} bytes, expected {file.size}" if entry else "is missing"
            raise VerificationFailed(f"{self.source.location(key)} {found}", hint="choose another backup")
        copied = self.destination.copy_from(self.source, key, key, pin=entry, cancel=self.cancel)
        if copied is not None:
            written.append(key)
            self._check_source(file, entry, progress)
            return
        with self.source.read(key, pin=entry) as stream:
            meter = Meter(stream, on_bytes=progress.advance)
            self.destination.write(key, meter, size_hint=file.size, sha256=file.sha256, cancel=self.cancel)
        written.append(key)

    def _check_source(self, file: FileDigest, entry: Entry, progress: Progress) -> None:
        """Read the version that the store has copied: a digest in an object's metadata is what its writer says."""
        with self.source.read(entry.key, pin=entry) as stream:
            meter = Meter(stream, on_bytes=progress.advance)
            while meter.read(_CHUNK):
                if self.cancel:
                    self.cancel.check()
        if meter.sha256 != file.sha256:
            raise VerificationFailed(
                f"{self.source.location(entry.key)}: checksum mismatch: expected {file.sha256}, found {meter.sha256}",
                hint="choose another backup; this one was damaged after it was dumped",
            )

    def _require_all(self, written: list[str]) -> None:
        artifact = self.manifest.artifact
        if set(written) != {self.manifest.key(file) for file in artifact.files}:
            raise VerificationFailed(
                f"the files of {artifact.name} in {self.source.uri} are not those of its manifest",
                hint="verify the backup, or choose another one",
            )

    def _directory(self) -> list[str]:
        manifest, artifact = self.manifest, self.manifest.artifact
        key = layout.artifact_key(manifest.series, manifest.id, artifact.name)
        digests = {file.path: file.sha256 for file in artifact.files}
        local = self.source.local_path(key)
        if local is not None and self.destination.local_path(key) is None:
            entries = self.destination.write_directory(key, local, digests=digests, cancel=self.cancel)
            return [entry.key for entry in entries]
        with self.destination.scratch(layout.backup_folder(manifest.series, manifest.id)) as scratch:
            # A local destination moves the folder in, so it gets a copy to move.
            folder = download(self.source, manifest, scratch, cancel=self.cancel)
            entries = self.destination.write_directory(key, folder, digests=digests, cancel=self.cancel)
        return [entry.key for entry in entries]

    def copy_verifications(self) -> list[str]:
        """Those that the destination lacks and that can be believed: they speak of the very bytes that are copied."""
        written = []
        folder = layout.backup_folder(self.manifest.series, self.manifest.id)
        there = {entry.key for entry in self.destination.list(folder)}
        for seen in self.evidence.verifications:
            name = VerificationName(seen.finished_at, seen.level, seen.result)
            key = f"{folder}/{name.file}"
            if key in there:
                continue
            data = self.source.read_bytes(key, limit=MAX_BYTES)
            try:
                parse_verification(data, name, self.manifest)  # again: what is read now is what is written
            except ManifestError as error:
                self.say(f"warning: {name.file} is not copied: {error.message}")
                continue
            self.destination.write_bytes(key, data)
            written.append(key)
        for line in self.evidence.ignored:
            self.say(f"warning: not copied: {line}")
        return written
