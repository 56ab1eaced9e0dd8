"""The process between us and a throwaway server: run as a script, never imported.

``python -I -S _keeper.py '{"steps": [[program, argument, …], …], "log": file, "remove": [path, …], "signals": [2]}'``

Runs the steps one after the other; the last is the server. When our end of its stdin closes, by intent or because we
were killed, it stops the server and removes the folders. ``PR_SET_PDEATHSIG`` alone would not do: it fires when the
*thread* that started the child ends, does not reach a server's own children, and removes nothing.

stdout: ``pid N`` for every step, ``exited STATUS`` (as :mod:`subprocess` has it) for each one that ended.
Only the standard library, so that it starts in 30 ms.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
GRACE = 5.0  # seconds for each signal of the order before the next one
TICK = 0.05


def main(order: dict[str, Any]) -> None:
    # Ctrl-C and a service manager's TERM are for the one who started us; our end comes by stdin.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        for step in order["steps"]:
            if run(step, order["log"], order["signals"]) != 0:
                break
        while not abandoned(1.0):  # the folder stays for a look at the log until we are told to go
            pass
    finally:
        for path in order["remove"]:
            shutil.rmtree(path, ignore_errors=True)
            if os.path.lexists(path):  # a file or socket
                Path(path).unlink()


def run(argv: list[str], log: str, signals: list[int]) -> int:
    """Exit status of one step; stops it when we are abandoned."""
    prctl = ctypes.CDLL(None).prctl

    def in_child() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signals[-1])  # for the keeper's own sudden end

    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=descriptor,
        stderr=descriptor,
        preexec_fn=in_child,
        start_new_session=True,
    )
    os.close(descriptor)
    say(f"pid {child.pid}")
    while child.poll() is None:
        if not abandoned(TICK):
            continue
        for number in signals:
            child.send_signal(number)
            deadline = time.monotonic() + GRACE
            while child.poll() is None and time.monotonic() < deadline:
                time.sleep(TICK / 5)
            if child.returncode is not None:
                break
        break
    try:
        os.killpg(child.pid, signal.SIGKILL)  # whatever the step itself left in its session's group
    except (ProcessLookupError, PermissionError):
        pass
    status = child.wait()
    say(f"exited {status}")
    return status if status else (1 if abandoned(0) else 0)


def abandoned(seconds: float) -> bool:
    """True once the other end of our stdin is closed; waits up to `seconds` for it."""
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and os.read(0, 1) == b""


def say(line: str) -> None:
    try:
        os.write(1, line.encode() + b"\n")
    except BrokenPipeError:
        pass


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
