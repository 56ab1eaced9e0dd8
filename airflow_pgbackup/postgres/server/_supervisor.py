"""The process between us and a throwaway server: run as a script, never imported.

``python -I -S _supervisor.py ORDER``, where ORDER is JSON: ``{"parent": pid, "steps": [[program, argument, …], …],
"log": file, "remove": [path, …], "signals": [2, 9]}``

Runs the steps one after the other; the last is the server. When our end of its stdin closes, by intent or because we
were killed, it stops the server and removes the folders. ``PR_SET_PDEATHSIG`` alone would not do: it fires when the
*thread* that started the child ends, does not reach a server's own children, and removes nothing.

stdout: ``exited STATUS`` (as :mod:`subprocess` has it) for each step that ended. Imports little, so that
it starts in 30 ms.
"""

import ctypes
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# At the end: the names of this package must not stand in for those of the standard library.
sys.path.append(os.path.abspath(f"{__file__}/../../../.."))  # noqa: PTH100

from airflow_pgbackup import private_directory

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE = 5.0  # seconds for each signal of the order before the next one
LOOK = 2.0  # seconds between two looks whether our parent is still there

parent = 0  # the process that gave the order


def main(order: dict[str, Any]) -> None:
    # Ctrl-C and a service manager's TERM are for the one who started us; our end comes by stdin.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    global parent
    parent = order["parent"]
    # Whatever a step starts in a session of its own becomes our child when its parent ends, and does not get away.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for path in order["remove"]:
        private_directory.hold(path)
    children = children_pipe()
    for step in order["steps"]:
        if wait(children, 0) == "abandoned" or run(step, order["log"], order["signals"], children) != 0:
            break
    while wait(children) != "abandoned":  # the folder stays for a look at the log until we are told to go
        pass
    for path in order["remove"]:
        remove(Path(path))


def run(argv: list[str], log: str, signals: list[int], children: int) -> int:
    """Exit status of one step; stops it when we are abandoned."""
    prctl = ctypes.CDLL(None).prctl

    def in_child() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signals[-1])  # for the supervisor's own sudden end

    with Path(log).open("ab") as output:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=in_child,
                start_new_session=True,
            )
        except OSError as error:
            output.write(f"cannot run {argv[0]}: {error.strerror}\n".encode())
            say("exited 127")
            return 127
    while not ended(child.pid):
        if wait(children) == "abandoned":
            for number in signals:
                os.kill(child.pid, number)  # send_signal() would reap it
                deadline = time.monotonic() + GRACE
                while not ended(child.pid) and (left := deadline - time.monotonic()) > 0:
                    wait(children, left, stdin=False)
    # What the step left in its session. Before it is reaped, as long as the group's number is surely its own.
    os.killpg(child.pid, signal.SIGKILL)
    status = child.wait()
    kill_adopted()
    say(f"exited {status}")
    return status


def kill_adopted() -> None:
    """End what the step left in other sessions, and what that leaves, until there is nothing left."""
    own = Path(f"/proc/self/task/{os.getpid()}/children")  # proc(5), of kernels with CONFIG_PROC_CHILDREN
    deadline = time.monotonic() + GRACE
    while own.exists() and time.monotonic() < deadline:
        for pid in map(int, own.read_text().split()):
            os.kill(pid, signal.SIGKILL)  # a child of ours: its number is its own until it is reaped
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def children_pipe() -> int:
    """A descriptor that becomes readable when a child ends."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def wait(children: int, seconds: float = LOOK, *, stdin: bool = True) -> str:
    """Until one of: ``abandoned``, the other end of our stdin is closed; ``child``, one ended; ``time``."""
    poll = select.poll()  # select() takes no descriptor above 1023
    for descriptor in (children, 0) if stdin else (children,):
        poll.register(descriptor, select.POLLIN)
    ready = [descriptor for descriptor, _ in poll.poll(math.ceil(seconds * 1000))]
    # A process that our parent forked holds a copy of that other end.
    if 0 in ready or (stdin and os.getppid() != parent):
        return "abandoned"
    if children in ready:
        os.read(children, 512)
        return "child"
    return "time"


def remove(path: Path) -> None:
    for _ in range(20):  # when we were killed, another supervisor's server may still be writing in there
        if path.is_dir() and not path.is_symlink():
            private_directory.remove(path)
        else:
            path.unlink(missing_ok=True)
        if not os.path.lexists(path):
            return
        time.sleep(0.25)


def say(line: str) -> None:
    try:
        os.write(1, line.encode() + b"\n")
    except BrokenPipeError:  # we are abandoned, as the next look at stdin tells
        return


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
