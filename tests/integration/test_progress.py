"""Progress of real dumps, verifications, uploads and restores; and on a terminal, where Ctrl-C leaves nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from ptys import HIDE, NEVER, SHOW, on_terminal, read_until, screen

from airflow_pgbackup.backup.bulk import verify_all
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.progress import LogProgress, Step, StepFigures
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

TABLES = [
    statement
    for number in range(3)
    for statement in (
        f"create table t{number} (id int primary key, t text)",
        f"insert into t{number} select n, md5(n::text) from generate_series(1, 2000) n",
        f"comment on table t{number} is 'a table'",
    )
]


class Recorder:
    """Keeps the figures of each step at its end, by the step's first word."""

    def __init__(self) -> None:
        self.ended: dict[str, StepFigures] = {}
        self.open = 0

    def begin(self, step: Step) -> None:
        self.open += 1

    def end(self, step: Step) -> None:
        self.open -= 1
        self.ended[step.what.partition(" ")[0]] = step.figures()


def repository_at(path: Path) -> Repository:
    made = open_repository(f"file://{path}")
    made.init()
    return made


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, *TABLES)


@pytest.mark.parametrize("format", ["custom", "directory", "tar", "plain"])
def test_the_steps_of_every_verb(
    format: str, database: ConnectionParams, server18: PostgresServer, tmp_path: Path
) -> None:
    here, there = repository_at(tmp_path / "here"), repository_at(tmp_path / "there")
    seen = Recorder()
    context = RunContext(progress=seen)
    options = DumpOptions(format=format)
    reference = dump_database(connection=database, server="p", repository=here, options=options, context=context)
    size = reference["size"]
    dumped = seen.ended["dumping"]
    assert dumped.step.estimated
    assert isinstance(dumped.step.bytes_total, int)  # rich's bar takes no Decimal, as PostgreSQL's sum() gives
    assert dumped.tables_total == 3
    if format != "directory":
        assert dumped.bytes > 0
        assert dumped.fraction is not None, "the database on disk is larger than its dump"
    if format != "plain":
        assert dumped.tables == 3

    reference = verify(reference=reference, repository=here, context=context)
    for what in ("hashing", "reading") if format in ("custom", "plain") else ("hashing",):
        assert (seen.ended[what].bytes, seen.ended[what].percent) == (size, "100%")
    upload(reference=reference, source=here, destination=there, context=context)
    assert (seen.ended["uploading"].bytes, seen.ended["uploading"].bytes_total) == (size, size)

    target = RestoreTarget(connection=database.with_database(f"{database.dbname}_copy"), mode="create")
    restore(reference=reference, repository=here, target=target, context=context)
    restored = seen.ended["restoring"]
    if format == "plain":
        assert restored.percent == "~99%"
    else:
        assert restored.items == restored.step.items_total
        assert (restored.tables, restored.tables_total) == (3, 3)
        assert restored.bytes == (size if format == "custom" else 0)
    with server18.params.connect() as session:
        session.execute(f'drop database "{database.dbname}_copy" with (force)')
    assert seen.open == 0


def test_a_directory_that_is_uploaded_from_disk(database: ConnectionParams, s3: S3Server, tmp_path: Path) -> None:
    here = repository_at(tmp_path / "here")
    there = open_repository(f"s3://{s3.bucket()}/pg", s3=S3Options(client_factory=s3.client))
    there.init()
    back = repository_at(tmp_path / "back")
    reference = dump_database(connection=database, server="p", repository=here, options=DumpOptions(format="directory"))
    for source, destination, what in ((here, there, "uploading"), (there, back, "uploading")):
        seen = Recorder()
        reference = upload(
            reference=reference,
            source=source,
            destination=destination,
            minimum_level=None,
            context=RunContext(progress=seen),
        )
        assert (seen.ended[what].bytes, seen.ended[what].percent) == (reference["size"], "100%")


def test_the_estimate_of_a_dump_leaves_out_indexes(database: ConnectionParams, tmp_path: Path) -> None:
    """It is above the size, so that there is a percent until the end, and below that of the database."""
    with database.connect() as session:
        session.execute("insert into t0 select n, repeat(md5(n::text), 9) from generate_series(10000, 40000) n")
        for _ in range(5):
            session.execute("create index on t0 (t)")
    seen = Recorder()
    dump_database(
        connection=database,
        server="p",
        repository=repository_at(tmp_path),
        options=DumpOptions(format="plain", compress="none"),
        context=RunContext(progress=seen),
    )
    dumped = seen.ended["dumping"]
    assert dumped.fraction is not None
    assert dumped.fraction > 0.6


@pytest.mark.parametrize("format", ["custom", "directory", "plain"])
def test_the_steps_of_a_rehearsal(format: str, database: ConnectionParams, tmp_path: Path) -> None:
    here, seen = repository_at(tmp_path), Recorder()
    dump_database(connection=database, server="p", repository=here, options=DumpOptions(format=format))
    (result,) = verify_all(repository=here, level="restore", context=RunContext(progress=seen))
    assert result.outcome == "done"
    restored, compared = seen.ended["restoring"], seen.ended["comparing"]
    if format == "plain":
        assert restored.bytes > 0
    else:
        total = restored.step.items_total
        assert total is not None
        assert 0 < restored.items <= total  # lines of several processes may run together, and such are not counted
        assert 0 < restored.tables <= 3
    assert (compared.tables, compared.tables_total) == (3, 3)
    assert (seen.ended["verifying"].items, seen.ended["verifying"].items_total) == (1, 1)
    assert seen.open == 0


def test_globals_have_no_share(database: ConnectionParams, tmp_path: Path) -> None:
    seen = Recorder()
    options = DumpAllOptions(globals_only=True)
    dump_cluster(
        connection=database,
        server="p",
        repository=repository_at(tmp_path),
        options=options,
        context=RunContext(progress=seen),
    )
    assert seen.ended["dumping"].percent is None


def test_a_dump_that_waits_is_logged(database: ConnectionParams, tmp_path: Path) -> None:
    """pg_dump says nothing while it waits for a lock."""
    lines: list[str] = []
    with database.connect() as session:
        session.execute("begin")
        session.execute("lock table t1 in access exclusive mode")

        class Watch(LogProgress):
            def __init__(self) -> None:
                super().__init__(self.log, interval=0.05)

            def log(self, line: str) -> None:
                lines.append(line)
                if len(lines) == 3:
                    session.execute("rollback")

        context = RunContext(progress=Watch())
        dump_database(
            connection=database,
            server="p",
            repository=repository_at(tmp_path),
            options=DumpOptions(),
            context=context,
        )
    assert lines[0].startswith(f"dumping {database.dbname}: ~0%, table 0 of 3, ")


# -- on a terminal -----------------------------------------------------------------------------------------------------

# A verb that has read half of its bytes, and goes on when the terminal says so.
VERB = """
import argparse, sys
from airflow_pgbackup.cli import run as runner
from airflow_pgbackup.cli.vocabulary import Command

class Module:
    @staticmethod
    def run(session):
        with session.working("doing something", makes=True):
            with session.context.step("reading a_dump.dump", bytes_total=1 << 30, tables_total=9) as step:
                step.advance(1 << 29)
                step.begin_table()
                session.log("half of it")
                sys.stdin.readline()
        session.result({}, "done")

sys.modules["airflow_pgbackup.cli.cmd_something"] = Module
command = Command("something", "", "cmd_something", (), "")
sys.exit(runner.run(command, argparse.Namespace(json=False)))
"""


@pytest.mark.parametrize("columns", [100, 60, 30])
def test_a_bar_on_a_terminal(columns: int) -> None:
    with on_terminal([sys.executable, "-c", VERB], {}, columns) as (process, terminal):
        seen = read_until(terminal, "(?s)50%.*50%")  # the bar was drawn completely, and again
        modes = termios.tcgetattr(terminal)
        modes[3] &= ~termios.ECHO  # else the line end would move the cursor
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        os.write(terminal, b"\n")
        rest = read_until(terminal, NEVER)
        assert process.wait(60) == 0
    during = screen(seen.rpartition("\x1b[2K")[0] or seen, columns)
    assert any("doing something" in line for line in during)
    assert "reading a_dump" in seen
    if columns == 100:
        assert "512.0 MiB of 1.0 GiB  table 1 of 9" in seen
        assert "━" in seen
    after = screen(seen + rest, columns)
    assert after == ["half of it", "done"]
    assert (seen + rest).rfind(SHOW) > (seen + rest).rfind(HIDE)


def test_ctrl_c_leaves_the_terminal_as_it_was() -> None:
    with on_terminal([sys.executable, "-c", VERB], {}) as (process, terminal):
        seen = read_until(terminal, "50%")
        before = termios.tcgetattr(terminal)
        os.write(terminal, b"\x03")
        seen += read_until(terminal, NEVER)
        assert process.wait(60) == EXIT_STATUS["interrupted"]
        assert termios.tcgetattr(terminal) == before
    assert HIDE in seen
    assert seen.rfind(SHOW) > seen.rfind(HIDE)
    after = screen(seen.replace("^C", ""), 100)
    assert after == ["half of it", "pgbackup something: interrupted; incomplete work was removed"]


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_control_characters_where_none_are_wanted(env: dict[str, str]) -> None:
    code = f"import airflow_pgbackup.cli.session as s; s._INTERVAL = 0.1\n{VERB}"
    with on_terminal([sys.executable, "-c", code], env) as (process, terminal):
        seen = read_until(terminal, "reading a_dump")
        os.write(terminal, b"\n")
        seen += read_until(terminal, NEVER)
        assert process.wait(60) == 0
    assert not [character for character in seen if character < " " and character not in "\r\n"]
    assert "reading a_dump.dump: 50%, 512.0 MiB of 1.0 GiB, table 1 of 9" in seen


def test_lines_in_a_pipe() -> None:
    code = f"import airflow_pgbackup.cli.session as s; s._INTERVAL = 0.1\n{VERB}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline(), process.stderr.readline()]
        out, errors = process.communicate("\n", timeout=240)
    assert process.returncode == 0
    assert out == "done\n"
    lines = [line.rstrip("\n") for line in lines] + errors.splitlines()
    assert lines[0] == "half of it"
    assert all(line.startswith("reading a_dump.dump: 50%, 512.0 MiB of 1.0 GiB, table 1 of 9") for line in lines[1:])
    assert lines[1:]


def test_ctrl_c_during_a_dump(database: ConnectionParams, tmp_path: Path) -> None:
    here = repository_at(tmp_path / "here")
    env = {
        "PGHOST": database.host,
        "PGPORT": database.port,
        "PGUSER": database.user,
        "PGDATABASE": database.dbname,
        "PGPASSWORD": str(database.password),
    }
    program = "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"
    with database.connect() as session:
        session.execute("begin")
        session.execute("lock table t1 in access exclusive mode")
        argv = [sys.executable, "-c", program, "dump", here.uri, "--server", "p"]
        with on_terminal(argv, env) as (process, terminal):
            seen = read_until(terminal, r"dumping db_\w+ .*~0%")
            os.write(terminal, b"\x03")
            seen += read_until(terminal, NEVER)
            assert process.wait(60) == EXIT_STATUS["interrupted"]
    assert seen.rfind(SHOW) > seen.rfind(HIDE) >= 0
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["repository.json"]
