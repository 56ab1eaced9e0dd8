"""upload: copy a backup from one repository into another, manifest last.

The bytes are compared with the manifest's digests on the way. Where the store copies on its own, the version that it
copied is read and compared before the manifest makes a backup of the copy. A complete copy that exists already stays as
it is, so a task may run again. What another attempt has left, or is writing, is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from airflow_pgbackup.backup.artifact import require_file, unless_removed
from airflow_pgbackup.backup.attempt import Attempt, attempt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.copied import (
    passes_are_copied,
    repeat_until_all_are_copied,
    require_no_own_failure,
    verifications_to_copy,
)
from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.reference import load_evidence, reference_of
from airflow_pgbackup.backup.stopwatch import Stopwatch
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.byte_streams import PIECE
from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    ConfigurationError,
    ManifestError,
    RepositoryError,
    VerificationFailed,
)
from airflow_pgbackup.quantities import human_bytes, human_seconds
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.evidence import MOST_BYTES, Evidence, parse_verification, read_evidence
from airflow_pgbackup.repository.layout import VerificationName
from airflow_pgbackup.repository.manifest import MAX_BYTES, FileDigest, Manifest
from airflow_pgbackup.wording import parameter


def upload(
    *,
    reference: Mapping[str, object],
    source: Repository,
    destination: Repository,
    minimum_level: str | None = "archive",
    context: RunContext | None = None,
) -> dict[str, object]:
    """Copy a backup.

    :param minimum_level: refuse a backup whose own files do not prove this level or a higher one; None accepts any
        complete backup.
    :return: the reference of the copy.
    :raises VerificationFailed: the backup is not verified at that level, is incomplete, or its bytes differ from the
        manifest. No copy is visible; or one that has failed, if the backup has failed verification meanwhile or
        since an earlier upload. Or the copy of an earlier upload has failed a verification of its own.
    :raises AlreadyExists: the destination has another backup with that id.
    :raises BackupNotFound: there is no such backup, or it was removed meanwhile. A copy without its verifications may
        be visible.
    :raises RepositoryError: either repository failed.
    """
    layout.check_level(minimum_level)
    evidence = load_evidence(source, reference)
    manifest = evidence.require_complete()
    if destination.uuid == source.uuid:
        raise ConfigurationError(f"the backup is already in {destination.uri}", hint="Choose another destination.")
    context = context or RunContext()
    sweep_leftovers(context)
    job = _Copy(source, destination, evidence, context)
    there = job.find_copy()
    if there is not None:  # it gets the verifications made since, also if they refuse this upload
        context.log(f"backup {manifest.name} is already in {destination.uri}")
    else:
        _require_level(evidence, minimum_level)
        destination.probe(context.log)
        there = job.run()
    job.copy_verifications(there)
    copied = read_evidence(destination, manifest.series, manifest.id)
    require_no_own_failure(destination, copied, job.evidence)
    _require_level(job.evidence, minimum_level)
    copied.require_complete()
    return reference_of(destination, copied)


def _require_level(evidence: Evidence, minimum: str | None) -> None:
    backup = evidence.backup
    if minimum is None:
        return
    if not layout.reaches(backup.level, minimum):
        ignored = f" (ignored: {evidence.ignored[0]})" if evidence.ignored else ""
        raise VerificationFailed(
            f"backup {backup.name} {backup.shortcoming(minimum)}{ignored}",
            hint="Choose another backup."
            if backup.state == "failed"
            else f"Verify it at level {minimum} first, or set {parameter('minimum_level', None)} to upload it "
            "unverified.",
        )


class _Copy:
    def __init__(
        self,
        source: Repository,
        destination: Repository,
        evidence: Evidence,
        context: RunContext,
    ) -> None:
        self.source = source
        self.destination = destination
        self.evidence = evidence
        self.context = context
        self.temp_dir = context.settings.temp_dir
        self.manifest = evidence.require_manifest()
        self.cancel = context.cancel
        self.say = context.log

    def find_copy(self) -> Evidence | None:
        """Return the same, complete backup if an earlier attempt has committed it.

        :raises AlreadyExists: another backup has that id.
        :raises RepositoryError: the manifest exists, but its artifact does not.
        """
        try:
            found = read_evidence(self.destination, self.manifest.series, self.manifest.id)
        except BackupNotFound:
            return None
        there = found.require_manifest()
        if not self._is_same(found):
            raise AlreadyExists(
                f"{self.destination.uri} has another backup {there.name}: expected sha256 "
                f"{self.manifest.artifact.sha256}, found {there.artifact.sha256}",
                hint="Two repositories gave the same id to two dumps; upload to a separate repository.",
            )
        if found.backup.state == "incomplete":
            raise RepositoryError(
                f"backup {there.name} in {self.destination.uri} is incomplete: {found.backup.problem}",
                hint=f"Delete {self.destination.location(found.backup.folder)} and upload it again.",
            )
        return found

    def run(self) -> Evidence:
        """Copy the backup; return what is stored then."""
        watch, manifest, artifact = Stopwatch(), self.manifest, self.manifest.artifact
        with (
            self.context.step(f"uploading {artifact.name}", bytes_total=artifact.size) as progress,
            attempt(self.destination, manifest.series, manifest.id, self.say) as mine,
        ):
            copied = manifest.moved(self.destination.uuid, mine.name)
            with unless_removed(self.source, manifest):
                if artifact.format == "directory":
                    self._directory(progress, mine)
                else:
                    self._file(copied, progress, mine)
                self._require_all(copied, mine.written)
            self.cancel.check()
            found = mine.commit(copied, self._is_same)
        if not mine.has_made(found):
            return found
        _, seconds = watch.stop()
        self.say(
            f"backup {manifest.name} uploaded to {self.destination.uri}: "
            f"{human_bytes(artifact.size)} in {human_seconds(seconds)}"
        )
        return found

    def _is_same(self, other: Evidence) -> bool:
        return other.require_manifest().artifact.sha256 == self.manifest.artifact.sha256

    def _file(self, copied: Manifest, progress: Step, mine: Attempt) -> None:
        file = self.manifest.artifact.files[0]
        source_key, key = self.manifest.key(file), copied.key(file)
        entry = require_file(self.source, self.manifest, file, hint="Choose another backup.")
        mine.written.append(key)
        if self.destination.copy_from(self.source, source_key, key, pin=entry, cancel=self.cancel) is not None:
            self._check_source(file, entry, progress)
            return
        with self.source.read(source_key, pin=entry) as stream:
            meter = Meter(stream, on_bytes=progress.advance)
            self.destination.write(key, meter, size_hint=file.size, sha256=file.sha256, cancel=self.cancel)

    def _check_source(self, file: FileDigest, entry: Entry, progress: Step) -> None:
        """Read the version that the store has copied: a digest in an object's metadata is only a claim."""
        with self.source.read(entry.key, pin=entry) as stream:
            meter = Meter(stream, on_bytes=progress.advance)
            while meter.read(PIECE):
                self.cancel.check()
        if meter.sha256 != file.sha256:
            raise VerificationFailed(
                f"{self.source.location(entry.key)}: checksum mismatch: expected {file.sha256}, found {meter.sha256}",
                hint="Choose another backup: this one was damaged after it was dumped.",
            )

    def _require_all(self, copied: Manifest, written: list[str]) -> None:
        artifact = copied.artifact
        if set(written) != {copied.key(file) for file in artifact.files}:
            raise VerificationFailed(
                f"the files of {artifact.name} in {self.source.uri} differ from its manifest",
                hint="Verify the backup, or choose another one.",
            )

    def _directory(self, progress: Step, mine: Attempt) -> None:
        manifest, artifact = self.manifest, self.manifest.artifact
        key = mine.key(artifact.name)
        digests = {file.path: file.sha256 for file in artifact.files}
        local = self.source.local_path(manifest.artifact_key)
        if local is not None and self.destination.local_path(key) is None:
            entries = self._write_directory(progress, key, local, digests)
        else:
            with self.destination.scratch(key, temp_dir=self.temp_dir) as scratch:
                # A local destination moves the directory in, so it needs a copy.
                folder = download(self.source, manifest, scratch, cancel=self.cancel, progress=progress)
                progress.end()
                with self.context.step(f"writing {artifact.name}", bytes_total=artifact.size) as second:
                    entries = self._write_directory(second, key, folder, digests)
        mine.written += [entry.key for entry in entries]

    def _write_directory(self, progress: Step, key: str, folder: Path, digests: Mapping[str, str]) -> Sequence[Entry]:
        sizes: dict[str, int] = {}  # of each member, so that one that is sent twice counts once
        progress.measure = lambda: sum(sizes.copy().values())
        on_read = sizes.__setitem__
        return self.destination.write_directory(key, folder, digests=digests, cancel=self.cancel, on_read=on_read)

    def copy_verifications(self, there: Evidence) -> None:
        """Copy the valid verifications that the destination lacks: they are about the same bytes.

        :param there: the backup in the destination.
        """
        copied = set(there.backup.verifications)
        written = repeat_until_all_are_copied(lambda say: self._copy_verifications(there, copied, say), self.say)
        if written and not passes_are_copied(self.evidence):
            self.destination.delete([key for key in written if key.endswith("-pass.json")])

    def _copy_verifications(
        self, there: Evidence, copied: set[VerificationName], say: Callable[[str], None]
    ) -> list[str]:
        """Read the verifications now, since the copy took a while, and write those that are not among `copied`.

        :return: the keys that this call has written.
        """
        with unless_removed(self.source, self.manifest):
            self.evidence = read_evidence(self.source, self.manifest.series, self.manifest.id)
            copies = self._read_verifications(there, copied, say)  # all, before one is written
        folder, written = layout.backup_folder(self.manifest.series, self.manifest.id), list[str]()
        for name, data in copies.items():
            key = f"{folder}/{name.file}"
            with suppress(AlreadyExists):  # another upload was first
                self.destination.write_bytes(key, data)
                written.append(key)
            copied.add(name)
        return written

    def _read_verifications(
        self, there: Evidence, copied: Collection[VerificationName], say: Callable[[str], None]
    ) -> dict[VerificationName, bytes]:
        """Return what to write for each verification, in this order."""
        folder = layout.backup_folder(self.manifest.series, self.manifest.id)
        copies: dict[VerificationName, bytes] = {}
        room = MOST_BYTES
        for seen in verifications_to_copy(self.evidence, there, say):
            name = VerificationName(seen.finished_at, seen.level, seen.result)
            if name not in copied:
                copies[name] = self._read_again(f"{folder}/{name.file}", name, min(room, MAX_BYTES))
                room -= len(copies[name])
        return copies

    def _read_again(self, key: str, name: VerificationName, limit: int) -> bytes:
        """Return the bytes of a verification, checked again: only what was checked is written."""
        data = self.source.read_bytes(key, limit=limit)
        try:
            parse_verification(data, name, self.manifest)
        except ManifestError as error:
            raise RepositoryError(
                f"{self.source.location(key)} changed during the operation: {error.message}",
                hint="Find out what else writes to the repository; a retry reads the backup again.",
            ) from None
        return data
