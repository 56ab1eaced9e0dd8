"""Decode a dump while it is being written: the bytes that are stored are also read by the reader that ``verify`` uses.

The reader runs in a thread, behind a buffer of a few MiB. If it ends early or hangs, the dump continues without it; if
it finds damage, the dump ends at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import Canceled, NotProven, PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.client_choice import ReaderRequirements, choose_reader
from airflow_pgbackup.postgres.tools.clients import Client, find_clients

_HELD = 8 << 20
"""Bytes that wait for the reader, at most, besides one piece."""

_PATIENCE = 600.0
"""Seconds for which a dump waits for a reader that takes nothing, or that does not end after all was given to it."""


class ReadingAlong:
    """Reads one dump while it is written: :meth:`stream`, or :meth:`directory`.

    :param format: ``custom``, ``plain`` or ``directory``; a tar archive cannot be read from a stream.
    :param compression: around a plain dump; None for none.
    :param inside: the compression that pg_restore must support; None for none.
    :param made_by: the client that dumps.
    :param deadline: seconds, for the complete pass.
    :ivar summary: the contents of the dump; None if they are not known.
    :ivar client: the client whose pg_restore read it.
    :ivar problem: why the contents are not known, which says nothing about the dump; None if they are known.
    """

    def __init__(
        self,
        format: str,
        compression: str | None,
        inside: str | None,
        *,
        made_by: Client,
        deadline: float,
        context: RunContext,
    ) -> None:
        self.summary: ArchiveSummary | None = None
        self.client: Client | None = None
        self.problem: PgBackupError | None = None
        self._format = format
        self._compression = compression
        self._deadline = deadline
        self._context = context
        if format == "tar":
            self.problem = NotProven("an archive in tar format cannot be read while it is written")
            return
        try:
            clients = find_clients(context.settings.client_dirs)
            self.client = choose_reader(clients, ReaderRequirements(made_by.version_text, made_by.major, inside))
        except PgBackupError as error:
            self.problem = error

    @contextmanager
    def stream(self, source: Readable) -> Iterator[Readable]:
        """Give a reader of the source, whose bytes are decoded as well.

        :raises VerificationFailed: also by ``read``: what was read is damaged or incomplete.
        """
        if self.client is None:
            yield source
            return
        stop = Cancel()
        unregister = self._context.cancel.on_set(stop.set)
        tee = _Tee(source, give_up=stop.set)
        thread = threading.Thread(target=self._read, args=(tee, tee.copy, stop), name="pgbackup-read", daemon=True)
        thread.start()
        try:
            yield tee
            tee.end()
            thread.join(_PATIENCE)
            if thread.is_alive():
                tee.abandon()
        except BaseException:
            stop.set()
            tee.fail()
            raise
        finally:
            thread.join()
            unregister()
        self._judge(tee.error)

    def directory(self, path: Path, cancel: Cancel) -> None:
        """Decode a directory archive that is complete.

        :param cancel: stops the reader when set.
        :raises VerificationFailed: it is damaged or incomplete.
        """
        if self.client is None:
            return
        try:
            self.summary = self._reader(path, cancel).digest()
        except Exception as error:  # noqa: BLE001  as in a stream, the dump continues without the reader
            self._judge(error)

    def _read(self, tee: _Tee, copy: Readable, stop: Cancel) -> None:
        try:
            self.summary = self._reader(copy, stop).digest()
        except BaseException as error:  # noqa: BLE001  judged by the thread that dumps
            tee.reader_ended(error)
        else:
            tee.reader_ended(None)

    def _reader(self, source: Path | Readable, cancel: Cancel) -> ArchiveReader:
        assert self.client is not None  # noqa: S101  both callers have checked it
        return ArchiveReader(
            source,
            format=self._format,
            compression=self._compression,
            client=self.client,
            cancel=cancel,
            deadline=self._deadline,
            on_line=self._context.log,
        )

    def _judge(self, error: BaseException | None) -> None:
        if error is None:
            return
        self.summary = None
        if isinstance(error, VerificationFailed):
            raise error
        if isinstance(error, Canceled):
            self._context.cancel.check()
        if not isinstance(error, PgBackupError):
            error = NotProven(f"reading along failed: {type(error).__name__}: {error}")
        self.problem = error


class _Failed(Exception):
    pass


class _Tee:
    """Passes a source on, and gives a copy to a reader in another thread.

    :param give_up: stops the reader.
    :ivar error: of the reader.
    """

    def __init__(self, source: Readable, *, give_up: Callable[[], None]) -> None:
        self._source = source
        self._give_up = give_up
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._at_end = self._failed = self._reader_ended = False
        self.copy = _Copy(self)
        self.error: BaseException | None = None

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        with self._changed:
            while self._held > _HELD and not self._reader_ended:
                if not self._changed.wait(_PATIENCE):
                    self.abandon()
            if isinstance(self.error, VerificationFailed):
                raise self.error
            if data and not self._reader_ended:
                self._pieces.append(data)
                self._held += len(data)
            elif not data and size != 0:
                self._at_end = True
            self._changed.notify_all()
        return data

    def end(self) -> None:
        """Signal the end of the stream to the reader."""
        with self._changed:
            self._at_end = True
            self._changed.notify_all()

    def fail(self) -> None:
        """Signal the failure of the source to the reader."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Stop a reader that hangs, and continue without it."""
        self.reader_ended(NotProven(f"the reader made no progress for {_PATIENCE:g} s"))
        self._give_up()

    def reader_ended(self, error: BaseException | None) -> None:
        """Keep no more copies. Only the first end counts."""
        with self._changed:
            if self._reader_ended:
                return
            self._reader_ended, self.error = True, error
            self._pieces.clear()
            self._changed.notify_all()

    def take(self) -> bytes:
        """Return the next piece of the copy, nothing at its end."""
        with self._changed:
            while not (self._pieces or self._at_end or self._failed):
                self._changed.wait()
            if self._failed:
                raise _Failed
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            self._held -= len(piece)
            self._changed.notify_all()
            return piece


class _Copy:
    def __init__(self, tee: _Tee) -> None:
        self._tee = tee
        self._left = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        if not self._left:
            self._left = memoryview(self._tee.take())
        size = len(self._left) if size < 0 else size
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data
