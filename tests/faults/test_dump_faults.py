"""What goes wrong at two in the morning: the dump fails with one line, and nothing of it is to be seen."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from contexts import in_context

from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.errors import Canceled, ConnectError, PgBackupError, RepositoryError, ToolError, ToolKilled
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

FILL = (
    "create table t (a int primary key, b text)",
    "insert into t select n, md5(n::text) || md5((n + 1)::text) from generate_series(1, 20000) n",
)


def nothing_is_left(repository: Repository) -> None:
    root = repository.local_path("repository.json").parent  # type: ignore[union-attr]
    assert [path for path in root.rglob("*") if not path.is_dir()] == [root / "repository.json"]


def dump(connection: ConnectionParams, repository: Repository, **more: object) -> dict[str, object]:
    options = more.pop("options", DumpOptions())
    return dump_database(connection=connection, server="s", repository=repository, options=options, **in_context(more))  # type: ignore


def one_line(error: PgBackupError) -> str:
    text = str(error)
    assert "\n" not in text
    assert "HINT: " in text
    print(text)
    return text


def test_wrong_password(server18: PostgresServer, here: Repository, assert_no_canary: Callable[[object], None]) -> None:
    wrong = ConnectionParams(keywords=server18.params.keywords, password="not the password")
    with pytest.raises(ConnectError) as caught:
        dump(wrong, here)
    assert "password authentication failed" in one_line(caught.value)
    assert_no_canary(caught.getrepr(showlocals=True))
    nothing_is_left(here)


def test_nobody_listens(server18: PostgresServer, here: Repository) -> None:
    nowhere = ConnectionParams(keywords={**server18.params.keywords, "port": "1"}, password="x")
    with pytest.raises(ConnectError) as caught:
        dump(nowhere, here)
    assert "refused" in one_line(caught.value)
    nothing_is_left(here)


def test_no_such_database(server18: PostgresServer, here: Repository) -> None:
    with pytest.raises(ConnectError) as caught:
        dump(server18.params.with_database("no_such"), here)
    assert '"no_such" does not exist' in one_line(caught.value)
    nothing_is_left(here)


def test_a_table_without_the_right_to_read_it(
    server18: PostgresServer, here: Repository, fresh_database: Callable[..., ConnectionParams]
) -> None:
    database = fresh_database(server18, None, *FILL)
    with database.connect() as session:
        session.execute("create role reader login password 'reader''s own'")
    try:
        reader = ConnectionParams(keywords={**database.keywords, "user": "reader"}, password="reader's own")
        with pytest.raises(ToolError) as caught:
            dump(reader, here)
        assert "permission denied for table t" in one_line(caught.value)
    finally:
        with database.connect() as session:
            session.execute("drop role reader")
    nothing_is_left(here)


@pytest.mark.parametrize("format", ["custom", "tar", "directory", "plain"])
def test_a_full_disk(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, *FILL)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, was[1]))
    try:
        with pytest.raises(PgBackupError) as caught:
            dump(database, here, options=DumpOptions(format=format))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert "too large" in one_line(caught.value).lower()
    nothing_is_left(here)


LIAR = """#!{python}
import sys
if "--version" in sys.argv:
    print("pg_dump (PostgreSQL) 18.99")
elif "{tool}" in sys.argv[0]:
    sys.stdout.buffer.write({output!r})
"""


@pytest.mark.parametrize("output", [b"", b"PGD", b"--\n-- PostgreSQL database dump\n--\n"])
@pytest.mark.parametrize("format", ["custom", "plain", "tar", "cluster"])
def test_exit_status_0_with_too_little_is_no_backup(
    output: bytes, format: str, server18: PostgresServer, here: Repository, tmp_path: Path
) -> None:
    """As PostgreSQL's own tools do on a disk that fills up in the last page."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("pg_dump", "pg_dumpall"):
        (folder / name).write_text(LIAR.format(python=sys.executable, tool=name, output=output))
        (folder / name).chmod(0o755)
    settings = Settings(client_dirs=(str(folder),))
    verb, options = dump_database, DumpOptions(format="plain", compress="none")
    if format == "cluster":
        verb, options = dump_cluster, DumpAllOptions()  # type: ignore[assignment]
    elif format != "plain":
        options = DumpOptions(format=format, compress="none")
    with pytest.raises(ToolError) as caught:
        verb(
            connection=server18.params,
            server="s",
            repository=here,
            options=options,
            **in_context({"settings": settings}),
        )
    assert "exit status 0" in one_line(caught.value)
    nothing_is_left(here)


def children_of(pid: int) -> list[int]:
    """All descendants, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        below = [child for child, its in parents.items() if its == parent]
        found += below
        todo += below
    return found


def pg_dumps() -> list[int]:
    found = []
    for pid in children_of(os.getpid()):
        try:
            if Path(f"/proc/{pid}/exe").resolve().name != "pg_dump":
                continue
            # Not the short ones that ask a client, once in a process, for its version and compression methods.
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            # A process that is just becoming pg_dump has no arguments yet.
            if command and b"--version" not in command and b"no_such_keyword" not in command:
                found.append(pid)
        except OSError:
            continue
    return found


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.mark.parametrize("format", ["custom", "directory", "plain"])
def test_a_pg_dump_that_is_killed(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, *FILL)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            dump(database, here, options=DumpOptions(format=format))
        except BaseException as error:
            errors.append(error)

    with database.connect(autocommit=False) as session:
        session.execute("lock table t in access exclusive mode")
        thread = threading.Thread(target=run)
        thread.start()
        wait_for(pg_dumps)
        for pid in pg_dumps():
            os.kill(pid, signal.SIGKILL)
        thread.join(60)
    assert isinstance(errors[0], ToolKilled)
    assert "SIGKILL" in one_line(errors[0])
    assert pg_dumps() == []
    nothing_is_left(here)


@pytest.mark.parametrize("format", ["custom", "directory", "plain"])
def test_a_task_that_is_stopped(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, *FILL)
    cancel = Cancel()
    with database.connect(autocommit=False) as session:
        session.execute("lock table t in access exclusive mode")
        stopper = threading.Thread(target=lambda: (wait_for(pg_dumps), cancel.set()))
        stopper.start()
        with pytest.raises(Canceled):
            dump(database, here, options=DumpOptions(format=format), cancel=cancel)
        stopper.join()
    assert pg_dumps() == []
    nothing_is_left(here)


def test_a_lock_that_is_not_given(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, *FILL)
    with database.connect(autocommit=False) as session:
        session.execute("lock table t in access exclusive mode")
        with pytest.raises(ToolError) as caught:
            dump(database, here, settings=Settings(lock_wait_timeout=0.3))
    assert "lock" in one_line(caught.value)
    nothing_is_left(here)


def test_a_folder_that_is_no_repository(server18: PostgresServer, tmp_path: Path) -> None:
    nothing_here = open_repository(f"file://{tmp_path}")
    with pytest.raises(RepositoryError) as caught:
        dump(server18.params, nothing_here)
    assert os.uname().nodename in one_line(caught.value)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.repository.open import open_repository
dump_database(
    connection=ConnectionParams(keywords={keywords!r}, password={password!r}),
    server="s", repository=open_repository({uri!r}), options=DumpOptions(format={format!r}),
    context=RunContext(seed="the same task"),
)
"""


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_nothing_outlives_a_worker_that_is_killed(
    format: str, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    """SIGKILL follows on_kill within seconds; a retry must then find a clean place."""
    database = fresh_database(server18, None, *FILL)
    code = KILLED.format(keywords=dict(database.keywords), password=database.password, uri=here.uri, format=format)
    with database.connect(autocommit=False) as session:
        session.execute("lock table t in access exclusive mode")
        worker = subprocess.Popen([sys.executable, "-c", code])
        wait_for(lambda: any(pid in pg_dumps() for pid in children_of(worker.pid)))
        orphans = children_of(worker.pid)
        worker.kill()
        worker.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in orphans))
    assert not any(entry.key.endswith("manifest.json") for entry in here.list())
    reference = dump(database, here, options=DumpOptions(format=format), seed="the same task")
    assert [entry.key for entry in here.list() if entry.key.endswith("manifest.json")] == [
        f"{reference['series']}/{reference['id']}/manifest.json"
    ]
