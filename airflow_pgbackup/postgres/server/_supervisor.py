"""The supervisor of a server: ``python -I -S _supervisor.py ORDER``, run as a script.

For the protocol see :mod:`airflow_pgbackup.supervision`. ORDER is ``{"steps": [[program, argument, …], …], "log": file,
"remove": [path, …], "signals": [2, 9]}``. Runs the steps one after the other; the last one is the server. When the
worker closes the pipe or dies, it stops the server by the signals, and then removes the paths.

Writes ``exited STATUS`` to stdout for each step that ended, as :mod:`subprocess` has the status. Imports little, so
that it starts in 30 ms.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# At the end, so that no module of this package hides one of the standard library.
sys.path.append(os.path.abspath(f"{__file__}/../../../.."))  # noqa: PTH100

from airflow_pgbackup import private_directory, supervision

GRACE = 5.0  # seconds for each signal of the order before the next one


def main() -> None:
    supervision.ignore_signals()
    worker = supervision.Worker()
    # A process that a step starts in a session of its own becomes our child when its parent ends: it cannot escape.
    supervision.adopt_orphans()
    order = worker.order
    for path in order["remove"]:
        private_directory.hold(path)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that worker.wait() returns
    worker.watch()
    for step in order["steps"]:
        if worker.wait(0) or run(step, order["log"], order["signals"], worker) != 0:
            break
    while not worker.wait():  # the worker can read the log of a server that has ended until it lets us go
        pass
    for path in order["remove"]:
        remove(Path(path))


def run(argv: list[str], log: str, signals: list[int], worker: supervision.Worker) -> int:
    """Run one step and return its exit status; stop it when the worker has ended."""

    def in_child() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        supervision.set_death_signal(signals[-1])  # for a death of the supervisor alone

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
        if worker.wait():
            for number in signals:
                os.kill(child.pid, number)  # send_signal() would reap it
                deadline = time.monotonic() + GRACE
                while not ended(child.pid) and (left := deadline - time.monotonic()) > 0:
                    worker.wait(left, for_worker=False)
    # Kill what the step left in its session. Before it is reaped, so that the group's number cannot be reused.
    os.killpg(child.pid, signal.SIGKILL)
    status = child.wait()
    supervision.kill_orphans()
    say(f"exited {status}")
    return status


def ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def remove(path: Path) -> None:
    for _ in range(20):  # after a supervisor was killed, its server can still be writing here
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
    except BrokenPipeError:  # the worker is dead; the next wait() notices
        return


if __name__ == "__main__":
    main()
