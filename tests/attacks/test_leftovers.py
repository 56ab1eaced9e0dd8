"""A killed worker leaves no password file, no server and no copy; and files of others are never touched."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty_s3 import FaultyS3
from leftovers import environment, family, kill_family, kill_together, named, run, wait_for, with_secret, worker

from airflow_pgbackup.backup.databases.sessions import Session
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import DiskError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.private_directory import GRACE, PREFIX, PrivateDirectory, sweep

FILL = (
    "create table t (a int primary key, b text)",
    "insert into t select n, md5(n::text) || md5((n + 1)::text) from generate_series(1, 3000) n",
)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The directory for the workers' temporary files."""
    path = tmp_path / "tmp"
    path.mkdir()
    return path


@pytest.fixture
def stalled(s3: S3Server) -> Iterator[FaultyS3]:
    """An S3 store that can stop answering."""
    with FaultyS3(s3.endpoint_url).running() as proxy:
        yield proxy


def waits_for_the_table(holder: Session) -> bool:
    """Whether pg_dump waits for the lock that this session holds."""
    return holder.execute("select from pg_locks where relation = 't'::regclass and not granted").rowcount > 0


# -- the password file


def test_no_password_file_while_an_upload_goes_on_after_the_dump(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    s3: S3Server,
    stalled: FaultyS3,
    temporary: Path,
    canary: str,
) -> None:
    database = fresh_database(server18, None, *FILL)
    env = environment(server18, temporary, s3, stalled.url)
    repository = f"s3://{s3.bucket()}/pg"
    run("init", repository, env=env)
    fault = stalled.fault("PutObject", "stall", seconds=600, when=lambda call: call.size > 10_000)
    with worker("dump", repository, "-d", database.dbname, "--server", "s", env=env) as process:
        with database.connect(autocommit=False) as holder:
            holder.execute("lock table t")
            wait_for(lambda: waits_for_the_table(holder))
            assert with_secret(temporary, canary)
        wait_for(lambda: fault.hits and len(family(process.pid)) == 1)
        assert process.poll() is None
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("verb", ["dump", "check", "prune"])
def test_the_next_run_sweeps_what_workers_killed_together_with_their_tools_left(
    verb: str,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    temporary: Path,
    tmp_path: Path,
    canary: str,
) -> None:
    database = fresh_database(server18, None, *FILL)
    env = environment(server18, temporary)
    repository = f"file://{tmp_path / 'repository'}"
    run("init", repository, env=env)
    dump = ["dump", repository, "-d", database.dbname, "--server", "s"]
    with database.connect(autocommit=False) as holder:
        holder.execute("lock table t")  # which pg_dump waits for
        with worker(*dump, env=env) as process:
            wait_for(lambda: waits_for_the_table(holder))
            kill_family(process.pid)
    (left,) = temporary.iterdir()
    assert with_secret(left, canary)  # no process was left to remove it
    verbs = {
        "dump": dump,
        "check": ["check", "-d", database.dbname],
        "prune": ["prune", repository, "--delete", "--keep-last=1"],
    }
    said = run(*verbs[verb], env=env)
    assert list(temporary.iterdir()) == []
    assert f"removed the leftovers of a killed process: {left}" in said.replace("\n", "")


TOOLS = """
import sys
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.tools.process import run_tool
env = client_environment(ConnectionParams(keywords={"host": "h"}, password=sys.argv[1]))
while True:
    run_tool(["sh", "-c", "exit 0"], env=env)
    print(flush=True)
"""


@pytest.mark.parametrize("together", [False, True])
def test_kills_at_any_moment_leave_nothing_after_the_next_run(together: bool, temporary: Path, canary: str) -> None:
    rng = random.Random(7)
    env = {**os.environ, "TMPDIR": str(temporary)}
    workers = []
    for _ in range(5):
        workers.append(subprocess.Popen([sys.executable, "-c", TOOLS, canary], env=env, stdout=subprocess.PIPE))
    for process in workers:
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            kill_family(process.pid) if together else process.kill()
    if not together:  # the leaders of the tools need a moment to notice it
        wait_for(lambda: not [pid for pid in Path("/proc").glob("[0-9]*") if _runs_in(pid, temporary)])
        assert with_secret(temporary, canary) == []

    def unlocked_are_left() -> bool:  # killed between making the directory and locking it
        sweep(temporary)
        return all({path.name for path in left.iterdir()} <= {".lock.new"} for left in temporary.iterdir())

    wait_for(unlocked_are_left)  # the kernel releases the locks when a killed process has ended
    for left in temporary.iterdir():
        os.utime(left, (time.time() - 2 * GRACE,) * 2)
    sweep(temporary)
    assert list(temporary.iterdir()) == []


def _runs_in(process: Path, temporary: Path) -> bool:
    try:
        return os.fsencode(temporary) in (process / "cmdline").read_bytes()
    except OSError:
        return False


# -- servers

SERVER = """
import sys, time
from pathlib import Path
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
with S3Server() if sys.argv[1] == "weed" else PostgresServer(postgres_bin_dir(18), contained=True):
    print(flush=True)
    time.sleep(3600)
"""


@contextmanager
def a_server(name: str, temporary: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps a server running."""
    argv = [sys.executable, "-c", SERVER, name]
    with subprocess.Popen(argv, env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert named(family(process.pid), name)
            yield process
        finally:
            process.kill()


def alive(pids: Sequence[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


@pytest.mark.parametrize("name", ["postgres", "weed"])
def test_no_server_outlives_its_worker_and_its_supervisor(name: str, temporary: Path) -> None:
    with a_server(name, temporary) as process:
        everyone = family(process.pid)
        kill_together(everyone[:2])
    wait_for(lambda: not alive(everyone))


def test_the_directory_of_a_server_is_swept_when_no_process_holds_it(temporary: Path) -> None:
    with a_server("weed", temporary) as process:
        _, supervisor, server = family(process.pid)
        assert sweep(temporary) == []
        os.kill(supervisor, signal.SIGSTOP)
        process.kill()
        process.wait()
        assert sweep(temporary) == []
        kill_together([supervisor])
        wait_for(lambda: not alive([supervisor, server]))
    (left,) = temporary.iterdir()
    assert sweep(temporary) == [str(left)]
    assert list(temporary.iterdir()) == []


# -- ownership

DIE = """
import os, sys
from airflow_pgbackup.private_directory import PrivateDirectory
for _ in range(int(sys.argv[2])):
    path = PrivateDirectory(sys.argv[1]).__enter__()
    (path / "pgpass").write_text("h:*:*:*:secret")
    print(path)
sys.stdout.flush()
os._exit(1)
"""


def leave(temporary: Path, count: int = 1) -> list[Path]:
    """Private directories whose maker has ended."""
    done = subprocess.run([sys.executable, "-c", DIE, temporary, str(count)], stdout=subprocess.PIPE, text=True)
    return [Path(line) for line in done.stdout.splitlines()]


def test_directories_of_others_or_in_use_stay(temporary: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / ".lock").touch()
    (precious / "file").write_text("precious")
    old = time.time() - 2 * GRACE

    def place(name: str) -> Path:
        path = temporary / f"{PREFIX}{name}"
        path.mkdir(mode=0o700)
        (path / ".lock").touch()
        (path / "file").write_text("precious")
        return path

    (temporary / f"{PREFIX}link").symlink_to(precious)
    (temporary / f"{PREFIX}file").write_text("precious")
    os.mkfifo(temporary / f"{PREFIX}fifo")
    place("open to others").chmod(0o777)
    unlocked = place("without a lock file")
    (unlocked / ".lock").unlink()
    lock_elsewhere = place("lock is a link")
    (lock_elsewhere / ".lock").unlink()
    (lock_elsewhere / ".lock").symlink_to(precious / "file")
    (temporary / f"{PREFIX}just made").mkdir()
    (temporary / "pgbackup").mkdir()
    if os.geteuid() == 0:  # only root can make one
        os.chown(place("another user's"), 65534, 65534)
    for path in (unlocked, lock_elsewhere):
        os.utime(path, (old, old))
    with PrivateDirectory(temporary) as ours:
        before = sorted(temporary.rglob("*"))
        assert sweep(temporary, tmp_path / "does not exist", precious / "file") == []
        assert ours.is_dir()
        assert sorted(temporary.rglob("*")) == before
    assert (precious / "file").read_text() == "precious"


def test_a_directory_whose_maker_was_killed_before_its_lock_is_swept_when_it_is_old(temporary: Path) -> None:
    bare, started = (temporary / f"{PREFIX}{name}" for name in ("bare", "started"))
    bare.mkdir(mode=0o700)
    started.mkdir(mode=0o700)
    (started / ".lock.new").touch()
    assert sweep(temporary) == []
    for path in (bare, started):
        os.utime(path, (time.time() - 2 * GRACE,) * 2)
    assert sorted(sweep(temporary)) == [str(bare), str(started)]
    assert list(temporary.iterdir()) == []


def test_the_contents_of_a_leftover_do_no_harm(temporary: Path, tmp_path: Path) -> None:
    """SQL can make these in a throwaway server's directory: links, depth, directories closed to their owner."""
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    (precious / "file").write_text("precious")
    (left,) = leave(temporary)
    (left / "data").mkdir()
    (left / "data" / "link").symlink_to(precious)
    (left / "data" / "file").symlink_to(precious / "file")
    os.link(precious / "file", left / "data" / "hard link")
    os.mkfifo(left / "data" / "fifo")
    closed = left / "data" / "closed"
    (closed / "inner" / "innermost").mkdir(parents=True)
    (closed / "inner" / "file").touch()
    for path in (closed / "inner", closed):
        path.chmod(0)
    inside = os.open(left / "data", os.O_DIRECTORY)
    for _ in range(1100):  # exceeds the stack, the length of a path, and the usual limit of descriptors
        os.mkdir("deeper", dir_fd=inside)
        below = os.open("deeper", os.O_DIRECTORY, dir_fd=inside)
        os.close(inside)
        inside = below
    os.close(inside)
    assert sweep(temporary) == [str(left)]
    assert list(temporary.iterdir()) == []
    assert (precious / "file").read_text() == "precious"
    assert precious.stat().st_mode & 0o777 == 0o755


def test_concurrent_sweeps_while_directories_are_made_and_removed(temporary: Path) -> None:
    left = leave(temporary, 200)
    swept: list[str] = []
    broken: list[BaseException] = []
    done = threading.Event()

    def come_and_go() -> None:
        try:
            while not done.is_set():
                with PrivateDirectory(temporary) as ours:
                    (ours / "file").write_text("ours")
                    time.sleep(0.001)
                    assert (ours / "file").read_text() == "ours"
        except BaseException as error:
            broken.append(error)

    def sweep_all() -> None:
        for _ in range(20):
            swept.extend(sweep(temporary))

    makers = [threading.Thread(target=come_and_go) for _ in range(3)]
    sweepers = [threading.Thread(target=sweep_all) for _ in range(3)]
    for thread in (*makers, *sweepers):
        thread.start()
    for thread in sweepers:
        thread.join()
    done.set()
    for thread in makers:
        thread.join()
    assert broken == []
    assert sorted(swept) == sorted(map(str, left))  # each one by exactly one sweep
    assert list(temporary.iterdir()) == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="No such file or directory") as caught, PrivateDirectory(tmp_path / "none"):
        pass
    assert caught.value.hint
