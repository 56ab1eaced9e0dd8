"""Workers to kill, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]


def environment(
    server: PostgresServer, temporary: Path, s3: S3Server | None = None, endpoint: str = ""
) -> dict[str, str]:
    """Return the environment of a worker with its own directory for temporary files."""
    keywords = server.params.keywords
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWS_"))}
    env |= {"TMPDIR": str(temporary), "HOME": str(temporary.parent), "PGHOST": keywords["host"]}
    env |= {"PGPORT": keywords["port"], "PGUSER": keywords["user"], "PGPASSWORD": str(server.params.password)}
    if s3:
        env |= {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
        env |= {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_REGION": "us-east-1"}
    return env


@contextmanager
def worker(*arguments: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``pgbackup ARGUMENT…`` as a process; kill it at the end."""
    with subprocess.Popen([*PROGRAM, *arguments], env=env, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*arguments: str, env: dict[str, str]) -> str:
    """Run ``pgbackup ARGUMENT…`` to its end; return its stdout and stderr."""
    done = subprocess.run([*PROGRAM, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.002)


def family(pid: int) -> list[int]:
    """Return a process and all its descendants that are visible at this moment."""
    found, at = [pid], 0
    while at < len(found):
        with suppress(OSError):  # a process has ended meanwhile
            for tasks in Path(f"/proc/{found[at]}/task").glob("*/children"):
                found += map(int, tasks.read_text().split())
        at += 1
    return found


def named(pids: Sequence[int], name: str) -> list[int]:
    """Return the processes whose program has this name."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
    return found


def kill_together(pids: Sequence[int]) -> None:
    """Kill processes as the kernel does when a cgroup is out of memory: none of them can react."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def kill_family(pid: int) -> None:
    """Kill a process and all its descendants in the same way, including those that it is just starting."""
    known: list[int] = []
    while new := [each for each in family(pid) if each not in known]:
        for each in new:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        known += new
    kill_together(known)


def with_secret(directory: Path, secret: str) -> list[Path]:
    """Return every file below the directory that contains the password in pgpass form."""
    written = secret.replace("\\", "\\\\").replace(":", "\\:").encode()
    found = []
    for path in directory.rglob("*"):
        with suppress(OSError):
            if path.is_file() and written in path.read_bytes():
                found.append(path)
    return found
