"""A server of our own as a child that cannot outlive us."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_SUPERVISOR = Path(__file__).with_name("_supervisor.py")
_LOG_TAIL = 1 << 14  # bytes


class SupervisedProcess:
    """Steps run one after the other by ``_supervisor.py``; the last one is a server that stays.

    Leaving the ``with``, and the end of our own process in whatever way, stop the server by `signals`, 5 s for each,
    and then remove the files and folders of `remove`.

    :param steps: argument vectors; a step that fails ends the row.
    :param env: the children's whole environment.
    :param log: file for their stdout and stderr.
    """

    def __init__(
        self,
        *steps: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str],
        log: Path,
        remove: Sequence[Path] = (),
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL),
    ) -> None:
        self.log = log
        self.exits: list[int] = []  # statuses of the steps that ended, as subprocess has them
        self._steps = len(steps)
        self._order = {
            "steps": [[os.fspath(word) for word in step] for step in steps],
            "log": os.fspath(log),
            "remove": list(map(os.fspath, remove)),
            "signals": list(map(int, signals)),
        }
        self._env = dict(env)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._reports = b""

    def __enter__(self) -> Self:
        self.log.touch(mode=0o600)
        order = json.dumps({"parent": os.getpid(), **self._order})
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", _SUPERVISOR, order],
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C on the terminal is for us; the server stops when we say so
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server and remove the folders; returns when both are gone."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        assert supervisor.stdin is not None  # noqa: S101  Popen was given pipes
        assert supervisor.stdout is not None  # noqa: S101
        supervisor.stdin.close()
        supervisor.wait()
        supervisor.stdout.close()

    @property
    def running(self) -> bool:
        """False once the last step ended, or one before it failed."""
        self._read_reports(0)
        return self._supervisor is not None and len(self.exits) < self._steps and not any(self.exits)

    def wait_ended(self, seconds: float) -> bool:
        """Wait until the server ended by itself; False when it still runs after that time."""
        deadline = time.monotonic() + seconds
        while self.running:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._read_reports(left)
        return True

    def log_tail(self, lines: int = 5) -> str:
        with self.log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _LOG_TAIL, 0))
            return "\n".join(file.read(_LOG_TAIL).decode(errors="replace").splitlines()[-lines:])

    def _read_reports(self, seconds: float) -> None:
        if self._supervisor is None or self._supervisor.stdout is None:
            return
        poll = select.poll()  # select() takes no descriptor above 1023
        poll.register(self._supervisor.stdout, select.POLLIN)
        if poll.poll(math.ceil(seconds * 1000)):
            data = os.read(self._supervisor.stdout.fileno(), 4096)
            if not data:  # the supervisor itself is gone, and PR_SET_PDEATHSIG took the server along
                self.exits = [*self.exits, -signal.SIGKILL]
            self._reports += data
            *whole, self._reports = self._reports.split(b"\n")
            self.exits += [int(line.split()[1]) for line in whole if line.startswith(b"exited ")]
