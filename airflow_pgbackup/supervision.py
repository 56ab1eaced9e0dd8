"""The protocol between a worker and its supervisors: the processes that clean up even if the worker is killed.

There are three supervisors, each a script that Python runs in a session of its own:

* ``postgres/tools/_leader.py`` leads the process group of one tool, because its pid is the group's number: until the
  worker reaps it, the number cannot be reused, and the worker can signal the group. It removes the password file when
  the tool ends, and reaps what the tool left in the group.
* ``postgres/server/_supervisor.py`` runs a server. It is a subreaper, because processes of a server can make sessions
  of their own, and so leave its group.
* ``backup/databases/_drop_guard.py`` drops temporary databases. It connects to PostgreSQL, so it needs the password.

This module is what they have in common:

* **Order**: a JSON object in argv, which the supervisor has from its first moment. It holds no secret, because every
  user can see arguments.
* **Messages**: JSON values, one a line, on a pipe from the worker, for secrets and for what comes later. The end of
  the pipe means that the worker has finished, or is dead.
* **Death of the worker**: the kernel sends SIGUSR1, and the supervisor then compares the pid of its parent.
  ``PR_SET_PDEATHSIG`` is not enough, as it also fires when only the *thread* that started the supervisor ends. The end
  of the pipe is not enough, as a process that the worker forked can hold the pipe open.

They report differently: the leader exits as the tool does, the server's supervisor writes a line for each program that
ended, and the guard has nobody to report to.

The supervisors' side imports only what starts fast.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # as in typing, whose import takes longer than all the others
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import IO, Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE = 5.0  # seconds for what has been killed to end


def start(
    script: Path, order: Mapping[str, object], *arguments: str, pipe: int = 0, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a supervisor.

    :param script: its program.
    :param order: plain JSON, without secrets.
    :param arguments: further arguments, for what is too long for one: Linux limits each to 128 KiB, execve(2).
    :param pipe: the descriptor on which the supervisor reads messages; default its stdin.
    :param options: of :class:`subprocess.Popen`.
    """
    import subprocess

    text = json.dumps({**order, "worker": os.getpid(), "pipe": pipe})
    # A session of its own: Ctrl-C on a terminal is for the worker, which then stops its supervisors.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", os.fspath(script), text, *arguments], start_new_session=True, **options
    )


def send(pipe: IO[bytes], message: object) -> None:
    """Send a supervisor a message; nothing happens if the supervisor has ended."""
    data = memoryview(json.dumps(message).encode() + b"\n")
    try:
        while data:
            data = data[pipe.write(data) :]
        pipe.flush()
    except BrokenPipeError:
        return


class Worker:
    """The worker, seen from its supervisor.

    :ivar order: what :func:`start` was given.
    """

    def __init__(self) -> None:
        self.order: dict[str, Any] = json.loads(sys.argv[1])
        self._pid: int = self.order["worker"]
        self._pipe: int = self.order["pipe"]
        self._received = b""
        os.set_blocking(self._pipe, False)

    def watch(self, at_death: Callable[[], None] = lambda: None) -> None:
        """Notice the worker's death from now on, and whether it is dead already.

        :param at_death: called then, in a signal handler. Without it, :meth:`wait` and :meth:`receive` return.
        """

        def check(*_: object) -> None:
            if self.is_dead():
                at_death()

        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._signals = reader
        signal.signal(signal.SIGUSR1, check)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # inherited from a thread that blocks signals
        set_death_signal(signal.SIGUSR1)
        check()

    def is_dead(self) -> bool:
        return os.getppid() != self._pid

    def wait(self, seconds: float | None = None, *, for_worker: bool = True) -> bool:
        """Wait for a message, the worker's end, or a signal that has a handler, such as SIGCHLD.

        :param seconds: the longest wait; None for no limit.
        :param for_worker: False to wait only for a signal.
        :return: True if there is a message, or the worker has closed the pipe or is dead.
        """
        poll = select.poll()  # select() takes no descriptor above 1023
        for descriptor in (self._signals, self._pipe) if for_worker else (self._signals,):
            poll.register(descriptor, select.POLLIN)
        if for_worker and self.is_dead():
            return True
        ready = [descriptor for descriptor, _ in poll.poll(None if seconds is None else max(seconds, 0) * 1000)]
        if self._signals in ready:
            os.read(self._signals, 512)
        return for_worker and (self._pipe in ready or self.is_dead())

    def receive(self) -> Any:
        """Return the next message; None if the worker has closed the pipe or is dead."""
        while b"\n" not in self._received:
            if not self.wait():
                continue
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:  # the worker is dead, and another process holds the pipe open
                return None
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """Close the descriptors; a function given to :meth:`watch` is still called."""
        signal.set_wakeup_fd(-1)
        for descriptor in (self._pipe, self._signals):
            os.close(descriptor)


def set_death_signal(number: int) -> None:
    """Have the kernel send this process a signal when the thread that started it ends; prctl(2). Only Linux has it."""
    getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)(PR_SET_PDEATHSIG, int(number))


def adopt_orphans() -> None:
    """Become the parent of each process below this one whose own parent ends; prctl(2). Only Linux has it."""
    getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)(PR_SET_CHILD_SUBREAPER, 1)


def kill_orphans(group: int | None = None) -> None:
    """Kill the children of this process, and the children that this leaves, and reap them.

    Without this, the zombies of orphans stay where the first process of a container reaps none: each ``bwrap`` ends
    before the process that it started.

    :param group: only those of this process group.
    """
    own = f"/proc/self/task/{os.getpid()}/children"  # proc(5), of kernels with CONFIG_PROC_CHILDREN
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        try:
            with open(own) as file:  # noqa: PTH123
                children = [int(pid) for pid in file.read().split()]
        except OSError:
            return
        # Our children: their pids cannot be reused until they are reaped.
        children = [pid for pid in children if group is None or os.getpgid(pid) == group]
        if not children:
            return
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def ignore_signals() -> None:
    """Ignore what is sent to a group, or by a service manager: it is for the worker, whose end a supervisor awaits."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
