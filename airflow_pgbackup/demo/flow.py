"""The demo, from its first server to its report."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from airflow_pgbackup.backup.restore_command import restore_command_of
from airflow_pgbackup.demo.airflow_home import AirflowHome
from airflow_pgbackup.demo.database import count_rows, create_database, load_dump, load_sample, table_of_contents
from airflow_pgbackup.demo.report import Outcome, print_report
from airflow_pgbackup.demo.steps import Steps
from airflow_pgbackup.embedded import REGION, S3Server, postgres_bin_dir
from airflow_pgbackup.errors import PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.supervised import SupervisedProcess
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.repository.layout import manifest_key
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Verification
from airflow_pgbackup.terminal import Terminal, styled

EXAMPLE_DAGS = Path(__file__).parent / "dags"
DAG_ID = "dvdrental_nightly"
DATABASE = "dvdrental"
BUCKET = "backups"
POSTGRES = 18


def run(*, dump: Path | None = None) -> int:
    """Run the demo and print its errors.

    :param dump: as for :func:`demonstrate`.
    :return: as for :func:`exit_status_of`.
    """
    return exit_status_of(lambda: demonstrate(dump, Terminal()))


def exit_status_of(demo: Callable[[], object]) -> int:
    """Run a demo and print its errors.

    :return: the exit status: 0; 1 after a failure, with a message; 130 after Ctrl-C.
    """
    errors = Terminal(stderr=True)
    try:
        demo()
    except KeyboardInterrupt:
        errors.say("stopped; all servers and files were removed")
        return 130
    except PgBackupError as error:
        first, *more = error.message.split("\n")  # more is the end of a log
        errors.say(styled("the demo failed:", "red"), " ", first)
        for line in more:
            errors.say(line)
        if error.hint:
            errors.say(styled("hint:", "bold"), " ", error.hint)
        return 1
    return 0


@contextlib.contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a demo as Ctrl-C does, so that every ``with`` cleans up."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def demonstrate(dump: Path | None, terminal: Terminal) -> Outcome:
    """Run the demo and show its steps and its report on a terminal.

    :param dump: restore this dump and back up its database, instead of the sample.
    :raises PgBackupError: a step failed. Further lines of its message are the end of a log.
    """
    with terminated_is_interrupted():
        outcome = _run(dump, terminal)
    print_report(outcome, terminal)
    if problem := outcome.problem:
        raise VerificationFailed(problem)
    return outcome


def _run(dump: Path | None, terminal: Terminal) -> Outcome:
    steps = Steps(terminal)
    bin_dir = postgres_bin_dir(POSTGRES)
    if dump is not None:
        table_of_contents(dump, bin_dir)  # before any server starts
    with ExitStack() as stack:
        directory = stack.enter_context(PrivateDirectory())
        guard = SupervisedProcess(env={}, log=directory / "guard.log", remove=[directory])
        stack.enter_context(guard)  # removes the directory even if this process is killed
        home = AirflowHome(directory / "airflow", dag=EXAMPLE_DAGS / f"{DAG_ID}.py")
        migration = stack.enter_context(home.migrate())  # takes some seconds; the next steps run at the same time
        with steps(f"starting PostgreSQL {POSTGRES} and an S3 server on free ports of 127.0.0.1"):
            # A password that breaks careless shell scripts.
            password = f"{secrets.token_urlsafe(12)}:p\\a'ss \"w#rd%"
            server = stack.enter_context(PostgresServer(bin_dir, superuser="postgres", password=password, tcp=True))
            s3 = stack.enter_context(S3Server())
            s3.bucket(BUCKET)
        with steps(f"creating database {DATABASE}" if dump is None else f"restoring {dump} as {DATABASE}"):
            database = create_database(server.params, DATABASE)
            if dump is None:
                with database.connect() as connection:
                    load_sample(connection)
            else:
                load_dump(dump, database, bin_dir, directory)
            source = count_rows(database)
        with steps("creating Airflow's own database (airflow db migrate)"):
            migration.finish()
        with steps(f"running the DAG {DAG_ID} in Airflow: dump, verify, upload") as now:
            connections = _connections(database, password, s3)
            variables = {"PGBACKUP_LOCAL": (directory / "repository").as_uri(), "PGBACKUP_REMOTE": f"s3://{BUCKET}/pg"}
            with home.run_dag(DAG_ID, conf={"init": True}, connections=connections, variables=variables) as running:
                running.finish(now)
        with steps("downloading the backup and restoring it with PostgreSQL's own tools"):
            backup = _find(s3)
            restored = _restore(s3, backup, server.params, directory)
        return Outcome(
            uri=f"s3://{BUCKET}/{backup.key}",
            manifest=backup.manifest,
            verification=backup.verification,
            source=source,
            restored=restored,
            seconds=time.monotonic() - steps.started,
        )


def _connections(database: ConnectionParams, password: str, s3: S3Server) -> dict[str, dict[str, object]]:
    keywords = database.keywords
    return {
        DATABASE: {
            "conn_type": "postgres",
            "host": keywords["host"],
            "port": int(keywords["port"]),
            "login": keywords["user"],
            "password": password,
            "schema": DATABASE,
        },
        "aws_default": {
            "conn_type": "aws",
            "login": s3.access_key,
            "password": s3.secret_key,
            "extra": {"endpoint_url": s3.endpoint_url, "region_name": REGION},
        },
    }


@dataclass(frozen=True)
class _Backup:
    key: str  # the artifact's key in the bucket
    manifest: Manifest
    verification: Verification


def _find(s3: S3Server) -> _Backup:
    """Return the only backup in the bucket, found by a listing."""
    client = s3.client()
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def read(part: str) -> tuple[str, bytes]:
        matching = [key for key in keys if key.rpartition("/")[2].startswith(part)]
        if len(matching) != 1:
            raise VerificationFailed(f"expected 1 object named {part}… in the bucket, found {len(matching)}: {keys}")
        return matching[0], client.get_object(Bucket=BUCKET, Key=matching[0])["Body"].read()

    key, data = read("manifest")
    manifest = Manifest.from_json(data)
    verification = Verification.from_json(read("verification-")[1])
    prefix = key.removesuffix(manifest_key(manifest.series, manifest.id))
    return _Backup(prefix + manifest.artifact_key, manifest, verification)


def _restore(s3: S3Server, backup: _Backup, params: ConnectionParams, directory: Path) -> dict[str, int]:
    """Run the manifest's command on a copy from S3, and return the row counts of the restored database."""
    download = directory / "download"
    download.mkdir()
    s3.client().download_file(BUCKET, backup.key, str(download / backup.manifest.artifact.name))
    command = restore_command_of(backup.manifest)
    env = client_environment(params, restoring=True)
    env["PATH"] = os.pathsep.join([str(Path(backup.manifest.client.path).parent), os.defpath])
    with ToolProcess(["/bin/sh", "-c", command], env=env, cwd=download, stdout="devnull") as tool:
        tool.wait()
    return count_rows(params.with_database(f"{DATABASE}_restored"))
