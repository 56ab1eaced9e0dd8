"""Run PostgreSQL's own programs: the only module that starts them.

The exit status travels with the data: if the tool failed, the reader over its stdout raises at the end of the stream.
Whoever copies the stream sees a read error, never a clean end of a bad dump.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import Canceled, DeadlineExceeded, ToolError
from airflow_pgbackup.postgres.tools import seccomp
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.leader import Leader
from airflow_pgbackup.postgres.tools.outcome import exit_status, failure
from airflow_pgbackup.postgres.tools.pipes import CHUNK, StderrLog, StdinFeeder, ToolOutput
from airflow_pgbackup.postgres.tools.watchdog import GIVE_UP_AFTER, Ending, Watchdog

__all__ = ["Cancel", "ToolOutput", "ToolProcess", "run_tool"]

_LONGEST_PAUSE = 0.05  # seconds


class ToolProcess:
    """One of PostgreSQL's tools, running for the length of a ``with``; its whole process group has ended afterwards.

    Leaving the ``with`` before the end of stdout or :meth:`wait` stops the tool and does not report how it ended; it
    signals before it waits (``subprocess`` waits first). Stopping means TERM to the group, and KILL after 2 s. If this
    process is killed, the group is killed too.

    :param argv: program and arguments; no shell.
    :param env: the complete environment of the tool. The tool's leader removes the files of a ``ClientEnvironment``,
        the password file among them, as soon as the tool ends, even if this process is killed.
    :param cancel: stops the tool when set.
    :param deadline: seconds from the start after which the tool is stopped.
    :param on_line: called in a thread with every line of stderr while the tool runs, without statements and rows. If it
        raises, the error is raised at the end of a tool that succeeded.
    :param stdin: read to its end by a thread and passed to the tool. If reading fails, the tool is stopped before it
        sees the end of its input, and that error is raised. None: ``/dev/null``.
    :param stdout: ``pipe``: read it from :attr:`stdout`.
    :param umask: dumps hold passwords in clear text, so only their owner can read the tool's files.
    :param within: the command that starts the tool in a sandbox, put before `argv`; see
        :mod:`airflow_pgbackup.postgres.server.sandbox`.
    :param may_start_processes: with False the kernel prevents it; see :mod:`airflow_pgbackup.postgres.tools.seccomp`.
    :param hide_values: its stderr must not show values that the server's messages quote.
    :raises ConfigurationError: `may_start_processes` is False, and this machine cannot prevent it.
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
        hide_values: bool = False,
    ) -> None:
        self.tool = Path(argv[0]).name
        self._argv = [*within, *(os.fspath(word) for word in argv)]
        self._sandboxed = bool(within)
        self._leader = Leader(env)
        self._cancel = cancel or Cancel()
        self._deadline = deadline
        self._watchdog = Watchdog(
            deadline=deadline,
            at_deadline=lambda: self._stop("deadline"),
            kill=lambda: self._signal(signal.SIGKILL),
        )
        self._stderr = StderrLog(on_line, hide_values=hide_values)
        self._feeder = None if stdin is None else StdinFeeder(stdin, on_error=lambda: self._stop("source"))
        self._pipe_stdout = stdout == "pipe"
        self._cwd = cwd
        self._umask = umask
        self._seccomp = ""
        if not may_start_processes:
            self._seccomp, self._argv = seccomp.applied(self._argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._output: ToolOutput | None = None
        self._threads: list[tuple[threading.Thread, float | None]] = []  # with the seconds to wait for its end
        self._unregister: Callable[[], None] = lambda: None
        # Both reentrant: a signal handler that sets the flag can interrupt the main thread while it holds them.
        self._alive = threading.RLock()
        self._concluding = threading.RLock()
        self._stop_reason: Ending | None = None
        self._status_lost = False
        self._concluded = False
        self._error: BaseException | None = None

    @property
    def pid(self) -> int:
        """The pid of the leader of the tool's process group; the tool is its child."""
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """None while the tool runs; negative for a signal, as in :mod:`subprocess`."""
        return self._child.returncode

    @property
    def stdout(self) -> ToolOutput:
        """The tool's stdout; at its end it raises what :meth:`wait` raises."""
        if self._output is None:
            raise RuntimeError("this ToolProcess is not running, or its stdout is not piped")
        return self._output

    @property
    def stderr_tail(self) -> list[str]:
        """The last lines of stderr, without statements and rows."""
        return list(self._stderr.tail)

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this ToolProcess is not running")
        return self._process

    def __enter__(self) -> ToolProcess:
        self._cancel.check()
        try:
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
        except OSError as error:
            raise self._not_started(error.strerror or str(error)) from error
        try:
            self._start_thread(self._watchdog.run)
            # Without a limit on its patience: it logs every line, even if the log is slow.
            self._start_thread(self._stderr.run, child.stderr, self._nothing_more)
            for pipe in filter(None, (child.stdin, child.stdout)):
                with contextlib.suppress(OSError):  # more than pipe-max-size, or over the user's limit, pipe(7)
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK)
            if self._feeder:
                self._start_thread(self._feeder.run, child.stdin, patience=GIVE_UP_AFTER)  # the source can hang
            if child.stdout:
                self._output = ToolOutput(child.stdout, at_end=self._finish, given_up=self._nothing_more)
            self._unregister = self._cancel.on_set(lambda: self._stop("canceled"))
            self._leader.release()
        except BaseException:
            self._close()
            for pipe in filter(None, (child.stdout, child.stderr)):  # their readers may not have started
                pipe.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def wait(self) -> None:
        """Wait for the tool's end; discard the rest of its stdout.

        :raises ToolError: the tool failed; :class:`ToolKilled`: it died by a signal that this process did not send.
        :raises DeadlineExceeded: the tool was stopped at its deadline.
        :raises Canceled: the tool was stopped because `cancel` was set; or it is set now.
        """
        while self._output and self._output.read(CHUNK):
            pass
        self._finish()

    def _start_thread(self, target: Callable[..., None], *args: object, patience: float | None = None) -> None:
        thread = threading.Thread(target=target, args=args, name=f"{self.tool} {target.__qualname__}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise self._not_started(str(error)) from error
        self._threads.append((thread, patience))

    def _not_started(self, why: str) -> ToolError:
        return ToolError(
            f"cannot start {self.tool}: {why}",
            tool=self.tool,
            exit_code=None,
            hint="Check this worker's limits on processes, open files and memory, such as the pids limit of a "
            "container.",
        )

    # -- stopping the tool

    def _stop(self, reason: Ending) -> None:
        """Begin to stop the tool and return at once; the watchdog does the rest."""
        if not self._concluded:
            self._stop_reason = self._stop_reason or reason
            self._signal(signal.SIGTERM)
            self._watchdog.note(reason)

    def _signal(self, number: signal.Signals) -> None:
        with self._alive:  # until the leader is reaped, the number of its group cannot be reused
            if self._child.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, number)

    def _nothing_more(self) -> bool:
        return self._watchdog.given_up or self._child.returncode is not None

    # -- its end

    def _finish(self) -> None:
        self._conclude()
        if self._error:
            raise self._error

    def _conclude(self) -> None:
        """Wait for the tool's end, kill what is left of its group, and note how it ended; only once."""
        with self._concluding:
            if self._concluded:
                return
            child = self._child
            if child.returncode is None:
                try:
                    _wait_for_end(child.pid)
                except ChildProcessError:  # subprocess would report exit 0
                    self._status_lost = True
                self._signal(signal.SIGKILL)  # for what the tool left running in its group
                with self._alive:
                    child.wait()
            self._leader.close()
            self._watchdog.note("ended")
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
            self._signal(signal.SIGKILL)  # for example at a second Ctrl-C
            self._conclude()
            raise
        finally:
            if self._child.stdin:
                with contextlib.suppress(OSError):
                    self._child.stdin.close()
            if self._output:
                self._output.close()

    def _how_it_ended(self, status: int) -> BaseException | None:
        status = exit_status(status, sandboxed=self._sandboxed)
        if self._stop_reason == "source" and self._feeder:
            return self._feeder.error
        if self._stop_reason == "canceled" or self._cancel.is_set():
            return Canceled(f"{self.tool} was stopped: the task was asked to stop")
        if self._stop_reason == "closed":
            return Canceled(f"{self.tool} was stopped before its end")
        if self._stop_reason == "deadline":
            return DeadlineExceeded(
                f"{self.tool} was still running at its deadline of {self._deadline:g} s and was stopped",
                tool=self.tool,
                exit_code=status,
                stderr=self.stderr_tail,
                hint="Raise the deadline, or find out what it waited for, such as a lock.",
            )
        if self._status_lost:
            return ToolError(
                f"{self.tool} ended, but its exit status is lost: other code in this process has collected it",
                tool=self.tool,
                exit_code=None,
                stderr=self.stderr_tail,
            )
        return failure(self.tool, status, self.stderr_tail) if status else self._stderr.error


def _wait_for_end(pid: int) -> None:
    """Wait until a child has ended, and leave it to be reaped.

    It asks again and again, as :meth:`subprocess.Popen.wait` does with a timeout: a signal that comes just before a
    call blocks does not interrupt the call, and its handler runs only when the call returns.

    :raises ChildProcessError: other code in this process has reaped it.
    """
    pause = 0.001
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


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
    """Run a tool and return its stdout; arguments and errors as for :class:`ToolProcess`.

    :param limit: bytes of output; more raises a :class:`ToolError`.
    """
    with ToolProcess(argv, env=env, cancel=cancel, deadline=deadline, on_line=on_line, stdin=stdin) as process:
        output = process.stdout.read(limit + 1)
        if len(output) > limit:
            raise ToolError(f"{process.tool} wrote more than {limit} bytes", tool=process.tool, exit_code=None)
        process.wait()
        return output
