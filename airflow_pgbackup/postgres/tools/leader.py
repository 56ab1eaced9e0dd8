"""The process that leads the group of a tool, ``_exec.py``, and the files that the tool needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_pgbackup.postgres.connection.environment import ClientEnvironment

_EXEC = Path(__file__).with_name("_exec.py")
_END = b"\0\0"


class Leader:
    """Starts a tool in two steps, so that there is no password file before there is somebody to remove it.

    :param env: the whole environment of the tool.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._go: int | None = None

    def start(self, argv: Sequence[str], *, seccomp: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the leader, which waits for :meth:`release`.

        :param argv: of the tool.
        :param seccomp: for the tool: FILTER of ``_exec.py``.
        :param options: of :class:`subprocess.Popen`.
        """
        try:
            directory = self._env.make_directory() if isinstance(self._env, ClientEnvironment) else ""
            go, self._go = os.pipe()
            try:
                order = [str(os.getpid()), seccomp, os.fspath(directory), str(go)]
                return subprocess.Popen(
                    [sys.executable, "-I", "-S", os.fspath(_EXEC), *order, *argv],
                    env=dict(self._env),
                    pass_fds=[go],
                    start_new_session=True,
                    **options,
                )
            finally:
                os.close(go)
        except BaseException:
            self.close()
            raise

    def release(self) -> None:
        """Write the files, and let the leader start the tool. Where the leader is gone, nothing starts."""
        variables = self._env.write_files() if isinstance(self._env, ClientEnvironment) else {}
        message = b"\0".join(os.fsencode(f"{name}={value}") for name, value in variables.items()) + _END
        go, self._go = self._go, None
        if go is not None:
            with suppress(BrokenPipeError), open(go, "wb", buffering=0) as pipe:  # noqa: PTH123
                pipe.write(message)

    def close(self) -> None:
        """Remove the files, and let a leader that still waits go without a tool."""
        go, self._go = self._go, None
        if go is not None:
            os.close(go)
        if isinstance(self._env, ClientEnvironment):
            self._env.__exit__()
