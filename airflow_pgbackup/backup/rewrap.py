"""rewrap: encrypt a backup to other recipients, as a new backup beside the old one.

The files are copied within the repository as streams: decrypted with an identity of the old recipients, encrypted to
the new ones, and nothing decrypted reaches a disk. Both the stored and the decrypted bytes are compared with the
manifest before the new backup exists. A backup that is not encrypted becomes an encrypted one.

Nothing is overwritten, so a crash leaves the old backup as it was. The new backup holds the data of the same moment: it
has the same start time, and an id that sorts after the old one, so that retention rules prefer it. The old one stays
until it is pruned. A second call finds what the first one made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from airflow_pgbackup.backup.artifact import each_file, require_file, require_not_removed, unless_removed
from airflow_pgbackup.backup.attempt import Attempt, attempt
from airflow_pgbackup.backup.checked import Expected
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.copied import (
    passes_are_copied,
    repeat_until_all_are_copied,
    require_no_own_failure,
    verifications_to_copy,
)
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.backup.private_copy import create, disk_errors
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.reference import SEED, load_evidence, reference_of, seed_digest
from airflow_pgbackup.backup.restore_command import restore_command, restore_command_of
from airflow_pgbackup.backup.rewrapped import (
    FROM,
    at_least,
    carried_over,
    find_rewrapped,
    is_made_of,
    is_wrapped,
    new_id,
    request,
)
from airflow_pgbackup.backup.stopwatch import Stopwatch
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.byte_streams import PIECE, Readable
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.encryption.streams import decrypted, encrypt, encrypted, require_identities
from airflow_pgbackup.errors import AlreadyExists, ConfigurationError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.member_names import check_member_names
from airflow_pgbackup.quantities import counted, human_bytes, human_seconds
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.evidence import Evidence, read_evidence
from airflow_pgbackup.repository.manifest import (
    ENCRYPTED,
    Artifact,
    Encryption,
    FileDigest,
    Manifest,
    directory_sha256,
)
from airflow_pgbackup.wording import parameter, setting

_HINT = "Choose another backup: this one was damaged after it was dumped."


def rewrap(
    *, reference: Mapping[str, object], repository: Repository, context: RunContext | None = None
) -> dict[str, object]:
    """Encrypt a backup to other recipients, as a new backup of the same series.

    Verifications of its dump are carried over, as the decrypted bytes are the same; each says so. So is a pin.

    :param context: its settings name the new recipients; its identities decrypt the old backup.
    :return: the reference of the new backup, or of this one if it is encrypted to these recipients already.
    :raises ConfigurationError: no recipients are given, or one is not a public key.
    :raises NotProven: no identity decrypts the old backup.
    :raises VerificationFailed: its bytes differ from the manifest. Nothing new is visible. Or what an earlier call made
        of it has failed a verification of its own.
    :raises RepositoryError: the repository failed, the backup was removed during the operation, or what an earlier call
        made of it is incomplete.
    :raises DiskError: a directory artifact does not fit on the disk of the worker.
    """
    context = context or RunContext()
    recipients = require_recipients(context)
    evidence = load_evidence(repository, reference)
    manifest = evidence.require_complete()
    name = manifest.name
    if is_wrapped(manifest, recipients):
        context.log(f"backup {name} is encrypted to these recipients already")
        return reference_of(repository, evidence)
    sweep_leftovers(context)
    job = _Rewrap(repository, evidence, manifest, recipients, context)
    made = find_rewrapped(repository, manifest, recipients)
    if made is not None:
        context.log(f"backup {name} is rewrapped already, as {made.backup.id}, which {made.backup.standing}")
    else:
        made = job.run()
    job.carry_over(made)
    rewrapped = read_evidence(repository, manifest.series, made.backup.id)
    require_no_own_failure(repository, rewrapped, job.evidence)
    return reference_of(repository, rewrapped)


def require_recipients(context: RunContext) -> Recipients:
    """Return the recipients that the settings name.

    :raises ConfigurationError: there are none, or one is not a public key.
    """
    recipients = Recipients.parse(context.settings.recipients)
    if recipients is None:
        raise ConfigurationError(
            "no recipients are given to encrypt to",
            hint=f"Name them with {parameter('recipients')} or {setting('recipients')}.",
        )
    return recipients


class _Rewrap:
    def __init__(
        self,
        repository: Repository,
        evidence: Evidence,
        manifest: Manifest,
        recipients: Recipients,
        context: RunContext,
    ) -> None:
        self.repository = repository
        self.evidence = evidence
        self.old = manifest
        self.recipients = recipients
        self.context = context
        self.id = new_id(manifest, recipients)
        self.identities = Identities()
        if manifest.artifact.encryption:
            self.identities = context.require_identities()
            require_identities(self.identities, manifest.artifact.name, manifest.artifact.encryption.recipients)

    def run(self) -> Evidence:
        """Make the new backup; return what is stored then."""
        watch, old, artifact = Stopwatch(), self.old, self.old.artifact
        self.repository.probe()
        step = self.context.step(f"rewrapping {artifact.name}", bytes_total=artifact.size)
        with step, attempt(self.repository, old.series, self.id, self.context.log) as mine:
            write = self._directory if artifact.format == "directory" else self._file
            with unless_removed(self.repository, old):
                new = self._manifest(mine, write(mine, step))
            require_not_removed(self.repository, old)
            self.context.cancel.check()
            found = mine.commit(new, lambda other: is_made_of(other, old, self.recipients))
        if mine.has_made(found):
            _, seconds = watch.stop()
            self.context.log(
                f"rewrapped backup {old.name} as {self.id}, encrypted to "
                f"{counted(len(self.recipients.texts), 'recipient')}: {human_bytes(artifact.size)} in "
                f"{human_seconds(seconds)}"
            )
        return found

    def _manifest(self, mine: Attempt, files: tuple[FileDigest, ...]) -> Manifest:
        plain = self.old.artifact.plain
        name = f"{plain.name}{ENCRYPTED}"
        artifact: Artifact = replace(
            plain,
            name=name,
            size=sum(file.size for file in files),
            sha256=directory_sha256(files) if plain.format == "directory" else files[0].sha256,
            files=files,
            attempt=mine.name,
            encryption=Encryption("age", self.recipients.texts, plain.files),
        )
        by = {"at": layout.utc(datetime.now(timezone.utc)).isoformat(), "origin": dict(self.context.origin)}
        new = replace(
            self.old,
            id=self.id,
            artifact=artifact,
            format_version=at_least(self.old.format_version, Manifest.format_version),
            origin={
                **self.old.origin,
                FROM: self.old.id,
                "rewrapped": by,
                SEED: seed_digest(request(self.old, self.recipients)),
            },
        )
        return replace(new, restore_command=self._restore_command(artifact))

    def _restore_command(self, artifact: Artifact) -> str:
        old, without = self.old, replace(self.old, restore_command="")
        return restore_command(
            artifact=artifact.name,
            format=artifact.format,
            compression=artifact.compressed_around,
            database=old.series.database,
            create=restore_command_of(old) != restore_command_of(without),
            kind=old.series.kind,
            encrypted=True,
        )

    @contextmanager
    def _plain(self, file: FileDigest, on_bytes: Callable[[int], None], cancel: CancelFlag) -> Iterator[Readable]:
        """Read a file of the old backup, decrypted. At its end all its bytes have been compared with the manifest."""
        old, key = self.old, self.old.key(file)
        entry = require_file(self.repository, old, file, hint=_HINT)

        def advance(count: int) -> None:
            cancel.check()
            on_bytes(count)

        with self.repository.read(key, pin=entry) as source:
            stored = Meter(Expected(source, file, stored=True), on_bytes=advance)
            if old.artifact.encryption is None:
                yield stored
                _read_to_the_end(stored)
                return
            try:
                with decrypted(stored, self.identities, file.path, old.artifact.encryption.recipients) as stream:
                    yield Expected(stream, self._plain_of(file))
            except (NotProven, VerificationFailed):
                _read_to_the_end(stored)  # changed bytes are the cause, and then the error
                raise
            _read_to_the_end(stored)  # what follows the ciphertext

    def _file(self, mine: Attempt, step: Step) -> tuple[FileDigest, ...]:
        file, name = self.old.artifact.files[0], f"{self.old.artifact.plain.name}{ENCRYPTED}"
        cancel, key = self.context.cancel, mine.key(name)
        mine.written.append(key)
        with self._plain(file, step.advance, cancel) as plain, encrypted(plain, self.recipients) as stream:
            sent = Meter(stream)
            self.repository.write(key, sent, size_hint=file.size, cancel=cancel)
        return (FileDigest(name, sent.size, sent.sha256),)

    def _directory(self, mine: Attempt, step: Step) -> tuple[FileDigest, ...]:
        """Encrypt the members into a directory beside the repository, several at a time, and move it in."""
        artifact = self.old.artifact
        check_member_names([file.path for file in artifact.plain.files])
        name = f"{artifact.plain.name}{ENCRYPTED}"
        key = mine.key(name)
        read: dict[str, int] = {}
        step.measure = lambda: sum(read.copy().values())
        with self.repository.scratch(key, temp_dir=self.context.settings.temp_dir) as scratch:
            folder = scratch / name
            with disk_errors(scratch):
                folder.mkdir(mode=0o700)

            def work(file: FileDigest, stop: CancelFlag) -> str:
                return self._member(file, folder, lambda count: read.__setitem__(file.path, count), stop)

            names = each_file(artifact.files, work, self.context.cancel)
            entries = self.repository.write_directory(key, folder, cancel=self.context.cancel)
        mine.written += [entry.key for entry in entries]
        stored = {entry.key.removeprefix(f"{key}/"): entry for entry in entries}
        return tuple(FileDigest(name, stored[name].size, stored[name].sha256) for name in names)

    def _member(self, file: FileDigest, folder: Path, on_bytes: Callable[[int], None], stop: CancelFlag) -> str:
        name = f"{self._plain_of(file).path}{ENCRYPTED}"
        with self._plain(file, on_bytes, stop) as plain, disk_errors(folder), create(folder / name) as target:
            encrypt(plain, target, self.recipients)
        return name

    def _plain_of(self, file: FileDigest) -> FileDigest:
        return self.old.artifact.plain.files[self.old.artifact.files.index(file)]

    def carry_over(self, made: Evidence) -> None:
        """Copy verifications of the dump, which is the same, to the new backup."""
        new = made.require_manifest()
        if self.evidence.backup.pinned and not made.backup.pinned:
            pin(repository=self.repository, series=new.series, id=new.id, reason=f"as {self.old.id}")
        written = repeat_until_all_are_copied(lambda say: self._carry_over(made, say), self.context.log)
        if written and not passes_are_copied(self.evidence):
            self.repository.delete([key for key in written if key.endswith("-pass.json")])

    def _carry_over(self, made: Evidence, say: Callable[[str], None]) -> list[str]:
        """Copy verifications as they are now, since rewrapping takes a while. Return the keys that were written."""
        new = made.require_manifest()
        with unless_removed(self.repository, self.old):
            self.evidence = read_evidence(self.repository, self.old.series, self.old.id)
        written = []
        for seen in verifications_to_copy(self.evidence, made, say):
            carried = carried_over(seen, self.old, new)
            if carried is None:
                continue
            key = layout.verification_key(
                new.series, new.id, at=carried.finished_at, level=carried.level, result=carried.result
            )
            with suppress(AlreadyExists):
                self.repository.write_bytes(key, carried.to_json())
                written.append(key)
        return written


def _read_to_the_end(stream: Readable) -> None:
    while stream.read(PIECE):
        pass
