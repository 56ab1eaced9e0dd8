"""Tasks in processes of their own under Airflow's supervisor: what others can see of them, and how they are killed."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

SCRIPT = Path(__file__).with_name("supervised.py")


class Supervised:
    """A DAG that runs in the background.

    :ivar tmp: its folder for temporary files, empty again at the end.
    """

    def __init__(self, dag: Any, tmp: Path) -> None:
        self.tmp = tmp
        self.log = tmp.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, SCRIPT, dag.fileloc],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(tmp)},
                start_new_session=True,
            )

    def tree(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def tool(self) -> psutil.Process:
        """pg_dump, once it is there."""
        (tool,) = wait_for(lambda: [process for process in self.tree() if Path(process.exe()).name == "pg_dump"])
        assert isinstance(tool, psutil.Process)
        return tool

    def task(self) -> psutil.Process:
        """Airflow's process for the task that runs."""
        (task,) = psutil.Process(self.process.pid).children()
        return task

    def wait(self) -> str:
        """All it printed, when it has ended."""
        self.process.wait(600)
        return self.log.read_text()


def wait_for(look: Callable[[], Any], seconds: float = 240) -> Any:
    """What ``look()`` gives as soon as that is something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if found := look():
                return found
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def supervised(load_dag: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[[str], Supervised]]:
    """``supervised(text)``: start a DAG run."""
    started: list[Supervised] = []

    def start(text: str) -> Supervised:
        tmp = tmp_path / f"tmp{len(started)}"
        tmp.mkdir()
        started.append(Supervised(load_dag(text), tmp))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()


@pytest.fixture
def database(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any
) -> ConnectionParams:
    params = fresh_database(server18, None, "CREATE TABLE locked (id int)", "INSERT INTO locked VALUES (1)")
    postgres_connection("db", params)
    assert isinstance(params, ConnectionParams)
    return params


@contextmanager
def locked(database: ConnectionParams) -> Iterator[Callable[[], bool]]:
    """Nobody can dump the table; what is given says whether pg_dump waits for it."""
    with database.connect(autocommit=False) as session, database.connect() as other:
        session.execute("LOCK TABLE locked")

        def waiting() -> bool:
            found = other.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'"
            ).fetchone()
            return found is not None and found[0] != 0

        yield waiting


def log_files() -> list[Path]:
    return [path for path in Path(os.environ["AIRFLOW_HOME"], "logs").rglob("*") if path.is_file()]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_others_see_of_a_dump_and_how_it_is_killed(
    database: ConnectionParams,
    folder: Path,
    supervised: Callable[[str], Supervised],
    assert_no_canary: Callable[[object], None],
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    with locked(database) as waiting:
        run = supervised(f"""
common = dict(postgres_conn_id="db", repository={folder.as_uri()!r})

def wait(context):
    import pathlib, time
    while not pathlib.Path({str(go)!r}).exists():
        time.sleep(0.1)

terminated = PgDumpOperator(task_id="terminated", **common)
killed = PgDumpOperator(task_id="killed", trigger_rule="all_done", pre_execute=wait, **common)
terminated >> killed
""")
        wait_for(waiting)
        tool, task = run.tool(), run.task()
        for process in [psutil.Process(run.process.pid), *run.tree()]:
            assert_no_canary(process.cmdline())
        assert "AIRFLOW" not in " ".join(tool.environ())
        assert_no_canary(tool.environ())
        passfile = Path(tool.environ()["PGPASSFILE"])
        assert stat.S_IMODE(passfile.stat().st_mode) == 0o600
        assert stat.S_IMODE(passfile.parent.stat().st_mode) == 0o700

        # What Airflow's supervisor does when a task is marked as failed; after 5 s it would send KILL.
        task.send_signal(signal.SIGTERM)
        # Nobody sends it here, and what follows would not hold after it.
        wait_for(lambda: ended(tool) and ended(task))
        wait_for(lambda: "stopped: the task was asked to stop" in "".join(path.read_text() for path in log_files()))
        assert files(folder) == ["repository.json"]
        assert files(run.tmp) == []

        # SIGKILL leaves no time for anything: the tool goes with the task all the same, and nothing is a backup.
        wait_for(lambda: not waiting())
        go.touch()
        wait_for(waiting)
        tool, task = run.tool(), run.task()
        task.kill()
        wait_for(lambda: ended(tool))
        assert "the run ended: failed" in run.wait()
        wait_for(lambda: files(run.tmp) == [])
    assert not [name for name in files(folder) if name.endswith("manifest.json")]
    with database.connect() as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'"
        wait_for(lambda: session.execute(query).fetchone() == (0,))


def test_a_sensor_that_waits_ends_when_it_is_asked_to(folder: Path, supervised: Callable[[str], Supervised]) -> None:
    run = supervised(f"""
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor
PgBackupFreshnessSensor(
    task_id="waits", repository={folder.as_uri()!r}, server="db", databases=["a"], max_age=60, timeout=3600,
    poke_interval=3600,
)
""")
    wait_for(lambda: "Poking" in said() or "a: no backup" in said())
    run.task().send_signal(signal.SIGTERM)
    assert "the run ended: failed" in run.wait()
    assert "stopped: the task was asked to stop" in said()


def said() -> str:
    return "".join(path.read_text() for path in log_files())


def test_an_execution_timeout(database: ConnectionParams, folder: Path, run_dag: Callable[..., Any]) -> None:
    """The alarm of the timeout rings when pg_dump waits for the lock."""

    def ring(waiting: Callable[[], bool]) -> None:
        wait_for(waiting)
        os.kill(os.getpid(), signal.SIGALRM)

    with locked(database) as waiting:
        thread = threading.Thread(target=ring, args=[waiting])
        thread.start()
        run = run_dag(f"""
from datetime import timedelta
PgDumpOperator(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, execution_timeout=timedelta(hours=4)
)
""")
        thread.join()
        assert run.states == {"dump": "failed"}
        assert "AirflowTaskTimeout" in run.output
        said = " ".join(line.strip() for line in run.errors)
        assert "stopped at its execution_timeout of 4:00:00: its programs were ended, its temporary files" in said
        assert "hint: Raise execution_timeout, or find out what the task waited for." in said
        assert re.search(r"removed what was written of db/\w+/\w+-\w+; it is not a backup", run.output)
        wait_for(lambda: not waiting())
    assert files(folder) == ["repository.json"]


def test_a_lock_is_not_waited_for_longer_than_told(
    database: ConnectionParams, folder: Path, run_dag: Callable[..., Any]
) -> None:
    with locked(database):
        run = run_dag(f"""
PgDumpOperator(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, lock_wait_timeout="500ms"
)
""")
    assert run.states == {"dump": "failed"}
    assert "lock" in run.failure
    assert ". HINT: " in run.failure
    assert files(folder) == ["repository.json"]


def test_a_deadline(database: ConnectionParams, folder: Path, run_dag: Callable[..., Any]) -> None:
    with locked(database):
        run = run_dag(f"""
from datetime import timedelta
PgDumpOperator(
    task_id="dump", postgres_conn_id="db", repository={folder.as_uri()!r}, deadline=timedelta(seconds=1.5)
)
""")
    assert run.states == {"dump": "failed"}
    assert "deadline" in run.failure
    assert files(folder) == ["repository.json"]


def test_the_password_appears_nowhere(
    database: ConnectionParams,
    server18: PostgresServer,
    folder: Path,
    s3: S3Server,
    supervised: Callable[[str], Supervised],
    postgres_connection: Any,
    aws_connection: Any,
    assert_no_canary: Callable[[object], None],
) -> None:
    """Not in logs, XComs, rendered fields, manifests, S3 keys and metadata, tracebacks."""
    bucket = s3.bucket()
    aws_connection()
    postgres_connection("cluster", server18.params)
    postgres_connection("broken", database, schema="no such database")
    run = supervised(f"""
one, two = {folder.as_uri()!r}, "s3://{bucket}/pg"
pg_backup(postgres_conn_id="db", repository=one, upload_to=two, init_repository=True)
all = PgDumpAllOperator(task_id="all", postgres_conn_id="cluster", repository=two, init_repository=True)
PgBackupVerifyOperator(task_id="verify", backup=all.output)
PgDumpOperator(task_id="fails", postgres_conn_id="broken", repository=one)

@task
def crashes():
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook
    hook = PgBackupHook("db")
    print("a careless print of", hook.get_conninfo().get_password())
    raise RuntimeError(f"a careless traceback of {{hook.get_conninfo().get_password()}}")

crashes()
""")
    output = run.wait()
    logs = {path: path.read_bytes() for path in log_files()}
    assert len(logs) >= 7, output
    logged = b"".join(logs.values()).decode()
    assert "a careless print of ***" in logged
    assert "a careless traceback of ***" in logged
    assert 'database \\"no such database\\" does not exist' in logged
    assert_no_canary(output)
    for content in logs.values():
        assert_no_canary(content)
    for path in Path(os.environ["AIRFLOW_HOME"]).glob("airflow.db*"):
        assert_no_canary(path.read_bytes())  # XComs, rendered fields, the serialized DAG
    texts = list(folder.rglob("*.json"))
    assert len(texts) == 3  # repository, manifest, verification
    for path in texts:
        assert_no_canary(path.read_bytes())
    entries = s3.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert len(entries) == 7
    for entry in entries:
        found = s3.client().get_object(Bucket=bucket, Key=entry["Key"])
        assert_no_canary(entry["Key"] + str(found["Metadata"]) + str(found["ResponseMetadata"]))
        assert_no_canary(found["Body"].read())
    assert files(run.tmp) == []
