"""The contract of the local and the S3 repository.

One suite of tests holds both to it (``tests/integration/repository/test_repository.py``):

- A key is complete or absent. Nothing is ever overwritten: :class:`~airflow_pgbackup.errors.AlreadyExists`.
- A source that raises leaves nothing visible, and its exception passes through unchanged.
- Nothing is written where there is no ``repository.json``: an unmounted volume, another worker's disk or a typo is
  never taken for an empty repository.
- Errors of the store are raised as :class:`~airflow_pgbackup.errors.RepositoryError`, one line and a hint.
- One object may be used by many threads.

The module is longer than others because it states, method by method, what both repositories promise.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import uuid as uuid_module
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    RepositoryError,
    RepositoryMismatch,
    RepositoryNotFound,
)
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.repository.byte_source import ByteSource, OnRead
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.entry import Entry, Incoming, UnfinishedWrite
from airflow_pgbackup.repository.layout import REPOSITORY_FILE, TEMP_PREFIX, check_key, is_key
from airflow_pgbackup.repository.listing_limits import limited
from airflow_pgbackup.repository.manifest import FORMAT_VERSION, RepositoryFile
from airflow_pgbackup.repository.nofollow import members_of
from airflow_pgbackup.repository.protection import Protection

READ_LIMIT = 32 * 1024**2


class Repository(ABC):
    """A place for backups. Keys are ``/``-joined relative paths of already encoded segments; see ``layout``."""

    def __init__(self, uri: str, *, cancel: CancelFlag | None = None) -> None:
        self.uri = uri
        """``file:///var/backups/pg`` or ``s3://bucket/prefix``, without a trailing slash."""
        self.protection = Protection()
        """What the store does against deletion and overwriting."""
        self._cancel = cancel
        self._uuid: str | None = None

    # -- identity ------------------------------------------------------------------------------------------------

    def init(self) -> str:
        """Make this a repository unless it is one; return its UUID."""
        try:
            return self.uuid
        except RepositoryNotFound:
            self._make_root()
        now = datetime.now(timezone.utc).replace(microsecond=0)
        content = RepositoryFile(format_version=FORMAT_VERSION, uuid=str(uuid_module.uuid4()), created_at=now)
        with suppress(AlreadyExists):  # another worker was first, and its UUID counts
            self.write_bytes(REPOSITORY_FILE, content.to_json())
        return self.uuid

    @property
    def uuid(self) -> str:
        """The UUID in ``repository.json``, read once.

        :raises RepositoryNotFound: there is no such file.
        """
        if self._uuid is None:
            try:
                data = self.read_bytes(REPOSITORY_FILE)
            except BackupNotFound:
                raise self._not_found() from None
            self._uuid = RepositoryFile.from_json(data).uuid
        return self._uuid

    def require(self, uuid: str) -> None:
        """Check that a reference was made in this repository.

        :raises RepositoryMismatch: it was made in another one.
        """
        if self.uuid != uuid:
            raise RepositoryMismatch(
                f"{self.uri} is repository {self.uuid}, the reference was made in repository {uuid}",
                hint="Check which volume is mounted here, and where the URI leads on this worker.",
            )

    def confirm(self) -> None:
        """Check that this is the repository that it was at the first use: a long run outlives a mount, and an empty
        mount point would take what is written.

        :raises RepositoryNotFound: there is none any more.
        :raises RepositoryMismatch: there is another one.
        """
        known, self._uuid = self._uuid, None
        try:
            if known is not None:
                self.require(known)
        finally:
            self._uuid = known

    # -- reading -------------------------------------------------------------------------------------------------

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Return everything below a folder, sorted by key, without our temporary files and names that are not keys.

        :param prefix: a complete folder: ``app`` never means ``app_staging``. Empty: everything.
        :raises RepositoryError: it holds more than :mod:`.listing_limits` allows.
        """
        entries = (e for e in self.list_all(prefix) if is_key(e.key))
        return _taken(sorted(entries, key=attrgetter("key"), reverse=True))

    def list_all(self, prefix: str = "") -> Iterator[Entry]:
        """Yield what :meth:`list` does and also the files or objects whose names are not keys, in no order."""
        return limited(
            self._list(_folder(prefix)),
            lambda e: len(e.key) + len(e.version or ""),
            uri=self.uri,
            cancel=self._cancel,
        )

    def strangers(self, prefix: str) -> Iterator[str]:
        """Yield everything below a folder that is not a key: links, FIFOs, odd names. S3 has none."""
        return self._strangers(_folder(prefix))

    def folders(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the folders directly in a folder, sorted. Limits as for :meth:`list`."""
        found = limited(self._folders(_folder(prefix)), len, uri=self.uri, cancel=self._cancel)
        return sorted(name for name in found if is_key(name))

    @abstractmethod
    def stat(self, key: str) -> Entry | None:
        """Return the entry of a key; None when it does not exist."""

    @abstractmethod
    def read(self, key: str, *, pin: Entry | None = None) -> AbstractContextManager[BinaryIO]:
        """Open a key as a stream, whose ``read(n)`` returns full chunks until the end.

        :param pin: an earlier entry: a store that keeps versions returns that one, or fails. A file system keeps none:
            a caller that must read the same bytes again compares digests, see ``backup.checked``.
        :raises BackupNotFound: it does not exist.
        """

    def read_bytes(self, key: str, *, limit: int = READ_LIMIT) -> bytes:
        """Return the bytes of a small key.

        :raises RepositoryError: it is larger than ``limit`` bytes, so it is forged or foreign.
        """
        with self.read(key) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise RepositoryError(f"{self.location(key)} is larger than {limit} bytes", hint="Check who wrote it.")
        return data

    # -- writing -------------------------------------------------------------------------------------------------

    def write(
        self,
        key: str,
        source: Readable,
        *,
        size_hint: int | None = None,
        sha256: str | None = None,
        cancel: CancelFlag | None = None,
    ) -> Entry:
        """Store a stream under a new key, completely or not at all.

        The calling thread reads the source, so that a signal or a timeout of Airflow interrupts a read that hangs.

        :param size_hint: about how many bytes come, for the part size of an S3 upload. Too small costs memory, not
            the upload.
        :param sha256: the hex digest that the stream must have; S3 keeps it as object metadata.
        :raises AlreadyExists: the key is taken, or was taken while the stream ran.
        :raises OutcomeUnknown: the key may exist, now or later. After any other error of ours it does not.
        """
        check_key(key)
        if key != REPOSITORY_FILE:
            self.uuid  # noqa: B018  raises where there is no repository
        return self._write(key, ByteSource(source, sha256=sha256, cancel=cancel), size_hint=size_hint, sha256=sha256)

    def write_bytes(self, key: str, data: bytes) -> Entry:
        return self.write(key, io.BytesIO(data), size_hint=len(data), sha256=hashlib.sha256(data).hexdigest())

    def write_directory(
        self,
        prefix: str,
        folder: Path,
        *,
        digests: Mapping[str, str] | None = None,
        cancel: CancelFlag | None = None,
        on_read: OnRead | None = None,
    ) -> Sequence[Entry]:
        """Bring a finished local directory in as ``prefix/…``.

        It is renamed into place where both are on one file system (see :meth:`scratch`), else copied or uploaded,
        members in parallel. A failure removes what was already brought in.

        :param digests: member path to the sha256 that it must have.
        :param on_read: as for :meth:`incoming`.
        :return: an entry for each member, with its sha256.
        :raises AlreadyExists: something exists under ``prefix``.
        """
        with self.incoming(prefix, folder, cancel=cancel, on_read=on_read) as incoming:
            return incoming.finish(digests or {})

    @abstractmethod
    def incoming(
        self,
        prefix: str,
        folder: Path,
        *,
        cancel: CancelFlag | None = None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
        on_read: OnRead | None = None,
    ) -> AbstractContextManager[Incoming]:
        """Bring in a directory that is still being written: its finished members may be sent already.

        The repository shows nothing of it before :attr:`Incoming.finish`, and without that call keeps nothing.

        :param on_failure: called, in some thread, with the reason why an offered member could not be sent. ``finish``
            raises it, too.
        :param on_read: called, in some thread, with a member's path and the bytes read of it so far, where members are
            copied or uploaded.
        """

    def _members(self, prefix: str, folder: Path) -> Sequence[str]:
        """Return the members to bring in, by their paths in the directory.

        :raises AlreadyExists: something exists under ``prefix``.
        """
        self.uuid  # noqa: B018  raises where there is no repository
        members = members_of(folder)
        for member in members:
            check_key(f"{prefix}/{member}")
        if self.stat(prefix) is not None or next(self.list(prefix), None) is not None:
            raise AlreadyExists(f"{self.location(prefix)} exists already")
        return members

    def delete(self, keys: Iterable[str]) -> None:
        """Delete keys durably, in no particular order: a manifest needs a call of its own, before its artifact.

        Keys that do not exist are ignored.

        :raises RepositoryError: names what could not be deleted.
        """
        self._delete([check_key(key) for key in keys])

    def copy_from(
        self,
        other: Repository,
        source_key: str,
        key: str,
        *,
        pin: Entry | None = None,
        cancel: CancelFlag | None = None,
    ) -> Entry | None:
        """Let the store copy, so that the bytes do not pass through here; return None where it cannot."""
        return None

    # -- the store itself ----------------------------------------------------------------------------------------

    def location(self, key: str) -> str:
        """Return the key for people: ``s3://bucket/prefix/key``."""
        return f"{self.uri}/{key}"

    def console_url(self, folder: str) -> str | None:
        """Return the address of a folder in the store's own console; None where there is none. Sends no request."""
        return None

    def local_path(self, key: str) -> Path | None:
        """Return the path of a key if keys are files, else None."""
        return None

    def free_bytes(self, prefix: str = "") -> int | None:
        """Return the free space in bytes for files below a folder; None if the store has no such limit."""
        return None

    @contextmanager
    def scratch(self, prefix: str, *, temp_dir: str = "") -> Iterator[Path]:
        """Make a private directory for the length of a ``with``; on the repository's own file system where it has one,
        so that :meth:`write_directory` to ``prefix`` is a rename.

        :param temp_dir: its parent for a repository without a file system; empty: the system's.
        """
        with PrivateDirectory(temp_dir or None) as directory:
            yield directory

    def probe(self, say: Callable[[str], None] | None = None) -> bool:
        """Write and delete a small file, to fail before a long dump and not after it. Works before :meth:`init`.

        :param say: called with a line about a file that stays, because these credentials may only add (append-only).
            :meth:`unfinished_writes` finds it.
        :return: whether it could be deleted.
        :raises RepositoryError: it could not be written, or the deletion failed for another reason.
        :raises ConfigurationError: the repository is to lock what it writes, and the store cannot.
        """
        key = f"{TEMP_PREFIX}probe-{secrets.token_hex(8)}"
        self._write(key, ByteSource(io.BytesIO(b"probe")), size_hint=5, sha256=None)
        deleted = self._remove_probe(key)
        if not deleted and say is not None:
            say(f"append-only: these credentials may write to {self.uri}, but not delete; prune sweeps {key}")
        self.protection.require_lock()
        return deleted

    @abstractmethod
    def unfinished_writes(
        self, older_than: timedelta, *, prefix: str = "", say: Callable[[str], None] | None = None
    ) -> Sequence[UnfinishedWrite]:
        """Return the unfinished writes of ours below a folder that have not grown for that long.

        :param say: called with a line about what this store cannot list; by default it is logged.
        """

    @abstractmethod
    def old_probes(self, older_than: timedelta) -> Sequence[UnfinishedWrite]:
        """Return the files that :meth:`probe` left that long ago. They are below no folder of a server."""

    @abstractmethod
    def remove_unfinished(self, writes: Iterable[UnfinishedWrite]) -> None:
        """Remove unfinished writes that :meth:`unfinished_writes` returned."""

    # -- for implementations -------------------------------------------------------------------------------------

    def _remove_probe(self, key: str) -> bool:
        """Delete what :meth:`probe` has written; return False where the store refuses deletions."""
        self._delete([key])
        return True

    @abstractmethod
    def _not_found(self) -> RepositoryNotFound: ...

    @abstractmethod
    def _make_root(self) -> None:
        """Make what :meth:`init` needs before it can write."""

    @abstractmethod
    def _list(self, folder: str) -> Iterator[Entry]: ...

    def _strangers(self, folder: str) -> Iterator[str]:
        return iter(())

    @abstractmethod
    def _folders(self, folder: str) -> Iterator[str]: ...

    @abstractmethod
    def _write(self, key: str, source: ByteSource, *, size_hint: int | None, sha256: str | None) -> Entry: ...

    @abstractmethod
    def _delete(self, keys: Sequence[str]) -> None: ...


def _taken(entries: list[Entry]) -> Iterator[Entry]:
    """Yield the entries from the last to the first, and keep none of them: there may be millions."""
    while entries:
        yield entries.pop()


def _folder(prefix: str) -> str:
    """Return a folder as what the keys below it begin with: ``app/``, or nothing."""
    prefix = prefix.removesuffix("/")
    return f"{check_key(prefix)}/" if prefix else ""
