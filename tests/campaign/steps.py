"""The steps of a process that change something outside of it, counted; and SIGKILL between any two of them.

A process enumerates its own steps, so that one that is added to the code later cannot be forgotten:

* each event of CPython's audit hooks, except those in :data:`HARMLESS`, which only read: opening a file for writing,
  ``link``, ``rename``, ``unlink``, ``mkdir``, ``chmod``, locks, signals, the start of a program. An event that this
  module does not know is a step;
* system calls that CPython does not audit (:data:`UNAUDITED`), and each write of :class:`io.FileIO` to a regular file;
* each request to S3 other than GET and HEAD, before it is sent and again after its answer has arrived;
* each SQL statement that is not a mere query, and the end of each transaction.

A kill at a step comes before the step is carried out, so all kills together are those between any two steps.
"""

from __future__ import annotations

import io
import os
import re
import signal
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any

HARMLESS = (
    *("import", "compile", "exec", "marshal.", "object.", "sys.", "builtins.", "code.", "function.", "cpython.", "gc."),
    *("ctypes.", "socket.", "http.client.", "urllib.", "glob.", "pathlib.", "array.", "pickle.", "time.", "mmap."),
    *("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr", "os.chdir", "os.putenv"),
    *("os.unsetenv", "resource.getrlimit", "shutil.", "tempfile.", "fcntl.fcntl", "fcntl.ioctl", "signal.", "syslog."),
)
"""How events begin that change nothing outside the process, or (shutil, tempfile) are followed by those that do."""

UNAUDITED = ("fsync", "fdatasync", "mkfifo", "mknod", "copy_file_range", "sendfile", "pwrite", "posix_fallocate")

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_QUERY = re.compile(r"\s*(SELECT|SHOW|SET|WITH|VALUES|TABLE)\b", re.IGNORECASE)
_ACTS = re.compile(r"pg_terminate|pg_cancel|advisory|\blo_|nextval|setval", re.IGNORECASE)
_RANDOM = re.compile(r"(?<![0-9a-zA-Z])(?:[0-9a-f]{12,}|[0-9a-z_]{8})(?=$|[./_ '\"])|\d{8}T\d{6}Z-[0-9a-f]+|\d{6,}")


class Steps:
    """Counts the steps of this process from :meth:`begin` on.

    :param kill_at: the number of the step, from 1, before which the process kills itself; None: none.
    :param tell: takes a line for each step.
    """

    def __init__(self, kill_at: int | None, tell: Callable[[str], None]) -> None:
        self._kill_at = kill_at
        self._tell = tell
        self._count = 0
        self._lock = threading.RLock()
        self._busy = threading.local()

    def begin(self) -> None:
        """Count from now on, for the rest of this process."""
        for name in UNAUDITED:
            setattr(os, name, self._counted(name, getattr(os, name)))
        io.FileIO = self._file_class()  # type: ignore[misc]
        self._patch_psycopg()
        self._patch_botocore()
        sys.addaudithook(self._audited)

    def step(self, what: str) -> None:
        """Count a step, or die."""
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            with self._lock:
                self._count += 1
                self._tell(f"{self._count} {_RANDOM.sub('~', what)[:160]}")
                if self._count == self._kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                    signal.pause()
        finally:
            self._busy.now = False

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITES and path != os.devnull:
                self.step(f"open {_short(path)}")
        elif not event.startswith(HARMLESS):
            self.step(f"{event} {' '.join(_short(argument) for argument in arguments[:2])}")

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            self.step(f"os.{name} {' '.join(_short(argument) for argument in arguments[:2])}")
            return call(*arguments, **more)

        return counted

    def _file_class(self) -> type[io.FileIO]:
        step = self.step

        class FileIO(io.FileIO):
            def write(self, data: Any) -> int:
                if stat.S_ISREG(os.fstat(self.fileno()).st_mode):
                    step(f"write {len(data)} bytes")
                return super().write(data)

        return FileIO

    def _patch_psycopg(self) -> None:
        import psycopg

        execute, copy, leave = psycopg.Cursor.execute, psycopg.Cursor.copy, psycopg.Transaction.__exit__
        step = self.step

        def name(query: Any) -> str:
            text = query.as_string(None) if hasattr(query, "as_string") else query
            text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            return " ".join(text.split())

        def counted_execute(cursor: Any, query: Any, *arguments: Any, **more: Any) -> Any:
            text = name(query)
            if not _QUERY.match(text) or _ACTS.search(text):
                step(f"SQL {text}")
            return execute(cursor, query, *arguments, **more)

        def counted_copy(cursor: Any, query: Any, *arguments: Any, **more: Any) -> Any:
            text = name(query)
            if "FROM STDIN" in text.upper():
                step(f"SQL {text}")
            return copy(cursor, query, *arguments, **more)

        def counted_leave(transaction: Any, *arguments: Any) -> Any:
            step("SQL end of a transaction")
            return leave(transaction, *arguments)

        psycopg.Cursor.execute = counted_execute  # type: ignore[method-assign, assignment]
        psycopg.Cursor.copy = counted_copy  # type: ignore[method-assign, assignment]
        psycopg.Transaction.__exit__ = counted_leave  # type: ignore[method-assign]

    def _patch_botocore(self) -> None:
        from botocore.httpsession import URLLib3Session

        send, step = URLLib3Session.send, self.step

        def counted(session: Any, request: Any) -> Any:
            what = f"{request.method} {request.url.partition('://')[2].partition('/')[2]}"
            if request.method in ("GET", "HEAD"):
                return send(session, request)
            step(f"S3 {what}")
            answer = send(session, request)
            step(f"S3 answered {what}")
            return answer

        URLLib3Session.send = counted  # type: ignore[method-assign]


def _short(value: object) -> str:
    """Return the end of a path, or the program of a list of arguments."""
    if isinstance(value, list | tuple):
        names = [_short(one) for one in value if isinstance(one, str | bytes | os.PathLike)]
        return " ".join(name for name in names if name.endswith((".py", "pg_dump", "pg_restore", "psql")))[:80]
    if isinstance(value, str | bytes | os.PathLike):
        return "/".join(os.fsdecode(value).split("/")[-2:])
    return str(value)
