"""fsck: check that a repository is consistent: structure, sizes and manifests, without reading artifacts.

One listing of the repository, then each manifest, verification and file of a backup set is read once, several at a
time. Nothing is written. A fault in a listing may be a running dump, upload or prune, so the folder of a faulty backup
is listed and checked a second time, and only what is found then counts.

A repair removes what prune would sweep, by the same functions: what is certainly ours and has not grown for the grace
period. Everything else is for a person.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.fsck.findings import Faults, FsckReport, ReadShare
from airflow_pgbackup.backup.fsck.folder import CheckedFolder, FolderContext, check_folder, is_newer
from airflow_pgbackup.backup.fsck.inventory import Folder, Inventory, check_elsewhere, take_inventory
from airflow_pgbackup.backup.fsck.rehash import rehash
from airflow_pgbackup.backup.fsck.servers import check_servers
from airflow_pgbackup.backup.fsck.sets import check_sets
from airflow_pgbackup.backup.fsck.share import Share
from airflow_pgbackup.backup.fsck.versions import check_versions
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.removal import GRACE, check_grace, sweep
from airflow_pgbackup.errors import BackupNotFound, ManifestError, RepositoryError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.quantities import human_age, human_bytes
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import PIN_FILE, Leftover
from airflow_pgbackup.repository.entry import Entry, UnfinishedWrite
from airflow_pgbackup.repository.layout import MANIFEST_FILE, REPOSITORY_FILE, TEMP_PREFIX, Series
from airflow_pgbackup.repository.manifest import FORMAT_VERSION, FileDigest, RepositoryFile


def fsck(
    *,
    repository: Repository,
    read: str | None = None,
    repair: bool = False,
    revert: bool = False,
    grace: timedelta = GRACE,
    now: datetime | None = None,
    context: RunContext | None = None,
) -> FsckReport:
    """Check a repository, and with `repair` remove what is safe to remove.

    :param read: also re-hash a share of the artifacts' bytes: ``5%`` (another twentieth each day), or ``n/m`` for the
        n-th of m parts; see :mod:`.share`. None: read no artifact.
    :param repair: remove leftovers that have not grown for the grace period, and abort such multipart uploads.
    :param revert: in a bucket that keeps versions, make the first version of each overwritten file current again.
    :param grace: what has grown within it may belong to a running dump; at least an hour.
    :param now: aware, by default the clock's.
    :raises ConfigurationError: an invalid share, a grace that is too short.
    :raises RepositoryNotFound: there is neither a repository.json nor any backup.
    :raises RepositoryError: the store does not answer.
    :raises Canceled: asked to stop.
    """
    check_grace(grace)
    now = now or datetime.now(timezone.utc)
    share = Share.parse(read, now) if read is not None else None
    context = context or RunContext()
    job = _Fsck(repository, share, grace, now, context.cancel, context.log, context.step)
    # Before anything that an overwritten file says is read.
    check_versions(repository, job.findings, context, revert=revert)
    job.check()
    swept: list[str] = []
    if repair:
        job.repair()
        swept = sweep_leftovers(context)
    return job.report(repair, swept)


@dataclass
class _Fsck:
    repository: Repository
    share: Share | None
    grace: timedelta
    now: datetime
    cancel: Cancel
    log: Callable[[str], None]
    begin: Callable[..., Step]
    findings: Faults = field(default_factory=Faults)
    inventory: Inventory = field(default_factory=lambda: Inventory({}, ()))
    uuid: str | None = None
    to_read: list[tuple[str, FileDigest, Entry]] = field(default_factory=list)
    files: int = 0
    size: int = 0
    """Number and bytes of the files of artifacts that exist with the right size."""

    def check(self) -> None:
        problem = self._identify()
        self.inventory = take_inventory(self.repository, failed=self._unlistable)
        if isinstance(problem, BackupNotFound) and not self.inventory.folders:
            self.repository.uuid  # noqa: B018  raises RepositoryNotFound: an unmounted volume, a wrong URI
        uuids = self._check_folders()
        if problem is not None:
            self._no_identity(problem, uuids)
        check_elsewhere(self.inventory.elsewhere, self.findings)
        check_sets(
            self.repository,
            self.inventory.sets,
            self.inventory.folders,
            self.now,
            self.findings,
            self.cancel.check,
        )
        self._check_temporary()
        if self.share is not None and self.to_read:
            size = sum(file.size for _, file, _ in self.to_read)
            with self.begin(f"reading {self.share.text} of {self.repository.uri}", bytes_total=size) as step:
                rehash(self.repository, self.to_read, self.findings, cancel=self.cancel, progress=step)

    def repair(self) -> None:
        """Remove what is safe to remove. Without a repository.json nothing is: this may be another volume."""
        if self.uuid is None:
            self.log("nothing is repaired while repository.json is missing or damaged")
            return
        self.findings.repair(self._remove)

    def report(self, repair: bool, swept: Iterable[str]) -> FsckReport:
        folders = self.inventory.folders.values()
        read = None
        if self.share is not None:
            read = ReadShare(
                share=self.share.text,
                files=len(self.to_read),
                size=sum(file.size for _, file, _ in self.to_read),
                of_files=self.files,
                of_size=self.size,
            )
        return FsckReport(
            repository=self.repository.uri,
            uuid=self.uuid,
            checked_at=self.now,
            repair=repair,
            backups=self.inventory.backups,
            series=len({folder.series for folder in folders if folder.is_backup}),
            files=sum(len(folder.entries) for folder in folders),
            size=sum(entry.size for folder in folders for entry in folder.entries.values()),
            findings=self.findings.sorted(),
            more=tuple(sorted(self.findings.more.items())),
            read=read,
            swept=tuple(swept),
        )

    def _identify(self) -> RepositoryError | None:
        """Read repository.json, and return what is wrong with it; None if nothing is."""
        try:
            data = self.repository.read_bytes(REPOSITORY_FILE)
        except BackupNotFound as error:
            return BackupNotFound(error.message)  # without its hint, which is for the files of a backup
        try:
            self.uuid = RepositoryFile.from_json(data).uuid
        except ManifestError as error:
            newer = "Upgrade airflow-pgbackup." if is_newer(data) else None
            return ManifestError(error.message, hint=newer)
        return None

    def _no_identity(self, problem: RepositoryError, uuids: set[str]) -> None:
        hint = problem.hint or "Restore the file from a copy of the repository."
        if problem.hint is None and len(uuids) == 1:
            now = self.now.astimezone(timezone.utc).replace(microsecond=0)
            content = RepositoryFile(format_version=FORMAT_VERSION, uuid=next(iter(uuids)), created_at=now)
            line = json.dumps(json.loads(content.to_json()))
            hint = f"Put a file there with the UUID that the manifests have: {line}"
        message = "is missing" if isinstance(problem, BackupNotFound) else problem.message
        self.findings.error("repository_file", REPOSITORY_FILE, message, hint)

    def _check_folders(self) -> set[str]:
        """Check every backup's folder, several at a time; the UUIDs that the manifests name."""
        uuids: set[str] = set()
        folders = self.inventory.folders.values()
        servers: dict[Series, list[tuple[str, str]]] = {}
        with request_threads(name="pgbackup-fsck") as pool:
            for folder, checked in zip(folders, pool.map(self._check_folder, folders), strict=True):
                self.findings.extend(checked.findings)
                uuids |= {checked.uuid} if checked.uuid else set()
                if checked.system_identifier:
                    servers.setdefault(folder.series, []).append((folder.id, checked.system_identifier))
                for key, (file, entry) in checked.files.items():
                    self.files, self.size = self.files + 1, self.size + file.size
                    if self.share is not None and self.share.takes(key):
                        self.to_read.append((key, file, entry))
        check_servers(servers, self.findings)
        return uuids

    def _check_folder(self, folder: Folder) -> CheckedFolder:
        self.cancel.check()
        context = FolderContext(self.repository, self.uuid, self.now, self.grace, self.cancel)
        try:
            checked = check_folder(folder, context)
            if not checked.findings.sorted():
                return checked
        except RepositoryError:
            pass
        try:
            again = take_inventory(self.repository, folder.key).folders.get(folder.key)
            return check_folder(again, context) if again else CheckedFolder()
        except RepositoryError as error:
            if isinstance(error, BackupNotFound) and self._was_removed(folder):
                return CheckedFolder()
            unread = CheckedFolder()
            hint = error.hint or "Check the repository's storage for faults."
            unread.findings.error("read", folder.key, error.message, hint)
            return unread

    def _was_removed(self, folder: Folder) -> bool:
        """Return whether the manifest is no longer listed: prune is removing the backup at this moment."""
        try:
            return all(entry.key != f"{folder.key}/{MANIFEST_FILE}" for entry in self.repository.list(folder.key))
        except RepositoryError:
            return False

    def _unlistable(self, folder: str, error: RepositoryError) -> None:
        hint = error.hint or "Check the rights to the folder, and the repository's storage for faults."
        self.findings.error("read", folder or self.repository.uri, error.message, hint)

    def _unfinished(self) -> Iterable[tuple[UnfinishedWrite, bool]]:
        """Yield each unfinished write, and whether it is a leftover: by this clock, and by that of the store."""
        for folder in self.inventory.listed:
            every = self.repository.unfinished_writes(timedelta(0), prefix=folder, say=self._unlisted)
            old = {one for one in every if self.now - one.modified >= self.grace}
            if old:
                old &= set(self.repository.unfinished_writes(self.grace, prefix=folder))
            yield from ((one, one in old) for one in every)

    def _check_temporary(self) -> None:
        """Report temporary files, empty directories and multipart uploads of ours."""
        for one, is_leftover in self._unfinished():
            age = human_age(self.now - one.modified)
            if one.upload_id is not None:
                code, what, repair = "upload", "an incomplete multipart upload", "the upload is aborted"
            elif TEMP_PREFIX in one.key.rpartition("/")[2]:
                code, what, repair = "temporary", "a temporary file or directory", "it is removed"
            elif one.key.endswith(f"/{PIN_FILE}"):
                self.findings.error(
                    "pin",
                    one.key,
                    "is a directory, so prune ignores it as a pin",
                    "Remove it, and pin the backup again.",
                )
                continue
            else:
                code, what, repair = "temporary", "an empty directory", "it is removed"
            if is_leftover:
                self.findings.leftover(code, f"{what}, untouched for {age}", one, repair)
            else:
                self.findings.note("running", one.key, f"{what}, grew {age} ago", "Work may be in progress.")

    def _unlisted(self, line: str) -> None:
        self.findings.warning(
            "uploads_unlisted",
            "",
            line,
            "Set a lifecycle rule that aborts incomplete multipart uploads after a few days.",
        )

    def _remove(self, what: Leftover | UnfinishedWrite) -> str | None:
        """Remove a leftover, as prune does; return why it was not removed, else None."""
        self.cancel.check()
        try:
            if isinstance(what, Leftover):
                key, why = f"{what.folder}, {human_bytes(what.size)}", sweep(self.repository, what)
            else:
                key, why = what.key, None
                self.repository.remove_unfinished([what])
        except RepositoryError as error:
            return f"cannot be removed: {error.message}"
        if why is None:
            self.log(f"removed {key}")
        return why
