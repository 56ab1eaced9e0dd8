"""The stand-ins on a scratch server, which other rehearsals use at the same time, or left when they were killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rehearsals import rehearse_on

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.rehearsal.comparison import Rehearsal
from airflow_pgbackup.backup.rehearsal.stand_ins import StandIn, StandIns
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import Canceled, NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository

Dump = Callable[[str], dict[str, object]]

DATABASES = {
    "weak": (
        "create table t as select 1 as x",
        "create materialized view m as select * from t",
        "alter materialized view m owner to app",
    ),
    "strong": (
        "alter role app superuser",
        "create function noticed() returns event_trigger language plpgsql as 'begin end'",
        "create event trigger noticed on ddl_command_end execute function noticed()",
        "alter event trigger noticed owner to app",
        "alter role app nosuperuser",
    ),
    "granted": ("create table t ()", "grant select on t to app"),
    "other": ("create table t ()", "grant select on t to app, reader"),
}
PLAIN, STRONG = StandIn(), StandIn(superuser=True)
ONLY_WITH_SUPERUSERS = "it restores only if a role .*permission denied for table t"


@pytest.fixture(scope="module")
def source() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18)) as server:
        with server.params.connect() as session:
            for statement in ("create role app", "create role reader", *(f"create database {x}" for x in DATABASES)):
                session.execute(statement.encode())
        for name, statements in DATABASES.items():
            with server.params.with_database(name).connect() as session:
                for statement in statements:
                    session.execute(statement.encode())
        yield server


@pytest.fixture(scope="module")
def scratch_server() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), password="x", tcp=True) as server:
        with server.params.connect() as session:
            session.execute("create table kept ()")
        yield server


@pytest.fixture
def scratch(scratch_server: PostgresServer) -> Iterator[ConnectionParams]:
    before = roles(scratch_server.params)
    yield scratch_server.params
    assert roles(scratch_server.params) == before


@pytest.fixture
def dump(source: PostgresServer, here: Repository) -> Dump:
    def make(name: str) -> dict[str, object]:
        database = source.params.with_database(name)
        return dump_database(connection=database, server="test", repository=here, options=DumpOptions())

    return make


def roles(server: ConnectionParams) -> dict[str, bool]:
    """The names of the roles, and whether they are superusers."""
    with server.connect() as session:
        return dict(session.execute("select rolname, rolsuper from pg_roles where rolname !~ '^pg_'").fetchall())


def rehearsed(
    reference: dict[str, object], repository: Repository, scratch: ConnectionParams, **more: Any
) -> Rehearsal:
    return rehearse_on(scratch, load_manifest(repository, reference), repository, **more)


KILLED = """
import json, os, signal, sys
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.rehearsal import scratch_server
from airflow_pgbackup.backup.rehearsal.run import rehearse
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.open import open_repository

given = json.load(sys.stdin)
repository = open_repository(given["uri"])
manifest = load_manifest(repository, given["reference"])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

make_superusers = scratch_server.ScratchServer.make_superusers
scratch_server.ScratchServer.make_superusers = lambda self: die(make_superusers(self))
rehearse(
    repository.local_path(manifest.artifact_key), manifest,
    reader=Client(postgres_bin_dir(18), (18, 4), "test"), context=RunContext(deadline=600),
    scratch=ConnectionParams(keywords=given["keywords"], password=given["password"]), on_restored=die,
)
"""


def killed(reference: dict[str, object], repository: Repository, scratch: ConnectionParams, folder: Path) -> None:
    """A rehearsal that is killed when it has superusers as stand-ins, or else when it has restored."""
    given = {"uri": repository.uri, "reference": reference, "keywords": dict(scratch.keywords)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        input=json.dumps({**given, "password": scratch.get_password()}),
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert roles(scratch)["app"], "the stand-in is a superuser"


@pytest.mark.parametrize("name", ["weak", "strong"])
def test_after_a_kill(name: str, dump: Dump, here: Repository, scratch: ConnectionParams, tmp_path: Path) -> None:
    """The superuser that a killed rehearsal left, of the same backup or of another one, changes no verdict."""
    reference = dump("weak")
    killed(reference if name == "weak" else dump(name), here, scratch, tmp_path)
    with pytest.raises(NotProven, match=ONLY_WITH_SUPERUSERS):
        rehearsed(reference, here, scratch)


class Second:
    """A rehearsal that begins when another one has restored."""

    def __init__(self, *arguments: Any) -> None:
        self.cancel = Cancel()
        self.log: list[str] = []
        self.stopped = threading.Event()
        self.result: Future[Rehearsal] | None = None
        self._arguments = arguments
        self._pool = ThreadPoolExecutor(1)

    def start(self, _: ConnectionParams) -> None:
        """Start it, and return when it waits or has ended."""
        self.result = self._pool.submit(rehearsed, *self._arguments, cancel=self.cancel, log=self._say)
        self.result.add_done_callback(lambda _: self.stopped.set())
        assert self.stopped.wait(240)

    def _say(self, line: str) -> None:
        self.log.append(line)
        if line.startswith("waiting for other rehearsals on the scratch server "):
            self.stopped.set()

    @property
    def waited(self) -> bool:
        return any(line.startswith("waiting for other rehearsals") for line in self.log)


def test_another_rehearsal_has_superusers(dump: Dump, here: Repository, scratch: ConnectionParams) -> None:
    """The second one waits, and has plain stand-ins."""
    second = Second(dump("weak"), here, scratch)
    assert rehearsed(dump("strong"), here, scratch, on_restored=second.start).differences == []
    assert second.result
    with pytest.raises(NotProven, match=ONLY_WITH_SUPERUSERS):
        second.result.result()
    assert second.waited


def test_another_rehearsal_needs_superusers(dump: Dump, here: Repository, scratch: ConnectionParams) -> None:
    """It does not change the role that the first one uses."""
    second = Second(dump("strong"), here, scratch)

    def start(connection: ConnectionParams) -> None:
        second.start(connection)
        assert roles(scratch)["app"] is False

    assert rehearsed(dump("granted"), here, scratch, on_restored=start).differences == []
    assert second.result
    assert second.result.result().differences == []
    assert second.waited


def test_rehearsals_share_stand_ins(dump: Dump, here: Repository, scratch: ConnectionParams) -> None:
    """Without waiting. The one that ends first drops none."""
    second = Second(dump("other"), here, scratch)

    def run(connection: ConnectionParams) -> None:
        second.start(connection)
        assert second.result
        assert second.result.result().differences == []
        assert {"app", "reader"} <= roles(scratch).keys()

    assert rehearsed(dump("granted"), here, scratch, on_restored=run).differences == []
    assert not second.waited


def test_canceled_while_waiting(dump: Dump, here: Repository, scratch: ConnectionParams) -> None:
    second = Second(dump("granted"), here, scratch)

    def cancel(connection: ConnectionParams) -> None:
        second.start(connection)
        second.cancel.set()
        assert second.result
        with pytest.raises(Canceled):
            second.result.result(240)

    assert rehearsed(dump("strong"), here, scratch, on_restored=cancel).differences == []


def stand_ins(scratch: ConnectionParams, **more: Any) -> StandIns:
    given = {"label": "scratch", "timeout": 240.0, "cancel": Cancel(), "say": lambda line: None, **more}
    return StandIns(scratch, **given)


def test_after_the_deadline(scratch: ConnectionParams) -> None:
    """Also where the two connect to different databases of the server."""
    said: list[str] = []
    other = stand_ins(scratch.with_database("template1"), timeout=0.1, say=said.append)
    with stand_ins(scratch) as one:
        assert one.create({"app": PLAIN}) == {"app"}
        with pytest.raises(NotProven, match=r"still use .* than app need"), other as two:
            two.create({"app": STRONG})
        assert roles(scratch)["app"] is False
    (line,) = said
    assert line.startswith("waiting for other rehearsals on scratch (server process ")
    assert line.endswith(") to end: they use stand-ins for roles with other rights")


def test_a_role_of_the_server(scratch: ConnectionParams) -> None:
    """It is used as it is. One that can log in is no stand-in."""
    with scratch.connect() as session:
        session.execute("create role own superuser")
        session.execute("create role adopted login")
        session.execute("comment on role adopted is 'stand-in of airflow-pgbackup, for a rehearsal x'")
    try:
        with stand_ins(scratch) as ours:
            assert ours.create({"own": PLAIN, "adopted": STRONG}) == set()
            assert ours.create({"own": PLAIN, "app": STRONG}) == {"app"}
        found = roles(scratch)
        assert (found["own"], found["adopted"], "app" in found) == (True, False, False)
    finally:
        with scratch.connect() as session:
            session.execute("drop role own, adopted")


def test_ours_become_superusers(scratch: ConnectionParams) -> None:
    with stand_ins(scratch) as ours:
        ours.create({"app": PLAIN, "reader": PLAIN})
        with scratch.connect() as session:
            session.execute("grant select on kept to app")
        ours.make_superusers(["app"])
        assert ours.create({"app": PLAIN}) == set()
        found = roles(scratch)
        assert (found["app"], found["reader"]) == (True, False)
        with scratch.connect() as session:
            (old,) = [name for name in found if name.startswith("pgbackup_old_")]
            assert found[old] is False
            session.execute(f"drop owned by {old}".encode())


def test_memberships(scratch: ConnectionParams) -> None:
    """They are those of all who share a stand-in, also after it was replaced."""
    member = {"app": StandIn(member_of=frozenset({"reader", "absent"})), "reader": PLAIN}
    inherits = "select pg_has_role('app', 'reader', 'usage')"
    with stand_ins(scratch) as one, stand_ins(scratch, timeout=0.1) as same, scratch.connect() as session:
        assert one.create(member) == same.create(member) == {"app", "reader"}
        assert session.execute(inherits).fetchone() == (True,)
    with stand_ins(scratch) as one, scratch.connect() as session:
        one.create(member)
        with pytest.raises(NotProven, match="than app need"), stand_ins(scratch, timeout=0.1) as other:
            other.create({"app": PLAIN})
        one.make_superusers(["reader"])
        assert session.execute(inherits).fetchone() == (True,)


def test_a_transaction_that_uses_one(scratch: ConnectionParams) -> None:
    """Neither the end of a rehearsal nor the next one waits for it."""
    with scratch.connect() as session:
        with stand_ins(scratch) as ours:
            ours.create({"app": STRONG})
            session.execute("begin")
            session.execute("grant select on kept to app")
        with stand_ins(scratch) as ours:
            ours.create({"app": PLAIN})
            assert roles(scratch)["app"] is False
        session.execute("rollback")
    with stand_ins(scratch):
        pass


def test_the_session_that_protects_them_ends(scratch: ConnectionParams) -> None:
    with ExitStack() as stack:
        stack.enter_context(stand_ins(scratch)).create({"app": PLAIN})
        with scratch.connect() as session:
            session.execute("select pg_terminate_backend(pid, 60000) from pg_locks where locktype = 'advisory'")
        with pytest.raises(NotProven, match="another rehearsal could change the stand-ins"):
            stack.close()
