"""Arguments that were given, but render to nothing: a task must not do more, or protect less, than was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository

RunDag = Callable[..., Any]
IMPORT = """
from airflow_pgbackup.operators.check import PgBackupCheckOperator
from airflow_pgbackup.operators.prune import PgBackupPruneOperator
from airflow_pgbackup.operators.refresh import PgRefreshOperator
from airflow_pgbackup.operators.restore import PgRestoreOperator
from airflow_pgbackup.operators.restore_set import PgRestoreSetOperator
from airflow_pgbackup.operators.rewrap import PgBackupRewrapOperator
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor
from airflow.sdk.definitions._internal.contextmanager import DagContext
DagContext.get_current().render_template_as_native_obj = True
@task
def nothing():
    return {"text": None, "list": [], "blank": [""]}
found = nothing()
class CompanyDump(PgDumpOperator):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
"""
NONE = "\"{{ dag_run.conf.get('unset') }}\""
KEY = "age1rvmfcgrn2f55ef3twqemyfc6dx23cpw2c3kkwwfzd2vhv4q2y9ksm6kgwd"  # nobody has its secret key


@pytest.fixture
def made(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Any, tmp_path: Path, run_dag: Any
) -> tuple[ConnectionParams, str, dict[str, Any]]:
    """The connection ``srv`` to a database with rows, a repository, and a backup of that database in it."""
    params = fresh_database(server18, None, "create table live (i int)", "insert into live values (7)")
    postgres_connection("srv", params)
    repository = open_repository((tmp_path / "repository").as_uri())
    repository.init()
    run = run_dag(
        f"PgDumpOperator(task_id='dump', postgres_conn_id='srv', repository={repository.uri!r}, verify='archive')"
    )
    with params.connect() as session:
        session.execute("insert into live values (8)")
    return params, repository.uri, run.results["dump"]


def rows(params: ConnectionParams) -> list[int]:
    with params.connect() as session:
        return [row[0] for row in session.execute("select i from live order by i")]


def dag_of(lines: dict[str, str]) -> str:
    return IMPORT + "\n".join(call.format(id=name) for name, call in lines.items())


def check(run_dag: RunDag, made: tuple[ConnectionParams, str, dict[str, Any]], cases: dict[str, str]) -> str:
    """Run each case, which must fail, and change neither the database nor the repository. Return the log."""
    params, uri, _ = made
    before = sorted(str(path) for path in Path(uri.removeprefix("file://")).rglob("*"))
    run = run_dag(dag_of(cases))
    assert {name: run.states.get(name, run.states.get(f"{name}[0]")) for name in cases} == dict.fromkeys(
        cases, "failed"
    ), run.output
    assert "TypeError" not in run.output
    assert rows(params) == [7, 8]
    assert sorted(str(path) for path in Path(uri.removeprefix("file://")).rglob("*")) == before
    return str(run.output)


def test_templates_that_render_to_none(run_dag: RunDag, made: Any) -> None:
    _, uri, backup = made
    restore = f"PgRestoreOperator(task_id='{{id}}', backup={as_text(backup)}, postgres_conn_id='srv', "
    dump = f"PgDumpOperator(task_id='{{id}}', postgres_conn_id='srv', repository={uri!r}, "
    prune = f"PgBackupPruneOperator(task_id='{{id}}', repository={uri!r}, delete=True, keep_last=1, "
    none = NONE.replace("{", "{{").replace("}", "}}")
    cases = {
        "restore_database": f"{restore}mode='replace', keep_old=False, database={none})",
        "restore_tables": f"{restore}mode='replace', keep_old=False, tables={none})",
        "restore_item": f"{restore}mode='replace', keep_old=False, schemas=[{none}])",
        "restore_globals": f"{restore}mode='replace', globals_backup={none})",
        "refresh_backup": f"PgRefreshOperator(task_id='{{id}}', postgres_conn_id='srv', backup={none}, "
        f"repository={uri!r}, series={backup['series']!r})",
        "refresh_database": f"PgRefreshOperator(task_id='{{id}}', postgres_conn_id='srv', database={none}, "
        f"repository={uri!r}, series={backup['series']!r})",
        "dump_database": f"{dump}database={none})",
        "dump_tables": f"{dump}tables={none})",
        "dump_server": f"{dump}server={none})",
        "dump_recipients": f"{dump}recipients={none})",
        "dump_verify": f"{dump}verify={none})",
        "prune_server": f"{prune}server={none})",
        "prune_level": f"{prune}server='srv', minimum_level={none})",
        "prune_databases": f"{prune}server='srv', databases={none})",
        "prune_labels": f"{prune}server='srv', keep_labels=[{none}])",
        "set_databases": f"PgRestoreSetOperator(task_id='{{id}}', repository={uri!r}, server='srv', "
        f"postgres_conn_id='srv', databases={none})",
        "verify_level": f"PgBackupVerifyOperator(task_id='{{id}}', backup={as_text(backup)}, level={none})",
        "rewrap_recipients": f"PgBackupRewrapOperator(task_id='{{id}}', backup={as_text(backup)}, recipients={none})",
        "fresh_server": f"PgBackupFreshnessSensor(task_id='{{id}}', repository={uri!r}, max_age=3600, server={none})",
    }
    output = check(run_dag, made, cases)
    assert output.count("is empty after rendering") >= len(cases)


def test_results_of_tasks_and_mapped_arguments(run_dag: RunDag, made: Any) -> None:
    _, uri, backup = made
    restore = f"backup={as_text(backup)}, postgres_conn_id='srv', mode='replace', keep_old=False"
    dump = f"postgres_conn_id='srv', repository={uri!r}"
    cases = {
        "text": f"PgRestoreOperator(task_id='{{id}}', {restore}, database=found['text'])",
        "list": f"PgRestoreOperator(task_id='{{id}}', {restore}, tables=found['list'])",
        "keys": f"PgDumpOperator(task_id='{{id}}', {dump}, recipients=found['blank'])",
        "none": f"PgDumpOperator(task_id='{{id}}', {dump}, recipients=found['list'])",
        "expanded": f"PgDumpOperator.partial(task_id='{{id}}', {dump}).expand(database=[None])",
        "restored": f"PgRestoreOperator.partial(task_id='{{id}}', {restore}).expand_kwargs([{{{{'database': ''}}}}])",
        "count": f"PgDumpOperator.partial(task_id='{{id}}', {dump}).expand(count_rows=[None])",
        "after": f"PgBackupPruneOperator.partial(task_id='{{id}}', repository={uri!r}, delete=True, keep_last=1)"
        ".expand(replace_after=[None])",
        "ours": f"CompanyDump.partial(task_id='{{id}}', {dump}).expand(database=[None])",
        "given": f"PgDumpOperator.partial(task_id='{{id}}', {dump}).expand_kwargs([{{{{'database': None}}}}])",
    }
    check(run_dag, made, cases)


def test_values_of_other_types(run_dag: RunDag, made: Any) -> None:
    _, uri, backup = made
    prune = f"PgBackupPruneOperator(task_id='{{id}}', repository={uri!r}, delete=True, keep_last=1, "
    dump = f"PgDumpOperator(task_id='{{id}}', postgres_conn_id='srv', repository={uri!r}, "
    cases = {
        "server": f"{prune}server=[])",
        "number": f"{prune}server=5)",
        "databases": f"{prune}server='srv', databases=5)",
        "name": f"{prune}server='srv', databases=[2024])",
        "fresh": f"PgBackupFreshnessSensor(task_id='{{id}}', repository={uri!r}, max_age=3600, server='srv', "
        "databases=[2024])",
        "exclude": f"PgBackupFreshnessSensor(task_id='{{id}}', repository={uri!r}, max_age=3600, exclude=None)",
        "options": "PgBackupCheckOperator(task_id='{id}', postgres_conn_id='srv', options=['schemas'])",
        "level": f"{prune}server='srv', minimum_level='')",
        "database": f"{dump}database=[])",
        "blank": f"{dump}database=' ')",
        "empty": f"{dump}recipients='')",
        "item": f"{dump}recipients=[{KEY!r}, ''])",
        "key": f"{dump}recipients=5)",
        "series": f"PgRefreshOperator(task_id='{{id}}', postgres_conn_id='srv', repository={uri!r}, series=[])",
        "rules": f"PgRefreshOperator(task_id='{{id}}', postgres_conn_id='srv', backup={as_text(backup)}, rules=[])",
        "label": f"{dump}labels=5)",
        "labels": f"{dump}labels=None)",
        "deadline": f"{dump}deadline='300')",
        "never": f"{dump}deadline=0)",
        "count": f"{dump}count_rows='perhaps')",
        "passwords": f"PgDumpAllOperator(task_id='{{id}}', postgres_conn_id='srv', repository={uri!r}, "
        "passwords_if_allowed='perhaps')",
        "restore": f"PgRestoreOperator(task_id='{{id}}', backup={as_text(backup)}, postgres_conn_id='srv', "
        "mode='replace', database=['app'])",
    }
    output = check(run_dag, made, cases)
    assert "AttributeError" not in output
    assert "invalid databases 2024" in output
    assert "invalid exclude None" in output
    assert "invalid options ['schemas']" in output


def test_templates_that_render_to_the_text_none(run_dag: RunDag, made: Any) -> None:
    """That is what None becomes in a DAG without native rendering."""
    _params, uri, _ = made
    none = NONE.replace("{", "{{").replace("}", "}}")
    dump = f"PgDumpOperator(task_id='{{id}}', postgres_conn_id='srv', repository={uri!r}, "
    cases = {
        "server": f"{dump}server={none})",
        "tables": f"{dump}tables=['live', {none}])",
        "count": f"{dump}count_rows={none})",
        "prune": f"PgBackupPruneOperator(task_id='{{id}}', repository={uri!r}, delete=True, keep_last=1, "
        f"server={none})",
    }
    text = dag_of(cases).replace("native_obj = True", "native_obj = False")
    run = run_dag(text)
    assert {run.states[name] for name in cases} == {"failed"}, run.output
    for name in ("server", "count_rows"):
        assert f"{name} is empty after rendering: 'None'" in run.output
    assert "tables is empty after rendering: ['live', 'None']" in run.output
    # Its name, written as such, is the name of a server, and so is what an upstream task returns.
    run = run_dag(
        f"""
        PgDumpOperator(task_id="literal", postgres_conn_id="srv", repository={uri!r}, server="None")
        name = task(task_id="name")(lambda: "None")()
        PgDumpOperator(task_id="result", postgres_conn_id="srv", repository={uri!r}, server=name)
        """
    )
    assert {run.states[name] for name in ("literal", "result")} == {"success"}, run.output


def test_flags_by_templates(run_dag: RunDag, made: Any) -> None:
    _, uri, _ = made
    dump = f"postgres_conn_id='srv', repository={uri!r}"
    cases = {
        "counted": f"PgDumpOperator(task_id='{{id}}', {dump}, count_rows='{{{{{{{{ 1 == 1 }}}}}}}}')",
        "uncounted": f"PgDumpOperator(task_id='{{id}}', {dump}, count_rows='{{{{{{{{ 1 == 2 }}}}}}}}')",
    }
    run = run_dag(dag_of(cases))
    assert set(run.states.values()) == {"success"}, run.output
    folders = {
        name: Path(uri.removeprefix("file://"), run.results[name]["series"], run.results[name]["id"]) for name in cases
    }
    manifests = {name: json.loads((folder / "manifest.json").read_text()) for name, folder in folders.items()}
    assert {name: manifest["source_rows"] is not None for name, manifest in manifests.items()} == {
        "counted": True,
        "uncounted": False,
    }


def test_what_is_not_given_keeps_its_meaning(run_dag: RunDag, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, uri, _ = made
    monkeypatch.setenv("AIRFLOW__PGBACKUP__RECIPIENTS", KEY)
    dump = f"postgres_conn_id='srv', repository={uri!r}"
    cases = {
        "plain": f"PgDumpOperator(task_id='{{id}}', {dump}, recipients=[], database=None, tables=[])",
        "encrypted": f"PgDumpOperator(task_id='{{id}}', {dump}, labels=[])",
        "mapped": f"PgDumpOperator.partial(task_id='{{id}}', {dump}, database=None, verify=None).expand(server=['a'])",
        "prune": f"PgBackupPruneOperator(task_id='{{id}}', repository={uri!r}, delete=False, keep_last=1, "
        "server=None, minimum_level=None)",
    }
    run = run_dag(dag_of(cases))
    assert set(run.states.values()) == {"success"}, run.output
    assert not run.results["plain"]["artifact"].endswith(".age")
    assert run.results["encrypted"]["artifact"].endswith(".age")
    assert run.output.count("recipients is empty: not encrypted, although") == 1


def as_text(backup: dict[str, Any]) -> str:
    return repr(backup).replace("{", "{{").replace("}", "}}")
