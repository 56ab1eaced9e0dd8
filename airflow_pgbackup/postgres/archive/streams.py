"""What an archive's text passes through on its way to the lexer: readers around readers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import BinaryIO

from airflow_pgbackup.errors import DeadlineExceeded, ToolError, ToolKilled, VerificationFailed
from airflow_pgbackup.postgres.sql.window import Readable
from airflow_pgbackup.postgres.tools.process import Cancel, ToolProcess

# pg_restore running over its own feet: the archive's fault. Other signals come from somebody else.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


class Limits:
    """The deadline and the flag, for what we read ourselves."""

    def __init__(self, cancel: Cancel, deadline: float) -> None:
        self.cancel = cancel
        self._deadline = deadline
        self._end = time.monotonic() + deadline

    def remaining(self) -> float:
        return max(self._end - time.monotonic(), 0.001)

    def check(self) -> None:
        self.cancel.check()
        if time.monotonic() > self._end:
            raise DeadlineExceeded(
                f"the archive was not read to its end within {self._deadline:g} s",
                tool="read_archive",
                exit_code=None,
                hint="if it only needs longer, raise the deadline",
            )


class Watched:
    """The script on its way to the lexer."""

    def __init__(self, source: Readable, limits: Limits, progress: Callable[[int], None] | None) -> None:
        self._source = source
        self._limits = limits
        self._progress = progress
        self._bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._limits.check()
        self._bytes += len(data)
        if self._progress:
            self._progress(self._bytes)
        return data


class DecodedArchive:
    """pg_restore's output; that it cannot read an archive is a finding about the archive."""

    def __init__(self, process: ToolProcess) -> None:
        self._process = process

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._process.stdout.read(size)
        except DeadlineExceeded:
            raise
        except ToolKilled as error:
            if -(error.exit_code or 0) not in _CRASHES:
                raise
            raise VerificationFailed(f"the archive cannot be read to its end: {error.message}") from error
        except ToolError as error:
            if error.exit_code != 1:  # it never began: a missing library, say
                raise
            raise VerificationFailed(f"the archive cannot be read to its end: {error.message}") from error


class Joined:
    """What was already read of a stream, then the rest."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        data, self._head = bytes(self._head[:size]), self._head[size:]
        return data


class Part:
    """A stretch of a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        file.seek(offset)
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data
