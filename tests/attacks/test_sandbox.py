"""A dump's SQL runs as superuser in a rehearsal's server: what it starts stays in the sandbox, and ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builds import BUILDS, Build, each

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConfigurationError, ConnectError, NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server import sandbox
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.settings import Settings

AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def inside() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), contained=True) as server:
        assert server.sandbox, server.uncontained
        yield server


def shell(server: PostgresServer, command: str) -> str:
    """Return the output of a command that the superuser has the server run."""
    with server.params.connect() as session:
        session.execute("create temporary table said (line text)")
        quoted = f"({command}) 2>&1; true".replace("'", "''")
        session.execute(f"copy said from program '{quoted}' with (delimiter E'\\x01')".encode())
        return "\n".join(line or "" for (line,) in session.execute("select line from said"))


def processes_with(word: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def started(word: str, besides: int = 0, seconds: float = 120.0) -> bool:
    limit = time.monotonic() + seconds
    while len(processes_with(word)) <= besides:
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def ended(word: str, seconds: float = 120.0) -> bool:
    limit = time.monotonic() + seconds
    while processes_with(word):
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


@each(BUILDS)
def test_it_starts_on_every_build(build: Build) -> None:
    with PostgresServer(build.bin_dir, contained=True) as server:
        assert server.sandbox, server.uncontained
        uid = str(server.sandbox.uid)
        assert shell(server, "id -u") == uid
        assert (int(uid) != os.geteuid()) == AS_ROOT


def test_it_sees_no_files_of_the_worker(inside: PostgresServer, tmp_path: Path, canary: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(canary)
    secret.chmod(0o644)
    tmp_path.chmod(0o755)
    assert "No such file" in shell(inside, f"cat {secret}")
    assert "No such file" in shell(inside, f"cat {Path(__file__)}")
    assert "No such file" in shell(inside, f"ls {Path.home()}/")
    for place in ("/etc/shadow", "/etc/hosts", "/var/log", "/var/run", "/root", "/home", "/proc/1/root/etc/shadow"):
        assert "such file" in shell(inside, f"ls {place}/.") or "denied" in shell(inside, f"ls {place}/."), place
    assert shell(inside, "ls -A /run") == ""
    names = shell(inside, "ls -A /tmp").split()
    shown = [str(path) for path in (inside.private_directory, inside.socket_dir, inside.bin_dir)]
    assert [name for name in names if not any(f"/tmp/{name}" in path for path in shown)] == []


def test_it_writes_nowhere_but_into_its_own_directories(inside: PostgresServer, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for place in (tmp_path, Path("/usr"), Path("/etc"), inside.bin_dir, inside.shared, inside.private_directory):
        shell(inside, f"mkdir -p {place}; touch {place}/marker")
        assert not (place / "marker").exists()


def test_programs_in_the_workers_own_directory_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """MWAA has HOME in /usr/local/airflow, which is hidden, with what pip installs in it."""
    bin_dir = postgres_bin_dir(18)
    home = bin_dir.parents[1]
    monkeypatch.setattr(sandbox, "_SYSTEM", (os.fspath(home.parent),))
    needed = sandbox._installation.__wrapped__
    assert bin_dir.parent not in needed(bin_dir)  # shown as part of the system
    monkeypatch.setenv("HOME", os.fspath(home))
    assert bin_dir.parent in needed(bin_dir)


def test_it_has_no_privileges_and_gains_none(inside: PostgresServer) -> None:
    status = dict(line.split(":\t", 1) for line in shell(inside, "cat /proc/self/status").splitlines() if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    limits = shell(inside, "cat /proc/self/limits")
    for name in ("Max processes", "Max address space", "Max file size"):
        (line,) = [line for line in limits.splitlines() if line.startswith(name)]
        assert "unlimited" not in line
    assert shell(inside, "cat /proc/self/oom_score_adj") == "1000"  # the kernel kills it before the worker
    for command in ("unshare --user true", "unshare --user --map-root-user --mount --net true"):
        said = shell(inside, command)
        assert "unshare failed" in said, said
    assert shell(inside, "grep -c : /proc/net/dev") == "1"  # its own loopback


def test_it_reaches_no_socket_of_the_host(inside: PostgresServer, server18: PostgresServer) -> None:
    """Neither a Unix socket in the file system nor a TCP port of the host."""
    for host in (server18.socket_dir, "127.0.0.1"):
        said = shell(inside, f"{inside.bin_dir}/psql -w -h {host} -p {server18.port} -U x -d postgres -c 'select 1'")
        assert "No such file or directory" in said or "Connection refused" in said, said


def test_it_sees_and_signals_no_process_of_the_host(inside: PostgresServer) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", "pgb_other"]) as other:
        try:
            seen = shell(inside, "ls -d /proc/[0-9]*").split()
            assert len(seen) < 40
            assert shell(inside, "grep -l pgb_othe[r] /proc/[0-9]*/cmdline") == ""
            shell(inside, f"kill -9 {other.pid}")
            assert other.poll() is None
        finally:
            other.kill()


LINGER = "PGB_LINGER={word} setsid sh -c 'while :; do sleep 1; done' > /dev/null 2>&1 < /dev/null &"


def test_a_process_in_a_session_of_its_own_ends_with_the_server() -> None:
    word = f"linger-{os.getpid()}-inside"
    with PostgresServer(postgres_bin_dir(18), contained=True) as server:
        assert server.sandbox
        shell(server, LINGER.format(word=word))
        assert started(word)
    assert processes_with(word) == []


def test_the_same_without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "find_bwraps", list)
    word = f"linger-{os.getpid()}-outside"
    with PostgresServer(postgres_bin_dir(18), contained=True) as server:
        assert server.sandbox is None
        assert shell(server, "id -u") in (
            "65534",
            str(os.geteuid()),
        )  # nobody, or a user without a name shown as nobody
        assert shell(server, "id -u") != "0"
        shell(server, LINGER.format(word=word))
        assert started(word)
    assert processes_with(word) == []


KILLED = """
import sys, time
from pathlib import Path
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
with PostgresServer(Path(sys.argv[1]), contained=True) as server:
    with server.params.connect() as session:
        session.execute("copy (select 1) to program 'cat > /dev/null; %s'" % sys.argv[2].replace("'", "''"))
    print("ready", flush=True)
    time.sleep(600)
"""


def test_nothing_inside_outlives_a_worker_that_is_killed() -> None:
    word = f"linger-{os.getpid()}-killed"
    command = [sys.executable, "-c", KILLED, str(postgres_bin_dir(18)), LINGER.format(word=word)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        assert started(word, besides=1)  # the worker's own argument has the word too
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert ended(word)


FIRST_PROCESS = """
import os
from airflow_pgbackup import supervision
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.process import run_tool

supervision.adopt_orphans()
bin_dir = postgres_bin_dir(18)
with PostgresServer(bin_dir, contained=True) as server:
    for _ in range(3):
        run_tool([*server.sandbox.command(bin_dir), bin_dir / "psql", "--version"], env={"PATH": os.defpath})
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("no children")
"""


def test_it_leaves_no_zombie_to_the_first_process_of_a_container(inside: PostgresServer) -> None:
    """``bwrap`` ends before the init that it starts, and a worker that is the first process reaps only its own."""
    first = subprocess.run([sys.executable, "-c", FIRST_PROCESS], capture_output=True, text=True)
    assert (first.stdout, first.stderr) == ("no children\n", "")


def test_two_at_once_share_nothing(inside: PostgresServer) -> None:
    with PostgresServer(postgres_bin_dir(18), contained=True) as other:
        assert inside.sandbox
        assert other.sandbox
        assert (inside.sandbox.uid != other.sandbox.uid) == AS_ROOT
        assert "such file" in shell(other, f"ls {inside.socket_dir}")
        assert "such file" in shell(other, f"ls {inside.private_directory}/data")


def test_directories_too_deep_for_python_are_removed() -> None:
    with PostgresServer(postgres_bin_dir(18), contained=True) as server:
        folder = server.private_directory
        deep = "d=1; while [ $d -lt 1500 ]; do mkdir -p d && cd d || exit; d=$((d+1)); done; echo $d"
        assert shell(server, f"cd {server.private_directory}/data; {deep}") == "1500"
    assert folder is not None
    assert not folder.exists()


def test_a_directory_it_writes_to_is_never_that_of_our_pipes(inside: PostgresServer, tmp_path: Path) -> None:
    """A rename between mkfifo() and chmod() would make us change the mode of any file."""
    victim = tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o600)
    assert inside.sandbox
    assert inside.shared.stat().st_uid == os.geteuid()
    said = shell(inside, f"mv {inside.shared} {inside.shared}.old; ln -s {victim} {inside.shared}/copy-0")
    assert "Read-only" in said or "denied" in said or "busy" in said, said
    assert list(inside.shared.iterdir()) == []
    assert victim.stat().st_mode & 0o777 == 0o600


if AS_ROOT:

    def test_a_socket_swapped_for_that_of_another_server_is_refused(server16: PostgresServer) -> None:
        with PostgresServer(postgres_bin_dir(18), contained=True) as server:
            socket = server.socket_dir / f".s.PGSQL.{server.port}"
            params = server.params
            # Done from outside: no other socket is visible inside.
            socket.rename(socket.with_name("old"))
            socket.symlink_to(server16.socket_dir / f".s.PGSQL.{server16.port}")
            ours = ConnectionParams(keywords=server16.params.keywords, password=server16.params.password)
            session = ours.connect()
            session.close()
            stranger = ConnectionParams(
                keywords={**params.keywords, "user": server16.superuser},
                password=server16.params.password,
                peer_uid=params.peer_uid,
            )
            with pytest.raises(ConnectError, match="belongs to uid"):
                stranger.connect()


def test_a_contained_server_has_no_password() -> None:
    with pytest.raises(ConfigurationError, match="no password"):
        PostgresServer(postgres_bin_dir(18), contained=True, password="x")


# -- through the verb

MARKED = """create function marked(int) returns int language plpgsql as $f$ begin
    if current_setting('jit') = 'off' then
        copy (select 1) to program 'cat > /dev/null; {command}';
    end if; return $1; end $f$"""


def hostile(
    server: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, command: str
) -> dict[str, object]:
    """A backup whose restore runs a command, if jit is off as in a throwaway server; the test's server has jit on."""
    database = fresh_database(
        server,
        None,
        MARKED.format(command=command.replace("'", "''")),
        "create table t (a int)",
        "insert into t values (1)",
        "set jit = on",
        "alter table t add check (marked(a) > 0)",
    )
    return dump_database(connection=database, server="s", repository=here, options=DumpOptions())


def test_a_dump_that_runs_a_command_runs_it_inside(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, tmp_path: Path
) -> None:
    """The commands run and succeed, so the rehearsal passes; none has an effect outside."""
    word = f"linger-{os.getpid()}-verb"
    places = f"{tmp_path}/marker /var/tmp/{word}.marker /tmp/{word}.marker"
    tmp_path.chmod(0o777)
    command = f"touch {places} 2> /dev/null; {LINGER.format(word=word)}"
    reference = hostile(server18, fresh_database, here, command)
    log: list[str] = []
    assert (
        verify(reference=reference, repository=here, level="restore", context=RunContext(log=log.append))["verified"]
        == "restore"
    )
    assert any("in a sandbox" in line for line in log)
    assert [place for place in places.split() if Path(place).exists()] == []
    assert processes_with(word) == []


def test_an_old_bwrap_on_the_path_gives_way_to_that_of_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "bin" / "bwrap"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'bwrap: Unknown option --disable-userns' >&2; exit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    assert sandbox.find_bwraps()[0] == str(old)
    made = sandbox.make_sandbox(postgres_bin_dir(18), tmp_path)
    assert str(old) not in made.command(postgres_bin_dir(18))


@pytest.mark.parametrize("broken", [False, True])
def test_without_a_sandbox_it_is_reported_as_uncontained_or_does_not_run(
    broken: bool,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bubblewrap is missing, or does not work, as in a container without the rights for it."""
    monkeypatch.setattr(sandbox, "find_bwraps", lambda: ["/bin/false"] if broken else [])
    reference = dump_database(
        connection=fresh_database(server18, None, "create table t (a int)"),
        server="s",
        repository=here,
        options=DumpOptions(),
    )
    required = Settings(rehearsal_containment="require")
    with pytest.raises(NotProven, match="a rehearsal on this machine would be uncontained: bubblewrap") as refused:
        verify(reference=reference, repository=here, level="restore", context=RunContext(settings=required))
    assert "apt install bubblewrap" in str(refused.value.hint)
    log: list[str] = []
    assert (
        verify(reference=reference, repository=here, level="restore", context=RunContext(log=log.append))["verified"]
        == "restore"
    )
    assert any("uncontained: the dump's SQL ran" in line for line in log), log
