"""Throwaway servers: they start, they are private, and nothing of them is left, even if the worker is killed."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from live_files import files_with

from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.errors import ClientError, ConfigurationError, NotProven
from airflow_pgbackup.postgres.server import throwaway as server_module
from airflow_pgbackup.postgres.server.throwaway import PostgresServer


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of the processes that name the directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and int(process.name) != os.getpid():
            found.append(command)
    return found


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("major", [16, 18])
def test_starts_and_leaves_nothing(major: int, tmp_path: Path) -> None:
    with PostgresServer(postgres_bin_dir(major), directory=tmp_path) as server:
        assert server.major == major
        assert server.params.keywords["host"] == str(server.socket_dir)
        with server.params.connect() as connection:
            assert connection.execute("SHOW server_version_num").fetchone()[0].startswith(str(major))
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert processes_in(tmp_path)
        assert {entry.stat().st_mode & 0o077 for entry in tmp_path.iterdir()} == {0}
    assert wait_until(lambda: not processes_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_requires_the_password_on_tcp_and_on_the_socket(server18: PostgresServer, canary: str) -> None:
    for host in ("127.0.0.1", str(server18.socket_dir)):
        keywords = {"host": host, "port": server18.port, "user": server18.superuser, "dbname": "postgres"}
        psycopg.connect(**keywords, password=canary).close()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**keywords, password=canary + "x")
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**keywords, passfile="/dev/null")


def test_its_password_is_in_no_command_line_and_in_no_file(
    server18: PostgresServer, canary: str, assert_no_canary: Callable[[object], None]
) -> None:
    assert server18.private_directory is not None
    for command in processes_in(server18.private_directory):
        assert_no_canary(command)
    assert files_with(server18.private_directory, canary.encode()) == []


def test_a_password_with_a_line_break_or_tcp_without_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="one line"):
        PostgresServer(postgres_bin_dir(18), password="a\nb")
    with pytest.raises(ConfigurationError, match="needs a password"):
        PostgresServer(postgres_bin_dir(18), tcp=True)


def test_no_server_programs(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot run the PostgreSQL server in") as caught, PostgresServer(tmp_path):
        pass
    assert "embedded" in str(caught.value.hint)


def test_a_server_that_cannot_start_reports_its_log_and_leaves_nothing(tmp_path: Path) -> None:
    wrong = PostgresServer(postgres_bin_dir(18), directory=tmp_path, settings={"shared_buffers": "plenty"})
    with pytest.raises(NotProven, match='invalid value for parameter "shared_buffers": "plenty"') as caught, wrong:
        pass
    assert "ulimit -a" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_error_while_it_starts_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def failing(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "postmaster.pid":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", failing)
    with (
        pytest.raises(NotProven, match=r"cannot read .*/postmaster\.pid: Input/output error"),
        PostgresServer(postgres_bin_dir(18), directory=tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_port_taken_in_between_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        choices = iter([taken])
        free_port = server_module.free_port
        monkeypatch.setattr(server_module, "free_port", lambda: next(choices, None) or free_port())
        with PostgresServer(postgres_bin_dir(18), password="secret", tcp=True) as server:
            assert server.port != taken
            server.params.connect().close()


def test_a_directory_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with PostgresServer(postgres_bin_dir(18), directory=deep) as server:
        socket_dir = server.socket_dir
        server.params.connect().close()
    assert not socket_dir.exists()
    assert list(deep.iterdir()) == []


STARTS_SERVERS = """
import sys, threading, time
from pathlib import Path
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

postgres = PostgresServer(postgres_bin_dir(18), directory=Path(sys.argv[1]))
s3 = S3Server(directory=Path(sys.argv[1]))
for server in (postgres, s3):
    starter = threading.Thread(target=server.__enter__)
    starter.start()
    starter.join()
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def owner_of_servers(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process with both servers, each started by a thread that has ended."""
    owner = subprocess.Popen([sys.executable, "-c", STARTS_SERVERS, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"started\n"
    with owner.stdout:
        yield owner
        owner.kill()
        owner.wait()


def test_killing_their_owner_ends_the_servers(owner_of_servers: subprocess.Popen[bytes], tmp_path: Path) -> None:
    time.sleep(0.5)  # PR_SET_PDEATHSIG would have ended them with the threads
    assert any("postgres" in command for command in processes_in(tmp_path))
    assert any("weed" in command for command in processes_in(tmp_path))
    owner_of_servers.send_signal(signal.SIGKILL)
    owner_of_servers.wait()
    assert wait_until(lambda: not processes_in(tmp_path) and not list(tmp_path.iterdir()))


def test_a_process_that_their_owner_forked_does_not_keep_them(tmp_path: Path) -> None:
    forks = STARTS_SERVERS.replace("time.sleep(600)", "import os; os.fork(); time.sleep(600)")
    with subprocess.Popen([sys.executable, "-c", forks, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        assert wait_until(lambda: forked_by(owner.pid))
        (fork,) = forked_by(owner.pid)
        owner.kill()
    try:
        assert wait_until(lambda: len(processes_in(tmp_path)) == 1 and not list(tmp_path.iterdir()))
    finally:
        os.kill(fork, signal.SIGKILL)


def forked_by(pid: int) -> list[int]:
    """Return its children that have its own command line."""
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    children = [process for process in Path("/proc").glob("[0-9]*") if _parent(process) == pid]
    return [int(process.name) for process in children if (process / "cmdline").read_bytes() == own]


def test_killing_the_supervisors_too_ends_the_servers(
    owner_of_servers: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    supervisors = [process for process in Path("/proc").glob("[0-9]*") if _parent(process) == owner_of_servers.pid]
    assert len(supervisors) == 2
    for supervisor in supervisors:
        os.kill(int(supervisor.name), signal.SIGKILL)
    assert wait_until(lambda: len(processes_in(tmp_path)) <= 1)  # the owner itself names the directory


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_s3_server_checks_as_s3_does(s3: S3Server, tmp_path: Path) -> None:
    from botocore.exceptions import ClientError as S3Error

    client, bucket = s3.client(), s3.bucket()
    client.put_object(Bucket=bucket, Key="a/b", Body=b"content")
    assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"content"
    with pytest.raises(S3Error, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a/b", Body=b"other", IfNoneMatch="*")
    with pytest.raises(S3Error, match="NoSuchBucket"):
        client.put_object(Bucket="never-made", Key="a/b", Body=b"content")
    wrong = S3Server()
    wrong.port, wrong.access_key = s3.port, s3.access_key
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        wrong.client().put_object(Bucket=bucket, Key="c", Body=b"content")


def test_s3_server_leaves_no_files(tmp_path: Path) -> None:
    sockets = set(Path("/tmp").glob("seaweedfs-*"))
    with S3Server(directory=tmp_path) as server:
        server.bucket()
        port = str(server.port)
    assert list(tmp_path.iterdir()) == []
    assert not [path for path in set(Path("/tmp").glob("seaweedfs-*")) - sockets if port in path.name]


def test_s3_server_where_its_sockets_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_pgbackup.embedded._SOCKETS", tmp_path / "missing")
    with pytest.raises(NotProven, match=r"in .*missing, which this user cannot write to") as caught, S3Server():
        pass
    assert caught.value.hint == f"Run as root: chmod 1777 {tmp_path}/missing"
