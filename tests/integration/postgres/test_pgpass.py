"""The same server reached by PostgreSQL's tools and by psycopg, whatever its names and its password look like.

Against PostgreSQL 18 with password authentication everywhere, and tools that get the password by pgpass.
"""

from __future__ import annotations

import io
import json
import os
import queue
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConnectError, ToolError
from airflow_pgbackup.postgres.connection import renewal
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams, literal_dbname
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.connection.keywords import variables
from airflow_pgbackup.postgres.connection.pgpass import pgpass_file
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.process import ToolProcess, run_tool

BIN = postgres_bin_dir(18)
SHOW = "select to_json(array[current_user::text, current_database()])"


@pytest.fixture(scope="module")
def server(canary: str) -> Iterator[PostgresServer]:
    """Listens on IPv4, IPv6, in a directory with a colon, and in /tmp, the default compiled into the wheel."""
    with tempfile.TemporaryDirectory(prefix="a:b\\c d-") as folder:
        listen = {
            "listen_addresses": "127.0.0.1" + (",::1" if _has_ipv6() else ""),
            "unix_socket_directories": f'"{folder}", /tmp',
        }
        with PostgresServer(BIN, password=canary, tcp=True, settings=listen) as server:
            server.colon_folder = folder  # type: ignore[attr-defined]
            yield server


def _has_ipv6() -> bool:
    return (
        Path("/proc/net/if_inet6").exists()
        and "00000000000000000000000000000001" in Path("/proc/net/if_inet6").read_text()
    )


def psql(params: ConnectionParams, query: str = SHOW) -> bytes:
    with client_environment(params) as env:
        return run_tool([BIN / "psql", "-wXAtq", "-v", "ON_ERROR_STOP=1", "-c", query], env=env).rstrip(b"\n")


def psycopg_one(params: ConnectionParams, query: str = SHOW) -> object:
    with params.connect() as connection:
        row = connection.execute(query).fetchone()
    assert row
    return row[0]


def both(params: ConnectionParams) -> list[str]:
    """Return user and database as psql and psycopg see them."""
    by_psql: list[str] = json.loads(psql(params))
    assert by_psql == psycopg_one(params)
    return by_psql


@contextmanager
def made(server: PostgresServer, kind: str, name: str, tail: sql.Composable | None = None) -> Iterator[None]:
    """A role or database that is dropped at the end."""
    with server.params.connect() as connection:
        connection.execute(sql.SQL("CREATE {} {} {}").format(sql.SQL(kind), sql.Identifier(name), tail or sql.SQL("")))
        try:
            yield
        finally:
            connection.execute(sql.SQL("DROP {} {}").format(sql.SQL(kind), sql.Identifier(name)))


def identity(params: ConnectionParams, **keywords: str) -> ConnectionParams:
    others = {key: value for key, value in params.keywords.items() if key not in ("host", "port")}
    return ConnectionParams.resolve({**others, **keywords}, password=params.password)


# -- any user, any password, any database

awkward = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    st.text(":\\'\"# *=@/%$,&;|<>`~!?[](){}-_.\t éßжñ字🐘\u00a0\u202e\ufeff", min_size=1),
    st.text("ab:\\'\" ", min_size=1),
)
names = awkward.filter(lambda name: len(name.encode()) <= 63 and not name.startswith("pg_"))
property_test = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40
)


@property_test
@given(user=names, password=awkward)
@example(user='o\'brien: "the\\user" #1', password="p:a\\s's\"w o#r=d*é字")
@example(user="*", password="*")
@example(user="#", password="#")
@example(user="\\", password="\\")
@example(user=":", password=":")
@example(user="a\nb", password="x")
@example(user="a", password=":\\" * 1000)
@example(user="a", password="first\nsecond")
@example(user="a", password="carriage return at the end\r")
@example(user="a", password="carriage\rreturn inside")
@example(user="a", password="\\\r")
@example(user="a", password="\\")
@example(user="a", password="\ufeffbyte order mark")
@example(user="a", password=" spaces around ")
@example(user="a", password="\t")
@example(user="a", password="é" * 2000)
def test_any_user_and_password(server: PostgresServer, user: str, password: str) -> None:
    login = sql.SQL("LOGIN PASSWORD {}").format(sql.Literal(password))
    with made(server, "ROLE", user, login):
        params = ConnectionParams.resolve({**server.params.keywords, "user": user}, password=password)
        assert both(params) == [user, "postgres"]
        with client_environment(params) as env:
            # By the environment, which the user's other processes can read, only if a file cannot hold it.
            assert ("PGPASSWORD" in env) == ("\n" in password or password.endswith("\r"))
            assert ("PGPASSFILE" in env) != ("PGPASSWORD" in env)


MISLEADING = ["host=evil dbname=x", "postgresql://h/x", "-lead", "..", "a/b", "@cluster", "*", 'it\'s \\ "q"; --']


@settings(property_test, max_examples=12)
@given(name=names)
@example(name="line\nbreak")
def test_any_database(server: PostgresServer, name: str) -> None:
    with made(server, "DATABASE", name, sql.SQL("TEMPLATE template0")):
        assert both(server.params.with_database(name))[1] == name


@pytest.mark.parametrize("name", MISLEADING)
def test_every_tool_takes_a_database_name_literally(server: PostgresServer, name: str) -> None:
    with made(server, "DATABASE", name, sql.SQL("TEMPLATE template0")):
        params = server.params.with_database(name)
        with params.connect() as connection:
            connection.execute("create table here as select 1 as x")
        assert both(params)[1] == name
        with client_environment(server.params, dbname=name) as env:
            dump = run_tool([BIN / "pg_dump", "-w", "--format=custom"], env=env)
            with params.connect() as connection:
                connection.execute("drop table here")
            run_tool([BIN / "pg_restore", "-w", "--exit-on-error", "-d", ""], env=env, stdin=io.BytesIO(dump))
            assert psycopg_one(params, "select x from here") == 1
            roles = run_tool([BIN / "pg_dumpall", "-w", "-r", f"--database={literal_dbname(name)}"], env=env)
            assert server.superuser.encode() in roles


def test_pg_dumpall_connects_to_the_database_it_is_given(server: PostgresServer) -> None:
    argv: list[str | Path] = [BIN / "pg_dumpall", "-w", "-r", f"--database={literal_dbname('no such')}"]
    with (
        client_environment(server.params) as env,
        pytest.raises(ToolError, match="could not connect to database") as caught,
    ):
        run_tool(argv, env=env)
    assert caught.value.hint  # pg_dumpall itself gives no reason


def test_pg_dumpall_finds_the_password_for_every_database(server: PostgresServer) -> None:
    with (
        made(server, "DATABASE", "one: two", sql.SQL("TEMPLATE template0")),
        client_environment(server.params, dbname="postgres") as env,
    ):
        script = run_tool([BIN / "pg_dumpall", "-w", "--schema-only"], env=env)
    assert b'CREATE DATABASE "one: two"' in script


# -- any way to the server


def ways(server: PostgresServer) -> dict[str, dict[str, str]]:
    port, dead = str(server.port), "1"  # a free port could be taken meanwhile
    folder = server.colon_folder  # type: ignore[attr-defined]
    found = {
        "address": {"host": "127.0.0.1", "port": port},
        "name": {"host": "localhost", "port": port},
        "address only": {"hostaddr": "127.0.0.1", "port": port},
        "name and address": {"host": "db.example", "hostaddr": "127.0.0.1", "port": port},
        "socket folder": {"host": folder, "port": port},
        "compiled default socket folder": {"host": "/tmp", "port": port},
        "nothing said": {"port": port},
        "list, first dead": {"host": "127.0.0.1,localhost", "port": f"{dead},{port}"},
        "list, first unknown": {"host": "nosuch.invalid,127.0.0.1", "port": port},
        "list of folders and names": {"host": f"/nowhere,{folder},localhost", "port": port},
        "list of addresses": {
            "host": "a.example,b.example",
            "hostaddr": "127.0.0.1,127.0.0.1",
            "port": f"{dead},{port}",
        },
        "read-write": {"host": "localhost,127.0.0.1", "port": port, "target_session_attrs": "read-write"},
    }
    if _has_ipv6():
        found["IPv6"] = {"host": "::1", "port": port}
        found["IPv6 address only"] = {"hostaddr": "::1", "port": port}
        found["list with IPv6"] = {"host": "::1,127.0.0.1", "port": f"{dead},{port}"}
    return found


def test_every_way_to_the_server(server: PostgresServer) -> None:
    for way, keywords in ways(server).items():
        params = identity(server.params, **keywords)
        assert both(params) == [server.superuser, "postgres"], way
        with client_environment(params) as env:
            assert "PGPASSWORD" not in env, way


def test_the_password_is_for_the_hosts_of_the_connection_only(server: PostgresServer) -> None:
    params = identity(server.params, host="localhost", port=str(server.port))
    with client_environment(params) as env, pytest.raises(ToolError, match="no password supplied") as caught:
        run_tool([BIN / "psql", "-wXc", SHOW], env={**env, "PGHOST": "127.0.0.1"})
    assert caught.value.hint


def test_a_pgpass_file_of_the_user(server: PostgresServer, canary: str, tmp_path: Path) -> None:
    line = f"127.0.0.1:{server.port}:*:{server.superuser}:" + canary.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / ".pgpass").write_text(line + "\n", encoding="utf-8")
    (tmp_path / ".pgpass").chmod(0o600)
    params = ConnectionParams.resolve(server.params.keywords, home=tmp_path)
    assert both(params) == [server.superuser, "postgres"]
    # one that is given has precedence
    with pytest.raises(ConnectError, match="password authentication failed"):
        ConnectionParams.resolve(server.params.keywords, password="wrong", home=tmp_path).connect()


def test_a_service_file(server: PostgresServer, canary: str, tmp_path: Path) -> None:
    (tmp_path / ".pg_service.conf").write_text(
        f"[other]\nhost=nosuch.invalid\n[prod]\nhost=127.0.0.1\nport={server.port}\nuser={server.superuser}\n"
        f"dbname=template1\npassword={canary}\n[more]\nport=1\n"
    )
    params = ConnectionParams.resolve({"service": "prod"}, home=tmp_path, environ={})
    assert both(params) == [server.superuser, "template1"]
    params = ConnectionParams.resolve({"service": "prod", "dbname": "postgres"}, home=tmp_path, environ={})
    assert both(params) == [server.superuser, "postgres"]


def test_options_without_a_variable_reach_the_tools(server: PostgresServer) -> None:
    keywords = {**server.params.keywords, "tcp_user_timeout": "7000", "keepalives_idle": "33"}
    params = ConnectionParams.resolve({**keywords, "require_auth": "scram-sha-256"}, password=server.params.password)
    assert both(params) == [server.superuser, "postgres"]
    with pytest.raises(ToolError, match=r"require_auth|authentication method"):
        psql(ConnectionParams(keywords={**keywords, "require_auth": "md5"}, password=server.params.password))


def test_keepalives_of_sessions_and_tools(server: PostgresServer) -> None:
    """The kernel's own default is two hours, which is longer than firewalls keep a connection."""
    params = identity(server.params, host="127.0.0.1", port=str(server.port))
    with params.connect() as session, socket.socket(fileno=os.dup(session.fileno())) as pipe:
        found = [pipe.getsockopt(socket.IPPROTO_TCP, name) for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)]
        assert pipe.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert found == [60, 10]
    script = "\\! cat /proc/net/tcp\nselect 1"
    with client_environment(params) as env:
        argv: list[str | Path] = [BIN / "psql", "-wXAtq", "-f", "-"]
        shown = subprocess.run(argv, env=env, input=script, capture_output=True, text=True, check=True).stdout
    # proc_net_tcp.rst: local and remote address, state 01 is established, timer 02 is keepalive's, in 1/100 s
    remote = f" 0100007F:{server.port:04X} 01 "
    timers = [line.split()[5] for line in shown.splitlines() if remote in line]
    seconds = [int(timer.partition(":")[2], 16) / 100 for timer in timers if timer.startswith("02:")]
    assert seconds
    assert all(0 < each <= 60 for each in seconds)


def test_an_old_client_does_not_ignore_require_auth(server: PostgresServer) -> None:
    """It would ignore PGREQUIREAUTH."""
    keywords = {**server.params.keywords, "require_auth": "none"}
    with client_environment(ConnectionParams(keywords=keywords, password=server.params.password)) as env:
        assert "PGREQUIREAUTH" not in env
        service = Path(env["PGSERVICEFILE"])
        assert stat.S_IMODE(service.stat().st_mode) == 0o600
        assert "require_auth=none" in service.read_text()


# -- the worker's own environment


@pytest.fixture
def misleading_environment(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Every variable of libpq and its programs, set to a value that breaks or redirects a connection."""
    values = {variable: "nonsense" for variable in variables().values() if variable}
    values |= {
        "PGHOST": "203.0.113.1",
        "PGHOSTADDR": "203.0.113.1",
        "PGPORT": "1",
        "PGOPTIONS": "-c nosuch=1",
        "PGDATESTYLE": "nonsense",
        "PGTZ": "Nowhere/Land",
        "PGGEQO": "nonsense",
        "PGSERVICEFILE": "/nowhere",
        "PGSYSCONFDIR": "/nowhere",
        "PGSSLMODE": "verify-full",
        "PG_COLOR": "always",
        "AIRFLOW_CONN_DB": "postgres://u:secret@h/d",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def test_misleading_variables_of_the_worker(
    server: PostgresServer, misleading_environment: Mapping[str, str], assert_no_canary: Callable[[object], None]
) -> None:
    with pytest.raises(psycopg.Error):
        psycopg.connect()  # they do mislead
    before = dict(os.environ)
    for keywords in ways(server).values():
        params = identity(server.params, **keywords)
        assert both(params) == [server.superuser, "postgres"]
        assert psycopg_one(params, "select setting from pg_settings where name = 'geqo'") == "on"
    with pytest.raises(ConnectError):
        identity(server.params, host="127.0.0.1", port="1").connect()
    assert dict(os.environ) == before, "and they are still there for the worker's own code"
    with client_environment(server.params) as env:
        assert not {value for name, value in misleading_environment.items() if env.get(name) == value}
        assert set(env) <= {
            *(
                "PATH",
                "HOME",
                "TMPDIR",
                "LC_MESSAGES",
                "PGTZ",
                "PGOPTIONS",
                "PGPASSFILE",
                "PGCONNECT_TIMEOUT",
                "PGSERVICE",
                "PGSERVICEFILE",
            ),
            *("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "LD_LIBRARY_PATH", "SSL_CERT_DIR", "SSL_CERT_FILE"),
        }
        assert_no_canary(env)


def test_a_variable_that_requires_tls(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no keyword. The server has no TLS."""
    monkeypatch.setenv("PGREQUIRESSL", "1")
    assert both(identity(server.params, **ways(server)["address"])) == [server.superuser, "postgres"]
    assert os.environ["PGREQUIRESSL"] == "1"


def test_a_database_by_default_is_the_user(server: PostgresServer, misleading_environment: Mapping[str, str]) -> None:
    keywords = {key: value for key, value in server.params.keywords.items() if key != "dbname"}
    with made(server, "DATABASE", server.superuser):
        params = ConnectionParams.resolve(keywords, password=server.params.password)
        assert both(params) == [server.superuser, server.superuser]


def test_the_environment_of_the_command_line(server: PostgresServer, canary: str) -> None:
    environ = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": server.superuser,
        "PGPASSWORD": canary,
        "PGDATABASE": "template1",
    }
    assert both(ConnectionParams.from_environment(environ)) == [server.superuser, "template1"]
    assert both(ConnectionParams.from_environment(environ, dbname="postgres")) == [server.superuser, "postgres"]


# -- the session


def test_the_session_of_a_tool_is_pinned(server: PostgresServer) -> None:
    names = ("TimeZone", "bytea_output", "quote_all_identifiers")
    show = "select " + " || ' ' || ".join(f"current_setting('{name}')" for name in names)
    plain = server.params
    assert psql(plain, show) == b"UTC hex off"
    options = "-c bytea_output=escape -c TimeZone=Asia/Tokyo -c quote_all_identifiers=on -c work_mem=77kB"
    own = {**plain.keywords, "options": options}
    params = ConnectionParams(keywords=own, password=plain.password)
    assert psql(params, show + " || ' ' || current_setting('work_mem')") == b"UTC hex off 77kB"
    name = sql.Identifier(server.superuser)
    with plain.connect() as connection:
        for setting in ("TimeZone = 'Asia/Tokyo'", "bytea_output = escape", "quote_all_identifiers = on"):
            connection.execute(sql.SQL(f"ALTER ROLE {{}} SET {setting}").format(name))
        try:
            assert psql(plain, show) == b"UTC hex off"
        finally:
            connection.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(name))


def test_our_own_session(server: PostgresServer) -> None:
    with server.params.connect() as connection:
        assert connection.autocommit
        assert connection.prepare_threshold is None  # poolers
        assert connection.info.encoding == "utf-8"
        row = connection.execute(
            "select application_name from pg_stat_activity where pid = pg_backend_pid()"
        ).fetchone()
        assert row == ("airflow-pgbackup",)
    with server.params.connect(autocommit=False) as connection:
        assert not connection.autocommit


# -- the files


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_password_file_is_private_and_removed_afterwards(
    server: PostgresServer, umask: int, assert_no_canary: Callable[[object], None]
) -> None:
    old = os.umask(umask)
    try:
        with pgpass_file(server.params) as path:
            assert path is not None
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert path.is_file()
            assert not path.is_symlink()
            assert_no_canary(path)
        assert not path.parent.exists()
        with pytest.raises(KeyboardInterrupt), client_environment(server.params) as env:
            raise KeyboardInterrupt
        assert not Path(env["PGPASSFILE"]).parent.exists()
        assert not Path(env["HOME"]).parent.exists()
    finally:
        os.umask(old)


def test_the_password_file_is_removed_if_the_worker_is_killed_while_a_tool_runs(server: PostgresServer) -> None:
    script = """
        import os, sys, time
        from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
        from airflow_pgbackup.postgres.connection.environment import client_environment
        from airflow_pgbackup.postgres.tools.process import ToolProcess
        params = ConnectionParams(keywords={"host": "h"}, password="secret")
        with client_environment(params) as env, ToolProcess(["sh", "-c", "echo; exec sleep 600"], env=env) as process:
            process.stdout.read(1)
            print(env["PGPASSFILE"], process.pid, sep="\\n", flush=True)
            time.sleep(600)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        passfile, group = Path(worker.stdout.readline().strip()), int(worker.stdout.readline())
        assert passfile.read_text() == "h:*:*:*:secret\n"
        worker.kill()
    deadline = time.monotonic() + 60
    while passfile.parent.exists() or Path(f"/proc/{group}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_password_there_is_no_file(server: PostgresServer) -> None:
    with client_environment(ConnectionParams(keywords=server.params.keywords)) as env:
        assert "PGPASSFILE" not in env
        assert "PGPASSWORD" not in env
        with pytest.raises(ToolError, match="no password supplied"):
            run_tool([BIN / "psql", "-wXc", SHOW], env=env)


class Told:
    """A queue as a file; an empty piece is its end."""

    def __init__(self, pieces: queue.SimpleQueue[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1, /) -> bytes:
        return self._pieces.get()


def test_a_short_lived_password_is_renewed_while_a_tool_runs(server: PostgresServer) -> None:
    valid = ["first"]
    user = "rotating"

    def rotate(password: str) -> None:
        with server.params.connect() as connection:
            connection.execute(sql.SQL("ALTER ROLE rotating PASSWORD {}").format(sql.Literal(password)))
        valid[0] = password

    with made(server, "ROLE", user, sql.SQL("LOGIN PASSWORD 'first'")):
        keywords = {**server.params.keywords, "user": user}
        params = ConnectionParams.resolve(keywords, password=lambda: valid[0], renew_every=0.05)
        env = client_environment(params)
        told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        twice = ["sh", "-ec", '"$@"; read -r go; exec "$@"', "sh", BIN / "psql", "-wXAtqc", SHOW]
        with ToolProcess(twice, env=env, stdin=Told(told)) as process:
            assert process.stdout.read(len(f'["{user}",')) == f'["{user}",'.encode()
            rotate("sec:ond")
            deadline = time.monotonic() + 60
            while r"sec\:ond" not in Path(env["PGPASSFILE"]).read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert stat.S_IMODE(Path(env["PGPASSFILE"]).stat().st_mode) == 0o600
            told.put(b"go\n")
            told.put(b"")
            process.wait()
        assert not Path(env["PGPASSFILE"]).exists()
        assert both(params) == [user, "postgres"]


def test_a_renewal_that_fails_is_retried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old password is valid for a few minutes more."""
    answers: Iterator[str | None] = iter(["first", None, "second", "third"])
    waits: list[float] = []
    done = threading.Event()

    class Waits(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            if len(waits) == 4:
                done.set()
            return len(waits) == 4

    def password() -> str:
        if answer := next(answers):
            return answer
        raise OSError("the token service is down")

    patched = SimpleNamespace(Event=Waits, Lock=threading.Lock, Thread=threading.Thread)
    monkeypatch.setattr(renewal, "threading", patched)
    with pgpass_file(ConnectionParams({"host": "h"}, password=password, renew_every=600.0)):
        assert done.wait(60)
    assert waits == [600.0, 30.0, 600.0, 600.0]


def test_a_renewal_that_fails_leaves_the_old_password(
    server: PostgresServer, caplog: pytest.LogCaptureFixture, assert_no_canary: Callable[[object], None]
) -> None:
    calls: list[int] = []

    def password() -> str:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(f"the token service is down: {server.params.password}")
        return str(server.params.password)

    params = ConnectionParams(keywords=server.params.keywords, password=password, renew_every=0.05)
    with client_environment(params) as env:
        deadline = time.monotonic() + 60
        while len(calls) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run_tool([BIN / "psql", "-wXc", SHOW], env=env)
    assert "could not renew the password" in caplog.text
    assert_no_canary(caplog.text)
