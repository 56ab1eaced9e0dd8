"""Workers to kill, and what they leave."""

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
    """Of a worker that has a directory for temporary files of its own."""
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
    """``pgbackup ARGUMENT…`` as a process, killed at the end."""
    with subprocess.Popen([*PROGRAM, *arguments], env=env, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*arguments: str, env: dict[str, str]) -> str:
    """The same, to its end; what it writes to stdout and stderr."""
    done = subprocess.run([*PROGRAM, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def wait_for(what: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


def family(pid: int) -> list[int]:
    """A process and all its descendants, as far as they can be seen at this moment."""
    found, at = [pid], 0
    while at < len(found):
        with suppress(OSError):  # a process ends while it is looked at
            for tasks in Path(f"/proc/{found[at]}/task").glob("*/children"):
                found += map(int, tasks.read_text().split())
        at += 1
    return found


def named(pids: Sequence[int], name: str) -> list[int]:
    """Those whose program has this name."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
    return found


def kill_together(pids: Sequence[int]) -> None:
    """As the kernel does when a cgroup is out of memory: none of them gets to do anything more."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def kill_family(pid: int) -> None:
    """The same, of a process and all its descendants, those too that it is just starting."""
    known: list[int] = []
    while new := [each for each in family(pid) if each not in known]:
        for each in new:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        known += new
    kill_together(known)


def with_secret(directory: Path, secret: str) -> list[Path]:
    """Every file below it in which the password shows, in the form that pgpass has for it."""
    written = secret.replace("\\", "\\\\").replace(":", "\\:").encode()
    found = []
    for path in directory.rglob("*"):
        with suppress(OSError):
            if path.is_file() and written in path.read_bytes():
                found.append(path)
    return found
