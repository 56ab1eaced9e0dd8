"""PostgreSQL's own programs as children: the one place that starts them.

The exit status travels with the data: the reader over a tool's stdout raises at its end when the tool failed, so
whoever copies that stream somewhere sees a read error, never a clean end of a bad dump.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from airflow_pgbackup.errors import Cancelled, DeadlineExceeded, ToolError, ToolKilled
from airflow_pgbackup.postgres.tools import seccomp
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.leader import Leader
from airflow_pgbackup.postgres.tools.pipes import CHUNK, Readable, StderrLog, StdinFeeder, ToolOutput
from airflow_pgbackup.postgres.tools.stderr import detail_and_hint, errors_of, most_useful

__all__ = ["Cancel", "Readable", "ToolOutput", "ToolProcess", "run_tool"]

KILL_AFTER = 2.0
"""Seconds between TERM and KILL: Airflow's own KILL may come 5 s after its TERM."""

_GIVE_UP_AFTER = 1.0  # seconds after KILL; a pipe that is still open then is held by somebody outside the group

_Ending = Literal["cancelled", "deadline", "source", "closed", "ended"]


class ToolProcess:
    """A tool of PostgreSQL, for the length of a ``with``; its whole process group is gone afterwards.

    Leaving the ``with`` before the end of stdout or :meth:`wait` stops the tool, signalling before it waits
    (``subprocess`` waits first), and says nothing of how it ended. To stop is TERM to the group, KILL after 2 s.
    When this process is killed, so is the group.

    :param argv: program and arguments; no shell.
    :param env: the whole environment of the child. The files of a ``ClientEnvironment``, the password's among them, are
        made for the tool and removed the moment it ends, by its leader, whatever becomes of this process.
    :param cancel: stops the tool when set.
    :param deadline: seconds from the start after which the tool is stopped.
    :param on_line: gets every line of stderr while the tool runs, in a thread, without statements and rows; what it
        raises is raised at the end of a tool that did well.
    :param stdin: read to its end by a thread and given to the tool. When reading it fails the tool is stopped before
        it sees an end of its input, and that error is raised. None: ``/dev/null``.
    :param stdout: ``pipe``: read it from :attr:`stdout`.
    :param umask: dumps hold passwords in clear, so the tool's files are for their owner only.
    :param within: what starts the tool inside a sandbox, put before `argv`; see :mod:`.postgres.sandbox`.
    :param may_start_processes: False makes the kernel refuse it: see :mod:`airflow_pgbackup.postgres.tools.seccomp`.
    :raises ConfigurationError: it must not start processes, and this machine cannot prevent it.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str],
        cancel: Cancel | None = None,
        deadline: float | None = None,
        on_line: Callable[[str], None] | None = None,
        stdin: Readable | None = None,
        stdout: Literal["pipe", "devnull"] = "pipe",
        cwd: str | os.PathLike[str] | None = None,
        umask: int = 0o077,
        within: Sequence[str] = (),
        may_start_processes: bool = True,
    ) -> None:
        self.tool = Path(argv[0]).name
        self._argv = [*within, *(os.fspath(word) for word in argv)]
        self._sandboxed = bool(within)
        self._leader = Leader(env)
        self._cancel = cancel or Cancel()
        self._deadline = deadline
        self._stderr = StderrLog(on_line)
        self._feeder = None if stdin is None else StdinFeeder(stdin, on_error=lambda: self._stop("source"))
        self._pipe_stdout = stdout == "pipe"
        self._cwd = cwd
        self._umask = umask
        self._seccomp = ""
        if not may_start_processes:
            self._seccomp, self._argv = seccomp.applied(self._argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._output: ToolOutput | None = None
        self._threads: list[tuple[threading.Thread, float | None]] = []  # and seconds that we wait for it
        self._unregister: Callable[[], None] = lambda: None
        # Both reentrant: a signal handler that sets the flag comes upon the main thread inside of them.
        self._alive = threading.RLock()
        self._concluding = threading.RLock()
        self._endings: queue.SimpleQueue[_Ending] = queue.SimpleQueue()  # its put() is reentrant
        self._stop_reason: _Ending | None = None
        self._given_up = False
        self._status_lost = False
        self._concluded = False
        self._error: BaseException | None = None

    @property
    def pid(self) -> int:
        """Of the leader of the tool's process group; the tool is its child."""
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative is a signal, as in :mod:`subprocess`."""
        return self._child.returncode

    @property
    def stdout(self) -> ToolOutput:
        """Raises at its end what :meth:`wait` raises."""
        if self._output is None:
            raise RuntimeError("this ToolProcess does not run, or its stdout is not piped")
        return self._output

    @property
    def stderr_tail(self) -> list[str]:
        """The last lines of stderr, without statements and rows."""
        return list(self._stderr.tail)

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this ToolProcess does not run")
        return self._process

    def __enter__(self) -> ToolProcess:
        self._cancel.check()
        self._process = child = self._leader.start(
            self._argv,
            seccomp=self._seccomp,
            bufsize=0,
            stdin=subprocess.PIPE if self._feeder else subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._pipe_stdout else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self._cwd,
            umask=self._umask,
        )
        try:
            self._start_thread(self._guard)
            self._start_thread(
                self._stderr.run, child.stderr, self._nothing_more
            )  # to the last line, if the log is slow
            for pipe in filter(None, (child.stdin, child.stdout)):
                with contextlib.suppress(OSError):  # over /proc/sys/fs/pipe-max-size, or too many of them
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK)
            if self._feeder:
                self._start_thread(self._feeder.run, child.stdin, patience=_GIVE_UP_AFTER)  # its source may hang
            if child.stdout:
                self._output = ToolOutput(child.stdout, at_end=self._finish, given_up=self._nothing_more)
            self._unregister = self._cancel.on_set(lambda: self._stop("cancelled"))
            self._leader.release()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def wait(self) -> None:
        """Wait for the tool's end, throwing away what is unread of its stdout.

        :raises ToolError: it failed; :class:`ToolKilled`: by a signal that is not ours.
        :raises DeadlineExceeded: it was stopped at its deadline.
        :raises Cancelled: it was stopped because `cancel` was set, or that is set now.
        """
        while self._output and self._output.read(CHUNK):
            pass
        self._finish()

    def _start_thread(self, target: Callable[..., None], *args: object, patience: float | None = None) -> None:
        thread = threading.Thread(target=target, args=args, name=f"{self.tool} {target.__qualname__}", daemon=True)
        thread.start()
        self._threads.append((thread, patience))

    # -- how it is stopped

    def _stop(self, reason: _Ending) -> None:
        """Begin to stop the tool; returns at once, the guard goes on from here."""
        if not self._concluded:
            self._stop_reason = self._stop_reason or reason
            self._signal(signal.SIGTERM)
            self._endings.put(reason)

    def _signal(self, number: signal.Signals) -> None:
        with self._alive:  # as long as its leader is not reaped, the group's number cannot become another's
            if self._child.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, number)

    def _guard(self) -> None:
        """A thread: stops the tool at its deadline, and kills it when TERM was not enough."""
        ending = self._next_ending(self._deadline)
        if ending is None:
            self._stop("deadline")
        if ending == "ended" or self._ended_within(KILL_AFTER):
            return
        self._signal(signal.SIGKILL)
        self._given_up = not self._ended_within(_GIVE_UP_AFTER)

    def _ended_within(self, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        while ending := self._next_ending(limit - time.monotonic()):
            if ending == "ended":
                return True
        return False

    def _next_ending(self, seconds: float | None) -> _Ending | None:
        try:
            return self._endings.get(timeout=None if seconds is None else min(max(seconds, 0), threading.TIMEOUT_MAX))
        except queue.Empty:
            return None

    def _nothing_more(self) -> bool:
        return self._given_up or self._child.returncode is not None

    # -- how it ended

    def _finish(self) -> None:
        self._conclude()
        if self._error:
            raise self._error

    def _conclude(self) -> None:
        """Wait for the end, leave nothing of the tool behind, and find out how it ended; once."""
        with self._concluding:
            if self._concluded:
                return
            child = self._child
            if child.returncode is None:
                try:
                    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
                except ChildProcessError:  # subprocess would call that exit 0
                    self._status_lost = True
                self._signal(signal.SIGKILL)  # what the tool left running in its group
                with self._alive:
                    child.wait()
            self._leader.close()
            self._endings.put("ended")
            for thread, patience in self._threads:
                thread.join(patience)
            self._unregister()
            self._error = self._how_it_ended(child.returncode)
            self._concluded = True

    def _close(self) -> None:
        try:
            self._stop("closed")
            self._conclude()
        except BaseException:
            self._signal(signal.SIGKILL)  # a second Ctrl-C, say: no more patience
            self._conclude()
            raise
        finally:
            if self._child.stdin:
                with contextlib.suppress(OSError):
                    self._child.stdin.close()
            if self._output:
                self._output.close()

    def _how_it_ended(self, status: int) -> BaseException | None:
        if self._sandboxed and status > 128:  # as a shell, bubblewrap says 128 + N for death by signal N
            status = 128 - status
        if self._stop_reason == "source" and self._feeder:
            return self._feeder.error
        if self._stop_reason == "cancelled" or self._cancel.is_set():
            return Cancelled(f"{self.tool} was stopped: the task was asked to stop")
        if self._stop_reason == "closed":
            return Cancelled(f"{self.tool} was stopped before its end")
        if self._stop_reason == "deadline":
            return DeadlineExceeded(
                f"{self.tool} still ran at its deadline of {self._deadline:g} s, and was stopped",
                tool=self.tool,
                exit_code=status,
                stderr=self.stderr_tail,
                hint="if it only needs longer, raise the deadline; else see what it waited for, as a lock",
            )
        if self._status_lost:
            return ToolError(
                f"{self.tool} ended, its exit status lost: other code in this process takes that of every child",
                tool=self.tool,
                exit_code=None,
                stderr=self.stderr_tail,
            )
        return _failure(self.tool, status, self.stderr_tail) if status else self._stderr.error


def _failure(tool: str, status: int, stderr: list[str]) -> ToolError:
    if status > 0:
        cause, hint = most_useful(stderr)
        detail, server_hint = detail_and_hint(stderr, cause)
        message = f"{tool} failed (exit {status}): {cause or 'no error output'}" + (f" ({detail})" if detail else "")
        return ToolError(message, tool=tool, exit_code=status, stderr=stderr, hint=hint or server_hint)
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        name = f"signal {-status}"
    cause, _ = most_useful(errors_of(stderr))  # what it told of its progress is no reason
    return ToolKilled(
        f"{tool} was killed by {name}" + (f": {cause}" if cause else ""),
        tool=tool,
        exit_code=status,
        stderr=stderr,
        hint="killed from outside, often by the OOM killer (see dmesg, memory limits)",
    )


def run_tool(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    cancel: Cancel | None = None,
    deadline: float | None = None,
    on_line: Callable[[str], None] | None = None,
    stdin: Readable | None = None,
    limit: int = 16 << 20,
) -> bytes:
    """What a tool writes to stdout; arguments and errors as for :class:`ToolProcess`.

    :param limit: bytes; more is a :class:`ToolError`.
    """
    with ToolProcess(argv, env=env, cancel=cancel, deadline=deadline, on_line=on_line, stdin=stdin) as process:
        output = process.stdout.read(limit + 1)
        if len(output) > limit:
            raise ToolError(f"{process.tool} wrote more than {limit} bytes", tool=process.tool, exit_code=None)
        process.wait()
        return output
