"""The leader of a tool's process group, ``_leader.py``, and the files that the tool needs."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from airflow_pgbackup import supervision
from airflow_pgbackup.postgres.connection.environment import ClientEnvironment

_LEADER = Path(__file__).with_name("_leader.py")


class Leader:
    """Starts a tool in two steps: the password file is written only when its remover runs.

    :param env: the complete environment of the tool.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._messages: IO[bytes] | None = None

    def start(self, argv: Sequence[str], *, seccomp: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the leader, which waits for :meth:`release`.

        :param argv: program and arguments of the tool.
        :param seccomp: the filter for the tool, as ``_leader.py`` takes it; ``""`` for none.
        :param options: of :class:`subprocess.Popen`.
        """
        try:
            directory = self._env.make_directory() if isinstance(self._env, ClientEnvironment) else ""
            reader, writer = _pipe()  # stdin is the tool's
            self._messages = open(writer, "wb", buffering=0)  # noqa: PTH123, SIM115
            try:
                return supervision.start(
                    _LEADER,
                    {"directory": os.fspath(directory), "seccomp": seccomp},
                    *argv,
                    pipe=reader,
                    env=dict(self._env),
                    pass_fds=[reader],
                    **options,
                )
            finally:
                os.close(reader)
        except BaseException:
            self.close()
            raise

    def release(self) -> None:
        """Write the files, and let the leader start the tool; nothing starts if the leader has ended."""
        variables = self._env.write_files() if isinstance(self._env, ClientEnvironment) else {}
        messages, self._messages = self._messages, None
        if messages is not None:
            with messages:
                supervision.send(messages, variables)

    def close(self) -> None:
        """Remove the files; a leader that still waits ends without starting the tool."""
        messages, self._messages = self._messages, None
        if messages is not None:
            messages.close()
        if isinstance(self._env, ClientEnvironment):
            self._env.__exit__()


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe. Neither is 0, 1 or 2, which are free in a process that was started without them: the
    tool's own stdin, stdout and stderr would replace them."""
    ends = os.pipe()
    try:
        reader, writer = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends)
    finally:
        for end in ends:
            os.close(end)
    return reader, writer
