"""The demo as a newcomer runs it: to its end, and stopped half-way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_pgbackup.demo.airflow_home import AirflowHome
from airflow_pgbackup.errors import PgBackupError

DEMO = [sys.executable, "-m", "airflow_pgbackup.demo"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A home and a folder for temporary files, in which nothing is afterwards; and no process that knows them."""
    folders = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR")}
    for folder in folders.values():
        Path(folder).mkdir()
    # What a worker of another Airflow may have: none of it may reach the demo's own.
    misleading = {"AIRFLOW_HOME": "/nowhere", "PGHOST": "nowhere.invalid", "AWS_ENDPOINT_URL": "http://nowhere.invalid"}
    yield {**os.environ, **folders, **misleading}
    assert wait_until(lambda: not knowing(tmp_path)), knowing(tmp_path)
    for folder in folders.values():
        assert list(Path(folder).iterdir()) == []


def knowing(folder: Path) -> list[str]:
    """Command lines of the processes that have the folder in their arguments or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments, environ = ((process / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if int(process.name) != os.getpid() and os.fsencode(folder) in arguments + environ:
            found.append(arguments.replace(b"\0", b" ").decode(errors="replace"))
    return found


def wait_until(condition: Callable[[], object], seconds: float = 400.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_from_end_to_end(environment: dict[str, str]) -> None:
    done = subprocess.run(DEMO, env=environment, capture_output=True, text=True, timeout=700, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    report = done.stdout
    assert len(re.findall(r"^  public\.\w+ +([\d,]+) +\1 +\1 *$", report, re.MULTILINE)) == 15
    assert re.search(r"^  15 tables +114,149 +114,149 +114,149 *$", report, re.MULTILINE)
    assert re.search(
        r"backup  s3://backups/pg/dvdrental/dvdrental/\w+-\w+/\w+/dvdrental_[\d-]{10}_\d{4}\.dump\n", report
    )
    assert re.search(r"dumped  \d\.\d MiB in \d+\.\d s, by pg_dump 18\.\d+ from PostgreSQL 18", report)
    assert re.search(r"verified  pass, level archive, in \d", report)
    assert re.search(r"restore  createdb .* && pg_restore .* dvdrental_restored dvdrental_[\d_-]+\.dump\n", report)
    assert "proven  this command was run on a copy from S3" in report


def started(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        DEMO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def databases_start(folder: Path) -> bool:
    return any(folder.glob("pgbackup-private-*/data"))


def dag_runs(folder: Path) -> bool:
    logs = folder.glob("*/airflow/dag.log")
    return any("[DAG TEST] starting task_id=" in log.read_text(errors="replace") for log in logs)


@pytest.mark.parametrize("moment", [databases_start, dag_runs])
def test_ctrl_c_leaves_nothing(moment: Callable[[Path], bool], environment: dict[str, str]) -> None:
    with started(environment) as demo:
        assert wait_until(lambda: moment(Path(environment["TMPDIR"])))
        os.killpg(demo.pid, signal.SIGINT)  # as the terminal does: to all of the foreground group
        _, errors = demo.communicate(timeout=400)
    assert demo.returncode == 130
    assert errors == "stopped; all servers and files were removed\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_it_leaves_nothing(number: signal.Signals, environment: dict[str, str]) -> None:
    with started(environment) as demo:
        assert wait_until(lambda: dag_runs(Path(environment["TMPDIR"])))
        demo.send_signal(number)
        demo.communicate(timeout=400)
    assert demo.returncode == (130 if number == signal.SIGTERM else -number)
    # and for what a KILL leaves to others, the fixture waits
    assert wait_until(lambda: not list(Path(environment["TMPDIR"]).iterdir()))


def test_a_dump_that_is_none_is_one_line_and_a_hint(environment: dict[str, str], tmp_path: Path) -> None:
    wrong = tmp_path / "[holiday].jpg"
    wrong.write_bytes(b"\xff\xd8\xff" * 1000)
    command = [*DEMO, "--dump", str(wrong)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"the demo failed: cannot read \S*\[holiday\]\.jpg: pg_restore failed .*\n"
        r"hint: Give a dump made by pg_dump -Fc, -Ft or -Fd\.\n",
        done.stderr,
    )
    assert done.stdout == "", "no server was started"


def test_a_failed_run_shows_the_end_of_its_log_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dag = tmp_path / "broken.py"
    dag.write_text(
        "from airflow.sdk import dag, task\n"
        "@dag(dag_id='broken')\n"
        "def broken():\n"
        "    @task\n"
        "    def fails():\n"
        "        raise ValueError('what went wrong')\n"
        "    fails()\n"
        "broken()\n"
    )
    home = AirflowHome(tmp_path / "home", dag=dag)
    with home.migrate() as migration:
        migration.finish()
    tasks: list[str] = []
    with (
        home.run_dag("broken", conf={}, connections={}, variables={}) as run,
        pytest.raises(PgBackupError, match=r"airflow dags test broken failed \(exit 1\)") as caught,
    ):
        run.finish(tasks.append)
    assert tasks == ["fails"]
    assert "what went wrong" in caught.value.message
    assert (
        "what went wrong"
        in Path(str(caught.value.hint).removeprefix("The complete log is in ").removesuffix(".")).read_text()
    )


def test_staging(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*DEMO[:2], "airflow_pgbackup.demo.staging"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=700,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    before, after = (
        re.findall(r"^  (\d)  (.+)  (\S+@\S+)  (\S.*)$", part, re.MULTILINE)
        for part in done.stdout.split("the same in staging")
    )
    assert [row[0] for row in before] == [row[0] for row in after] == ["1", "2", "3"]
    for one, other in zip(before, after, strict=True):
        assert all(mine != yours for mine, yours in zip(one[1:], other[1:], strict=True))
    assert re.search(r"searched the copy for \d+ values of masked columns: none found", done.stdout)
    assert "tester may SELECT customer" in done.stdout
    assert re.search(r"^  staging_before_\d{8}T\d{6}Z$", done.stdout, re.MULTILINE)
