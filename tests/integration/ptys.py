"""A program in the foreground of a terminal, and what the terminal shows."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
NEVER = "(?!)"


@contextmanager
def on_terminal(
    argv: list[str], env: Mapping[str, str], columns: int = 100, *, before_exec: Callable[[], None] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a program as the foreground of a terminal; the process, and the other end of the terminal.

    :param before_exec: called in the new process before the program starts.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, columns, 0, 0))

    def become_foreground() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        # The tests may run under nohup, or in the background of a shell, and what a process ignores its children do.
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        if before_exec:
            before_exec()

    base = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm-256color"}
    with subprocess.Popen(
        argv, env={**base, **env}, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=become_foreground
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            with contextlib.suppress(OSError):  # the test has closed it
                os.close(ours)


def read_until(terminal: int, pattern: str, seconds: float = 240) -> str:
    """Read until a pattern is seen, and to the end of a character; :data:`NEVER` reads to the end."""
    text, end = "", time.monotonic() + seconds
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a read can end within a character
    with contextlib.suppress(OSError):  # EIO: the program has ended
        while decoder.getstate()[0] or not re.search(pattern, text):
            assert time.monotonic() < end, text
            if select.select([terminal], [], [], 1)[0]:
                piece = os.read(terminal, 1 << 16)
                if not piece:
                    break
                text += decoder.decode(piece)
    return text


def screen(text: str, columns: int, *, wraps: bool = False) -> list[str]:
    """Return what a terminal shows at the end, without blank lines: of the controls, those that rich writes.

    :param wraps: whether a line may be longer than the terminal is wide, and takes several of its rows.
    :raises AssertionError: a line is longer, and may not be.
    """
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token.endswith("A") and token.startswith("\x1b"):
            row = max(row - int(token[2:-1] or 1), 0)
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith("\x1b"):
            if column == columns:
                assert wraps, f"{lines[row]}{token}"
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            lines[row] = f"{lines[row][:column]:<{column}}{token}{lines[row][column + 1 :]}"
            column += 1
    return [line.rstrip() for line in lines if line.strip()]
