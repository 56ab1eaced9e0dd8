"""pgbackup as the first process of a container: with process id 1, signals without a handler are ignored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.sandbox import find_bwraps
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.open import open_repository

PGBACKUP = "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"


def test_sigterm_of_the_kubelet_ends_a_dump(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], tmp_path: Path
) -> None:
    params = fresh_database(server18, None, "CREATE TABLE film (id int)")
    uri = (tmp_path / "repository").as_uri()
    open_repository(uri).init()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PGHOST": params.host,
        "PGPORT": params.port,
        "PGUSER": params.user,
        "PGDATABASE": params.dbname,
        "PGPASSWORD": str(params.password),
        "PGBACKUP_CLIENT_DIRS": str(server18.bin_dir),
    }
    reading, writing = os.pipe()
    container = [
        *find_bwraps()[:1],
        "--unshare-pid",
        "--as-pid-1",
        "--bind",
        "/",
        "/",
        "--dev-bind",
        "/dev",
        "/dev",
    ]
    container += ["--proc", "/proc", "--info-fd", str(writing), "--"]
    command = [sys.executable, "-c", PGBACKUP, "dump", uri, "--server", "prod", "--json"]
    with params.connect() as holder, params.connect() as session:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE film IN ACCESS EXCLUSIVE MODE")  # pg_dump waits for it
        with subprocess.Popen(
            [*container, *command], env=environment, pass_fds=[writing], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            os.close(writing)
            with os.fdopen(reading) as information:
                first = json.load(information)["child-pid"]
            while not pg_dumps(session, "AND wait_event_type = 'Lock'") and process.poll() is None:
                time.sleep(0.05)
            os.kill(first, signal.SIGTERM)
            out, errors = process.communicate(timeout=240)
        assert process.returncode == EXIT_STATUS["interrupted"], errors
        assert json.loads(out)["error"]
        holder.execute("ROLLBACK")
        while pg_dumps(session):  # the server notices that its client is gone
            time.sleep(0.05)
    assert read_catalogue(open_repository(uri)).backups == ()


def pg_dumps(session: psycopg.Connection, condition: str = "") -> int:
    """Return how many sessions of pg_dump the server has in this database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump' AND datname = current_database()"
    row = session.execute(f"{query} {condition}".encode()).fetchone()
    assert row is not None
    return int(row[0])
