"""A throwaway Airflow per test process, and ``run_dag``, which runs a DAG as ``airflow dags test`` does."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_pgbackup.embedded import S3Server
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

# Airflow reads its configuration when it is first imported, so this cannot wait for a fixture.
if "airflow" in sys.modules:
    raise RuntimeError("airflow was imported before tests/airflow/conftest.py could give it a home of its own")
_ERROR_LINE = re.compile(r"\[error *\] (.*?) *\[(?:task|airflow\.task[\w.]*)\]")
HOME = Path(tempfile.mkdtemp(prefix="pgbackup-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
DAGS = HOME / "dags"
DAGS.mkdir()
for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
os.environ.update(
    {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}?timeout=600",  # seconds for a lock
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "600",  # seconds, for a busy machine
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings are errors where they are about our own code or a DAG; Airflow and its libraries warn at each other."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore", "error:::airflow_pgbackup", "error:::unusual_prefix_"))


@pytest.fixture(autouse=True)
def second_try_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second try with a refused password or key follows at once."""
    monkeypatch.setattr("airflow_pgbackup.operators._retries.SECOND_TRY_AFTER", 0.1)


@pytest.fixture(scope="session")
def airflow_db() -> Path:
    """Airflow's metadata database, made once; its file."""
    from airflow.sdk.execution_time import supervisor
    from airflow.utils.db import initdb

    initdb()
    # Airflow 3.2 builds the API of a DAG test anew for each task, which takes seconds; 3.3 keeps it, as this does.
    if not hasattr(supervisor.in_process_api_server, "cache_info"):
        supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)
    return HOME / "airflow.db"


@dataclass
class Run:
    """What a DAG run left behind.

    :ivar state: of the run, which alerts and the list of runs show.
    :ivar states: task id (``task[0]`` for a mapped one) to state.
    :ivar results: what the tasks returned, from XCom.
    :ivar rendered: their rendered template fields.
    :ivar output: all that was printed, the task logs among it.
    """

    state: str = ""
    states: dict[str, str | None] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    rendered: dict[str, Any] = field(default_factory=dict)
    output: str = ""

    @property
    def failure(self) -> str:
        """The message of the exception of the one task that failed, and the hint in the log, as ``str(error)`` is."""
        prefix = "airflow.sdk.exceptions.Airflow"
        lines = [line for line in self.output.splitlines() if line.startswith(prefix)]
        assert len(lines) == 1, self.output
        assert "During handling" not in self.output
        assert "direct cause" not in self.output
        message = lines[0].partition(": ")[2]
        return f"{message}. HINT: {hint}" if (hint := self.hint) else message

    @property
    def errors(self) -> list[str]:
        """The lines at level ERROR, without those of Airflow itself."""
        found = [_ERROR_LINE.search(line) for line in self.output.splitlines()]
        return [match[1] for match in found if match and match[1] != "Task failed with exception"]

    @property
    def hint(self) -> str:
        """The hint of a failure, from its lines in the log."""
        hint: list[str] = []
        for line in self.errors:
            if line.startswith("hint: ") or (hint and line.startswith("  ")):
                hint.append(line.removeprefix("hint: ").strip())
        return " ".join(hint)


_CASE = """
from airflow.sdk import DAG, task
from airflow_pgbackup.operators.dump import PgDumpAllOperator, PgDumpOperator
from airflow_pgbackup.operators.upload import PgBackupUploadOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator
from airflow_pgbackup.pipelines import pg_backup, pg_cluster_backup

with DAG("case", schedule=None):
"""


@pytest.fixture
def load_dag(airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | Path], DAG]]:
    """``load_dag(source, dag_id=None)``: the DAG of a file, or of a text that is the body of its ``with DAG(…):``.

    A file may have several, of which ``dag_id`` is one.
    """
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    # Python takes the compiled code of a file of the same size and second for that of the file.
    monkeypatch.setattr("sys.dont_write_bytecode", True)

    def load(source: str | Path, dag_id: str | None = None) -> DAG:
        for path in DAGS.glob("*.py"):
            path.unlink()
        file = DAGS / (source.name if isinstance(source, Path) else "case.py")
        file.write_text(source.read_text() if isinstance(source, Path) else _CASE + textwrap.indent(source, "    "))
        bag = DagBag(file)
        assert not bag.import_errors, bag.import_errors
        if dag_id is not None:
            return bag.dags[dag_id]
        (dag,) = bag.dags.values()
        return dag

    yield load
    for path in DAGS.glob("*.py"):
        path.unlink()
    # DAG.test() clears all earlier runs of its DAG, which takes the longer the more tests have run one.
    with create_session() as session:
        session.execute(delete(DagRun))


@pytest.fixture
def run_dag(load_dag: Callable[..., DAG], capfd: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """``run_dag(source, conf=None, dag_id=None, **kwargs)``: load a DAG and run it to its end, whatever that is.

    With ``retries=True`` its tasks have their retries; their ``retry_delay`` should be zero, since it is waited for.
    """

    def run(
        source: str | Path,
        conf: Mapping[str, object] | None = None,
        dag_id: str | None = None,
        retries: bool = False,
        **kwargs: object,
    ) -> Run:
        dag = load_dag(source, dag_id)
        for task in [] if retries else dag.tasks:
            task.retries = 0  # dag.test() would wait for them
        capfd.readouterr()
        dag_run = dag.test(run_conf=dict(conf or {}), **kwargs)
        out, err = capfd.readouterr()
        return _look(dag_run, out + err)

    return run


@pytest.fixture
def run_clear_run(
    load_dag: Callable[[str | Path], DAG], capfd: pytest.CaptureFixture[str]
) -> Callable[[str | Path], tuple[Run, Run]]:
    """``run_clear_run(source)``: run a DAG, with its retries; clear all its tasks, as a person does; run them again.

    A task that has retries should have ``retry_delay=timedelta(0)``: they are waited for.
    """
    from airflow.models.taskinstance import clear_task_instances
    from airflow.sdk.definitions import dag as dag_module
    from airflow.utils.session import create_session

    def run(source: str | Path) -> tuple[Run, Run]:
        dag = load_dag(source)
        capfd.readouterr()
        dag_run: Any = dag.test()
        first = _look(dag_run, "".join(capfd.readouterr()))
        with create_session() as session:
            clear_task_instances(dag_run.get_task_instances(session=session), session)
        with create_session() as session:
            for ti in dag_run.get_task_instances(session=session):
                ti.try_number += 1  # as the scheduler does
                session.commit()
                dag_module._run_task(ti=ti, task=dag.task_dict[ti.task_id])
        return first, _look(dag_run, "".join(capfd.readouterr()))

    return run


def _look(dag_run: Any, output: str) -> Run:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    run = Run(state=str(dag_run.state), output=output)

    def name(row: Any) -> str:
        return str(row.task_id) if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"

    with create_session() as session:
        for ti in dag_run.get_task_instances(session=session):
            run.states[name(ti)] = None if ti.state is None else str(ti.state)
        for xcom in session.scalars(select(XComModel).where(XComModel.run_id == dag_run.run_id)):
            if xcom.key == "return_value":
                run.results[name(xcom)] = XComModel.deserialize_value(xcom)
        fields = select(RenderedTaskInstanceFields).where(RenderedTaskInstanceFields.run_id == dag_run.run_id)
        for rendered in session.scalars(fields):
            run.rendered[name(rendered)] = rendered.rendered_fields
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of a new repository."""
    from airflow_pgbackup.repository.open import open_repository

    folder = tmp_path / "repository"
    open_repository(folder.as_uri()).init()
    return folder


@pytest.fixture
def postgres_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``postgres_connection(id, params, **fields)``: an Airflow connection by environment, fields replaced."""

    def make(conn_id: str, params: ConnectionParams, **fields: object) -> None:
        value = {
            "conn_type": "postgres",
            "host": params.host,
            "port": int(params.port),
            "login": params.user,
            "password": params.get_password(),
            "schema": params.dbname,
            **fields,
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))

    return make


@pytest.fixture
def aws_connection(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> Callable[..., None]:
    """``aws_connection(id="aws_default", **fields)``: to the S3 server of the tests."""

    def make(conn_id: str = "aws_default", **fields: object) -> None:
        value = {
            "conn_type": "aws",
            "login": s3.access_key,
            "password": s3.secret_key,
            "extra": {"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"},
            **fields,
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))

    return make
