"""A server as a child process that cannot outlive this one."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_pgbackup import supervision

if TYPE_CHECKING:
    from typing_extensions import Self

_SUPERVISOR = Path(__file__).with_name("_supervisor.py")
_LOG_TAIL = 1 << 14  # bytes


class SupervisedProcess:
    """Programs that ``_supervisor.py`` runs one after the other; the last one is a server that keeps running.

    At the end of the ``with``, and at the end of this process, even by SIGKILL, the supervisor stops the server by
    `signals`, 5 s for each, and then removes the files and directories of `remove`.

    :param steps: argument vectors; after one that fails, no other is started.
    :param env: the complete environment of the programs.
    :param log: file for their stdout and stderr.
    :ivar exits: exit statuses of the programs that have ended, as :mod:`subprocess` has them.
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
        self.exits: list[int] = []
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
        self._supervisor = supervision.start(
            _SUPERVISOR, self._order, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server and remove the files; returns when that is done."""
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
        """False once the last program has ended, or another one has failed."""
        self._read_reports(0)
        return self._supervisor is not None and len(self.exits) < self._steps and not any(self.exits)

    def wait_ended(self, seconds: float) -> bool:
        """Wait for the server to end; return False if it is still running after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.running:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._read_reports(left)
        return True

    def log_tail(self, lines: int = 5) -> str:
        """Return the last lines of the log."""
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
            if not data:  # the supervisor was killed, and the kernel has then killed the server: PR_SET_PDEATHSIG
                self.exits = [*self.exits, -signal.SIGKILL]
            self._reports += data
            *lines, self._reports = self._reports.split(b"\n")
            self.exits += [int(line.split()[1]) for line in lines if line.startswith(b"exited ")]
