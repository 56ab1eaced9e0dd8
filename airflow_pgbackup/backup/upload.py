"""upload: copy a backup from one repository into another, manifest last.

The bytes are held against the manifest's digests on their way. What is there already and whole is left as it is, so a
task may run again; what an earlier try left half-way is taken away and written again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from airflow_pgbackup.backup.artifact import download, member_key
from airflow_pgbackup.backup.progress import Progress, human_bytes, human_seconds
from airflow_pgbackup.backup.reference import load_manifest, make_reference, take_back, verified_level
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.errors import AlreadyExists, BackupNotFound, ConfigurationError, VerificationFailed
from airflow_pgbackup.postgres.process import Cancel
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_manifest
from airflow_pgbackup.repository.layout import VerificationName
from airflow_pgbackup.repository.manifest import Manifest


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

    :param minimum_level: refuse what has not been verified at this level or a higher one; None takes anything.
    :return: the reference to the copy.
    :raises VerificationFailed: not verified as asked, or the bytes are not those of the manifest (nothing is visible).
    :raises AlreadyExists: another backup with that id is there.
    :raises RepositoryError: either side.
    """
    if minimum_level is not None and minimum_level not in layout.LEVELS:
        raise ConfigurationError(
            f"minimum_level is {minimum_level!r}", hint=f"choose one of {', '.join(layout.LEVELS)}, or None"
        )
    manifest = load_manifest(source, reference)
    if destination.uuid == source.uuid:
        raise ConfigurationError(
            f"{destination.uri} is the repository the backup is already in", hint="name another destination"
        )
    _require_level(source, manifest, minimum_level)
    say = log or (lambda line: None)
    job = _Copy(source, destination, manifest, cancel, say)
    if job.is_there():
        say(f"backup {manifest.series}/{manifest.id} is already in {destination.uri}")
        job.copy_verifications()
    else:
        destination.probe()
        job.run()
    return make_reference(destination, job.copied)


def _require_level(source: Repository, manifest: Manifest, minimum: str | None) -> None:
    if minimum is None:
        return
    level = verified_level(source, manifest)
    if level is None or layout.LEVELS.index(level) < layout.LEVELS.index(minimum):
        raise VerificationFailed(
            f"backup {manifest.series}/{manifest.id} is "
            + (f"verified at level {level} only, {minimum} is asked for" if level else "not verified"),
            hint=f"verify it at level {minimum} first, or pass minimum_level=None to upload it all the same",
        )


class _Copy:
    def __init__(
        self,
        source: Repository,
        destination: Repository,
        manifest: Manifest,
        cancel: Cancel | None,
        say: Callable[[str], None],
    ) -> None:
        self.source = source
        self.destination = destination
        self.manifest = manifest
        self.cancel = cancel
        self.say = say
        self.copied = dataclasses.replace(manifest, repository=destination.uuid)

    def is_there(self) -> bool:
        """Committed by an earlier try, whole and the same.

        :raises AlreadyExists: something else is committed under that id.
        """
        try:
            there = read_manifest(self.destination, self.manifest.series, self.manifest.id)
        except BackupNotFound:
            return False
        if there.artifact.sha256 != self.manifest.artifact.sha256:
            raise AlreadyExists(
                f"another backup {there.series}/{there.id} is in {self.destination.uri}: sha256 "
                f"{there.artifact.sha256}, not {self.manifest.artifact.sha256}",
                hint="two repositories gave the same id to two dumps; upload to a repository of its own",
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
                written.append(self._file(progress))
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

    def _file(self, progress: Progress) -> str:
        file = self.manifest.artifact.files[0]
        key = member_key(self.manifest, file)
        if self.destination.copy_from(self.source, key, key, cancel=self.cancel) is None:
            with self.source.read(key) as stream:
                meter = Meter(stream, on_bytes=progress.advance)
                self.destination.write(key, meter, size_hint=file.size, sha256=file.sha256, cancel=self.cancel)
        return key

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
        """Those that the destination lacks: they speak of the very bytes that are copied, so they hold for the copy."""
        written = []
        folder = layout.backup_folder(self.manifest.series, self.manifest.id)
        there = {entry.key for entry in self.destination.list(folder)}
        for entry in self.source.list(folder):
            if VerificationName.parse(entry.key.rpartition("/")[2]) and entry.key not in there:
                self.destination.write_bytes(entry.key, self.source.read_bytes(entry.key))
                written.append(entry.key)
        return written
