"""Encrypt and decrypt streams with pyrage, which reads from one object and writes to another.

A reader here is read in the thread of its caller, so that the errors of its source, and signals, arrive there. Only
the cryptography runs in a thread of its own, which takes what was read and never waits for anything else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from airflow_pgbackup.byte_streams import PIECE, PieceReader, Readable
from airflow_pgbackup.encryption.header import with_checked_header
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.text import first_of
from airflow_pgbackup.wording import identity

_SHOWN, _MOST_SHOWN = 80, 4  # characters of a recipient, recipients
_AHEAD = 2  # pieces that wait for the thread


class Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> None: ...


@contextmanager
def encrypted(source: Readable, recipients: Recipients) -> Iterator[Readable]:
    """Give a reader of the source, encrypted. Errors of the source pass."""
    import pyrage

    def work(reader: Any, writer: Any) -> None:
        pyrage.encrypt_io(reader, writer, list(recipients.keys))

    with _Converter(source, work) as converter:
        yield PieceReader(converter.pieces())


def encrypt(source: Readable, target: Writable, recipients: Recipients) -> None:
    """Encrypt a source into a file. Errors of both ends pass."""
    import pyrage

    with _Ends(source, target) as ends:
        pyrage.encrypt_io(ends, ends, list(recipients.keys))


@contextmanager
def decrypted(
    source: Readable, identities: Identities, what: str, recipients: Sequence[str] = ()
) -> Iterator[Readable]:
    """Give a reader of the source, decrypted. It gives no byte that was not authenticated; but a source that ends too
    early is an error only at its end.

    :param what: names the source in errors.
    :param recipients: the public keys of which an identity is needed, for errors.
    :raises NotProven: no identity is that of a recipient.
    :raises VerificationFailed: when read: the source was not encrypted, or is damaged.
    """

    def work(reader: Any, writer: Any) -> None:
        _decrypt(reader, writer, identities, what, recipients)

    require_identities(identities, what, recipients)
    with _Converter(source, work) as converter:
        yield PieceReader(converter.pieces())


def decrypt(
    source: Readable, target: Writable, identities: Identities, what: str, recipients: Sequence[str] = ()
) -> None:
    """Decrypt a source into a file. Parameters and errors as for :func:`decrypted`; errors of both ends pass."""
    require_identities(identities, what, recipients)
    with _Ends(source, target) as ends:
        _decrypt(ends, ends, identities, what, recipients)


def require_identities(identities: Identities, what: str, recipients: Sequence[str] = ()) -> None:
    """Check that there is an identity.

    :param recipients: those of the source, for errors.
    :raises NotProven: there is none.
    """
    if not identities:
        raise NotProven(f"{what} is encrypted, and no identity was given to decrypt it", hint=_hint(recipients))


def _hint(recipients: Sequence[str]) -> str:
    shown = [text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…" for text in recipients]
    of = f"one of its recipients ({first_of(shown, _MOST_SHOWN)})" if recipients else "one of the manifest's recipients"
    return f"Give the secret key of {of} {identity()}."


def _decrypt(reader: Any, writer: Any, identities: Identities, what: str, recipients: Sequence[str]) -> None:
    import pyrage

    reader = with_checked_header(reader, what)
    try:
        pyrage.decrypt_io(reader, writer, list(identities.keys))
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise NotProven(f"none of the identities decrypts {what}", hint=_hint(recipients)) from None
        raise VerificationFailed(f"{what} cannot be decrypted: {error}") from None
    except OSError as error:
        raise VerificationFailed(f"{what} cannot be decrypted: {error}") from None


class _Stopped(Exception):
    pass


class _Converter:
    """Runs a function that reads and writes in a thread, between a source and :meth:`pieces`."""

    def __init__(self, source: Readable, work: Callable[[Any, Any], None]) -> None:
        self._source = source
        self._work = work
        self._changed = threading.Condition()
        self._in: deque[bytes] = deque()
        self._out: deque[bytes] = deque()
        self._left = memoryview(b"")  # of the piece that the thread reads
        self._at_end = self._stopped = self._done = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pgbackup-age", daemon=True)

    def __enter__(self) -> _Converter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def pieces(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                while not (self._out or self._done or self._may_take()):
                    self._changed.wait()
                taken = list(self._out)
                self._out.clear()
                done, take = self._done, self._may_take()
            yield from taken
            if done and not taken:
                if self._error is not None:
                    raise self._error
                return
            if take and not done:
                piece = self._source.read(PIECE)
                with self._changed:
                    if piece:
                        self._in.append(piece)
                    else:
                        self._at_end = True
                    self._changed.notify_all()

    def _may_take(self) -> bool:
        return not self._at_end and len(self._in) < _AHEAD

    # -- in the thread

    def _run(self) -> None:
        try:
            self._work(self, self)
        except BaseException as error:  # noqa: BLE001  the caller raises it
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def read(self, size: int = -1, /) -> bytes:
        if not self._left:
            with self._changed:
                while not (self._in or self._at_end or self._stopped):
                    self._changed.wait()
                if self._stopped:
                    raise _Stopped
                if self._in:
                    self._left = memoryview(self._in.popleft())
                    self._changed.notify_all()
        size = len(self._left) if size < 0 else size
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data

    def write(self, data: bytes, /) -> int:
        with self._changed:
            if self._stopped:
                raise _Stopped
            self._out.append(bytes(data))
            self._changed.notify_all()
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class _Ends:
    """Both ends of a conversion. The end of the ``with`` raises the error of one of them.

    pyrage keeps only the text of an error, and drops one of the last write.
    """

    def __init__(self, source: Readable, target: Writable) -> None:
        self._source = source
        self._target = target
        self._failed: BaseException | None = None

    def __enter__(self) -> _Ends:
        return self

    def __exit__(self, *_: object) -> None:
        if self._failed is not None:
            raise self._failed from None

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._remember(self._source.read, size)
        return data

    def write(self, data: bytes, /) -> int:
        self._remember(self._target.write, data)
        return len(data)

    def flush(self) -> None:
        self._remember(self._target.flush)

    def _remember(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except BaseException as error:
            self._failed = self._failed or error
            raise
