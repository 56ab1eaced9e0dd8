"""The command line run on a pseudo-terminal or into pipes, and what may be in its output."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.text import printable

Where = Literal["terminal", "pipes"]

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]

# Sets the title, hides text, closes and opens markup of rich's, turns the direction around, clears the screen by a C1.
HOSTILE = "\x1b]0;t\x07\x1b[8m[/][link=x:y]z[/link]\u202e\x9b2J"
SHOWN = printable(HOSTILE)

# What rich writes on a terminal: styles, and around a spinner the cursor's visibility, one line up, erase the line.
_OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|1A|2K)")


@dataclass(frozen=True)
class Seen:
    """:ivar text: what a reader of the terminal, or of both pipes, sees."""

    text: str

    @property
    def json(self) -> Any:
        """What ``--json`` printed among the log lines."""
        start = re.search(r"^[\[{]$", self.text, re.MULTILINE)
        assert start, self.text
        return json.JSONDecoder().raw_decode(self.text, start.start())[0]


def run(where: Where, arguments: Sequence[str | bytes], env: Mapping[str, str], status: int | None = None) -> Seen:
    """Run ``pgbackup`` and check that its output holds nothing which a terminal would obey, but what rich writes.

    :param status: the exit status that it must have; None: any documented one.
    """
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COLUMNS": "1000", "TERM": "xterm-256color", **env}
    code, output = (_on_terminal if where == "terminal" else _into_pipes)([*PROGRAM, *arguments], env)
    text = visible(output.decode(), where)
    assert "Traceback" not in text, text
    assert code in (EXIT_STATUS.values() if status is None else [status]), text
    return Seen(text)


def visible(text: str, where: Where) -> str:
    """Return what a reader sees of this output.

    :raises AssertionError: it holds something else.
    """
    if where == "terminal":
        text = _OWN.sub("", text).replace("\r", "")
    for line in text.split("\n"):
        assert line == printable(line), line
    return text


def _on_terminal(argv: Sequence[str | bytes], env: Mapping[str, str]) -> tuple[int, bytes]:
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123  a descriptor
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, 1000, 0, 0))
        with subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            pieces = []
            with contextlib.suppress(OSError):  # EIO: the last one has closed the other end
                while piece := terminal.read(1 << 16):
                    pieces.append(piece)
        return process.returncode, b"".join(pieces)


def _into_pipes(argv: Sequence[str | bytes], env: Mapping[str, str]) -> tuple[int, bytes]:
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    return done.returncode, done.stdout + done.stderr
