"""The protocol between a worker and its supervisors, with a supervisor that only writes down what it notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from airflow_pgbackup import supervision

ROOT = Path(supervision.__file__).parents[1]
SUPERVISOR = f"""
import os, sys
sys.path.append({str(ROOT)!r})
from airflow_pgbackup import supervision

def note(text):
    with open(worker.order["notes"], "a") as file:
        file.write(text + "\\n")

worker = supervision.Worker()
worker.watch()
note(f"watching {{os.getpid()}}")
while (message := worker.receive()) is not None:
    note(f"message {{message!r}}")
note("dead" if worker.is_dead() else "closed")
"""
WORKER = """
import os, subprocess, sys, time
sys.path.append(sys.argv[1])
from pathlib import Path
from airflow_pgbackup import supervision

script, notes = map(Path, sys.argv[2:4])
supervisor = supervision.start(script, {"notes": str(notes)}, stdin=subprocess.PIPE)
if os.fork() == 0:  # holds the pipe open when the worker is dead
    sys.stdin.read()
    os._exit(0)
while not notes.exists():
    time.sleep(0.01)
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "supervisor.py"
    path.write_text(SUPERVISOR)
    return path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def eventually(notes: Path, line: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not notes.exists() or line not in notes.read_text().splitlines():
        assert time.monotonic() < deadline, f"no {line!r} in {notes.read_text() if notes.exists() else None!r}"
        time.sleep(0.01)


def pipe_of(supervisor: subprocess.Popen[bytes]) -> IO[bytes]:
    assert supervisor.stdin is not None
    return supervisor.stdin


@pytest.fixture
def supervisor(script: Path, notes: Path) -> Iterator[subprocess.Popen[bytes]]:
    with supervision.start(script, {"notes": str(notes)}, stdin=subprocess.PIPE) as started:
        yield started


def test_messages_arrive_in_order_and_whole(supervisor: subprocess.Popen[bytes], notes: Path) -> None:
    supervision.send(pipe_of(supervisor), {"password": "s\u00e9cret \udce9", "lines": "a\nb"})
    supervision.send(pipe_of(supervisor), "x" * 300_000)
    pipe_of(supervisor).close()
    assert supervisor.wait(60) == 0
    lines = notes.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    assert lines[1:] == [
        "message {'password': 's\u00e9cret \\udce9', 'lines': 'a\\nb'}",
        f"message {'x' * 300_000!r}",
        "closed",
    ]


def test_the_order_is_in_the_arguments_and_messages_are_not(supervisor: subprocess.Popen[bytes], notes: Path) -> None:
    supervision.send(pipe_of(supervisor), "secret")
    eventually(notes, "message 'secret'")
    arguments = Path(f"/proc/{supervisor.pid}/cmdline").read_bytes()
    assert str(notes).encode() in arguments
    assert b"secret" not in arguments


def test_the_end_of_the_thread_that_started_it_is_not_the_end_of_the_worker(script: Path, notes: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(
        target=lambda: started.append(supervision.start(script, {"notes": str(notes)}, stdin=subprocess.PIPE))
    )
    thread.start()
    thread.join()
    (supervisor,) = started
    with supervisor:
        supervision.send(pipe_of(supervisor), "still here")
        eventually(notes, "message 'still here'")
        os.kill(supervisor.pid, signal.SIGUSR1)  # as the kernel does at the end of that thread
        supervision.send(pipe_of(supervisor), "and now")
        eventually(notes, "message 'and now'")
        pipe_of(supervisor).close()
        eventually(notes, "closed")


def test_the_death_of_the_worker_is_noticed_though_another_process_holds_the_pipe(script: Path, notes: Path) -> None:
    argv = [sys.executable, "-c", WORKER, str(ROOT), str(script), str(notes)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"started\n"
        worker.kill()
        eventually(notes, "dead")


def test_a_worker_that_died_before_it_was_watched_is_noticed(script: Path, notes: Path) -> None:
    launcher = "import subprocess, sys; subprocess.Popen(sys.argv[1:])"
    order = json.dumps({"worker": os.getpid(), "pipe": 0, "notes": str(notes)})  # the launcher is the parent
    argv = [sys.executable, "-c", launcher, sys.executable, "-I", "-S", str(script), order]
    with subprocess.Popen(argv, stdin=subprocess.PIPE):
        eventually(notes, "dead")


def test_sending_to_a_supervisor_that_ended_does_nothing(supervisor: subprocess.Popen[bytes]) -> None:
    supervisor.kill()
    os.waitid(os.P_PID, supervisor.pid, os.WEXITED | os.WNOWAIT)
    supervision.send(pipe_of(supervisor), "anybody?")
    with pytest.raises(BrokenPipeError):
        pipe_of(supervisor).close()
