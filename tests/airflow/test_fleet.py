"""DAGs from a mapping of servers: by real Airflow, PostgreSQL and S3."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import FleetError
from airflow_pgbackup.hooks.repository import open_repository
from airflow_pgbackup.pipelines import pgbackup_dags
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.set_files import list_sets, read_set

EXAMPLES = Path(__file__).parents[2] / "dags"
EXAMPLE = EXAMPLES / "fleet.yaml"
FILM = ("create table film (film_id int primary key)", "insert into film select generate_series(1, 100)")

RECIPIENT = "age1rvmfcgrn2f55ef3twqemyfc6dx23cpw2c3kkwwfzd2vhv4q2y9ksm6kgwd"  # nobody has its secret key

Mapping = dict[str, Any]
Write = Callable[[Mapping], Path]


@pytest.fixture
def write_fleet(tmp_path: Path) -> Write:
    """``write_fleet(mapping)``: a DAG file with the mapping beside it."""

    def write(mapping: Mapping) -> Path:
        (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(mapping))
        file = tmp_path / "case.py"
        file.write_text(
            f"from airflow_pgbackup.pipelines import pgbackup_dags\n\npgbackup_dags({str(tmp_path / 'fleet.yaml')!r})\n"
        )
        return file

    return write


def test_the_example_is_fifty_databases_on_five_servers_in_forty_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    assert len(EXAMPLE.read_text().splitlines()) < 40
    servers = yaml.safe_load(EXAMPLE.read_text())["servers"]
    named = [name for server in servers.values() for name in server.get("databases", []) if "*" not in name]
    # and 20 tenants, and 10 databases of the server whose databases are not named
    assert (len(servers), len(named)) == (5, 20)
    dags = pgbackup_dags(EXAMPLE)
    assert sorted(dags) == sorted(
        f"pgbackup_{server}{part}"
        for server in servers
        for part in ("", "_drill", "_freshness")
        if (server, part) != ("internal", "_drill")
    )
    for dag_id, dag in dags.items():
        assert (dag.catchup, dag.max_active_runs) == (False, 1)
        assert dag.doc_md is not None
        assert "fleet.yaml" in dag.doc_md
        assert "`fleet_alerts.mail`" in dag.doc_md, dag_id
    assert "`orders`, `payments`, `customers`, `stock`" in str(dags["pgbackup_shop"].doc_md)
    assert dags["pgbackup_shop"].task_dict["backup.databases.dump"].max_active_tis_per_dagrun == 2


def test_the_example_by_airflow_dags_test(
    airflow_db: Path,
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., ConnectionParams],
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
    tmp_path: Path,
) -> None:
    """One server's DAG, with copies, in a process of Airflow's own."""
    dags = tmp_path / "dags"
    dags.mkdir()
    for name in ("fleet.py", "fleet_alerts.py", "fleet.yaml"):
        shutil.copy(EXAMPLES / name, dags)
    first, second = (f"s3://{s3.bucket()}/pg" for _ in range(2))
    text = EXAMPLE.read_text().replace("s3://my-backups/pg", first).replace("s3://my-other-backups/pg", second)
    (dags / "fleet.yaml").write_text(text)
    names = yaml.safe_load(text)["servers"]["shop"]["databases"]
    for name in (*names, "not_of_the_shop"):
        fresh_database(server18, name, *FILM)
    postgres_connection("shop", server18.params)
    aws_connection()
    aws_connection("other_account")

    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "test", "pgbackup_shop", "--conf", json.dumps({"init": True})],
        cwd=tmp_path,
        env={**os.environ, "AIRFLOW__CORE__DAGS_FOLDER": str(dags)},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for uri in (first, second):
        repository = open_repository(uri)
        backups = read_catalogue(repository).backups
        assert sorted(str(each.series.database) for each in backups) == sorted([*names, "None"])
        assert {each.state for each in backups} == {"verified"}
        (listed,) = list_sets(repository, "shop")
        found = read_set(repository, "shop", listed.id)
        assert found.status == "complete"
        assert sorted(member.database for member in found.databases) == sorted(names)


def test_one_database_that_fails_alerts_once_and_the_rest_is_pruned(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    postgres_connection: Callable[..., None],
    write_fleet: Write,
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "case_alerts.py").write_text(
        "from pathlib import Path\n"
        "def page(context):\n"
        f"    with Path({str(tmp_path / 'alerts')!r}).open('a') as file:\n"
        "        print(context['dag'].dag_id, file=file)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    database = fresh_database(server18, None, *FILM)
    postgres_connection("crm", server18.params)
    repository = open_repository((tmp_path / "repository").as_uri())
    mapping: Mapping = {
        "defaults": {
            "repository": repository.uri,
            "retention": {"keep_last": 1},
            "alerts": {"on_failure": "case_alerts.page"},
        },
        "servers": {"crm": {"databases": [database.dbname]}},
    }
    dag_id = "pgbackup_crm"
    first = run_dag(write_fleet(mapping), conf={"init": True}, dag_id=dag_id)
    assert set(first.states.values()) == {"success"}, first.output
    assert not (tmp_path / "alerts").exists()

    mapping["servers"]["crm"]["databases"].append("no_such_database")
    second = run_dag(write_fleet(mapping), dag_id=dag_id)
    assert [task for task, state in second.states.items() if state == "failed"] == ["backup.set"], second.output
    assert second.state == "failed"
    assert "no_such_database" in second.output
    assert (tmp_path / "alerts").read_text().split() == [dag_id]
    assert second.results["backup.prune"]["removed"] >= 0
    states = {each.series.database: each.state for each in read_catalogue(repository).backups}
    assert states[database.dbname] == "verified"


def test_copies_in_the_repository_itself_are_not_pruned(
    write_fleet: Write, run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    """The policy of the copies would delete the originals. A link, like a template, hides that they are the same."""
    repository = open_repository((tmp_path / "repository").as_uri())
    repository.init()
    (tmp_path / "copies").symlink_to(tmp_path / "repository")
    server = {
        "repository": repository.uri,
        "upload_to": (tmp_path / "copies").as_uri(),
        "retention": {"keep_last": 30},
        "upload_retention": {"keep_last": 1},
    }
    run = run_dag(write_fleet({"servers": {"crm": server}}), dag_id="pgbackup_crm")
    assert (run.states["backup.discover"], run.states["prune_copies"]) == ("failed", "failed"), run.output
    assert "/copies is the repository itself" in run.output
    assert "/copies is that of the originals; nothing was deleted" in run.output


def test_the_drill_of_a_server_rehearses_its_series_only(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    write_fleet: Write,
    run_dag: Callable[..., Any],
    tmp_path: Path,
) -> None:
    from airflow_pgbackup.backup.dump import dump_database
    from airflow_pgbackup.postgres.options import DumpOptions

    repository = open_repository((tmp_path / "repository").as_uri())
    repository.init()
    database = fresh_database(server18, None, *FILM)
    for server in ("crm", "other"):
        dump_database(connection=database, server=server, repository=repository, options=DumpOptions())
    fleet = write_fleet(
        {"servers": {"crm": {"repository": repository.uri, "drill": {"schedule": "@weekly", "max_size": "1GiB"}}}}
    )
    run = run_dag(fleet, dag_id="pgbackup_crm_drill")
    assert run.states == {"choose": "success", "rehearse[0]": "success"}, run.output
    levels = {each.series.server: each.level for each in read_catalogue(repository).backups}
    assert levels == {"crm": "restore", "other": None}


def test_a_server_without_backups_is_not_fresh(write_fleet: Write, run_dag: Callable[..., Any], tmp_path: Path) -> None:
    open_repository((tmp_path / "repository").as_uri()).init()
    fleet = write_fleet(
        {
            "defaults": {"freshness": {"schedule": "@hourly", "max_age": "26h"}},
            "servers": {"crm": {"repository": (tmp_path / "repository").as_uri(), "databases": ["app", "billing"]}},
        }
    )
    run = run_dag(fleet, dag_id="pgbackup_crm_freshness")
    assert run.state == "failed"
    for missing in ("crm/app", "crm/billing", "crm/@globals", "backup set"):
        assert missing in run.output


def test_a_file_is_found_beside_its_dag_file_and_read_alone(tmp_path: Path) -> None:
    """Parsing needs no connection and no repository, and loads no module that could reach one."""
    shutil.copy(EXAMPLES / "fleet.py", tmp_path)
    shutil.copy(EXAMPLES / "fleet_alerts.py", tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    code = f"""
import sys, runpy
import airflow.sdk
before = set(sys.modules)
runpy.run_path({str(tmp_path / "fleet.py")!r})
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "airflow_pgbackup.pipelines.fleet.dags" in loaded
    heavy = ("boto", "psycopg", "zstandard", "airflow_pgbackup.backup", "airflow_pgbackup.hooks")
    heavy += ("airflow.providers.amazon", "airflow.providers.postgres")
    assert [name for name in loaded if name.startswith(heavy)] == []


def test_a_mistake_is_an_import_error_with_every_problem(airflow_db: Path, tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "fleet.yaml").write_text("servers:\n  crm: {schedul: '@daily'}\n  erp: {repository: 5}\n")
    (tmp_path / "fleet.py").write_text((EXAMPLES / "fleet.py").read_text())
    bag = DagBag(tmp_path)
    assert bag.dags == {}
    (shown,) = bag.import_errors.values()
    assert "fleet.yaml:2: servers.crm.schedul: unknown key; did you mean 'schedule'?\n" in shown
    assert "fleet.yaml:3: servers.erp.repository: expected text, found a number; quote it\n" in shown


def test_the_settings_reach_the_tasks() -> None:
    dags = pgbackup_dags(
        {
            "servers": {
                "crm": {
                    "repository": "s3://aa/b",
                    "upload_to": "s3://cc/d",
                    "pool": "pgbackup_{server}",
                    "queue": "backups",
                    "retries": 5,
                    "level": "restore",
                    "deadline": "3h",
                    "time_zone": "Europe/Berlin",
                    "retention": {"keep_daily": 7},
                    "upload_retention": {"keep_monthly": 12},
                    "verify_while_dumping": True,
                    "dump": {"exclude_table_data": ["public.log"], "compress": "gzip", "recipients": [RECIPIENT]},
                    "tags": ["team-crm"],
                    "drill": {"schedule": "@weekly", "queue": "rehearsals", "scratch_conn_id": "pg_scratch"},
                    "freshness": {
                        "schedule": "@hourly",
                        "max_age": "26h",
                        "exclude": ["crm/old_*"],
                        "allow_drop": ["public.job_queue"],
                        "max_drop": 0.5,
                    },
                }
            }
        }
    )
    assert list(dags) == ["pgbackup_crm", "pgbackup_crm_drill", "pgbackup_crm_freshness"]
    tasks: dict[str, Any] = dict(dags["pgbackup_crm"].task_dict)
    dump = tasks["backup.databases.dump"]
    assert (dump.pool, dump.queue, dump.retries) == ("pgbackup_crm", "backups", 5)
    assert (dump.compress, dump.exclude_table_data, dump.deadline.total_seconds()) == ("gzip", ["public.log"], 10800)
    globals_dump = tasks["backup.globals.dump"]
    assert (globals_dump.pool, globals_dump.recipients) == ("pgbackup_crm", [RECIPIENT])
    assert dump.recipients == [RECIPIENT]
    assert dump.verify == globals_dump.verify == "archive"
    assert tasks["backup.databases.verify"].pool == "default_pool"
    prune, copies = tasks["backup.prune"], tasks["prune_copies"]
    assert (prune.keep_daily, prune.keep_monthly, prune.minimum_level) == (7, 0, "restore")
    assert (copies.keep_daily, copies.keep_monthly, copies.repository) == (0, 12, "s3://cc/d")
    assert prune.time_zone == copies.time_zone == "Europe/Berlin"
    rehearse: Any = dags["pgbackup_crm_drill"].task_dict["rehearse"]
    assert rehearse.partial_kwargs["queue"] == "rehearsals"
    assert rehearse.partial_kwargs["scratch_conn_id"] == "pg_scratch"
    fresh: Any = dags["pgbackup_crm_freshness"].task_dict["fresh"]
    assert (fresh.max_age.total_seconds(), fresh.exclude) == (26 * 3600, ["crm/old_*"])
    assert fresh.minimum_level == "restore"
    assert (fresh.allow_drop, fresh.max_drop) == (["public.job_queue"], 0.5)
    assert "`public.job_queue`" in str(dags["pgbackup_crm_freshness"].doc_md)
    # A check that hangs would keep all later ones from running, and would never fail.
    # Five retries, ten minutes apart, are part of its run.
    assert dags["pgbackup_crm_freshness"].dagrun_timeout == timedelta(hours=1, minutes=50)
    schedules: list[Any] = [dag.schedule for dag in dags.values()]
    assert schedules[0] is None
    assert [each.timezone for each in schedules[1:]] == ["Europe/Berlin"] * 2
    assert "`pgbackup_crm`, which must exist" in str(dags["pgbackup_crm"].doc_md)


def test_no_dag_is_made_if_one_server_is_wrong() -> None:
    with pytest.raises(FleetError, match=r"^servers\.erp: no repository"):
        pgbackup_dags({"servers": {"crm": {"repository": "s3://aa/b"}, "erp": {}}})


def test_a_repository_is_checked_unless_it_is_a_template() -> None:
    servers = {"a": {"repository": "ftp://bucket/x"}, "b": {"repository": "s3://bucket/x", "upload_to": "/var/copies"}}
    with pytest.raises(FleetError) as caught:
        pgbackup_dags({"servers": servers})
    assert str(caught.value).splitlines() == [
        "servers.a.repository: unsupported scheme ftp:// in the repository's URI; write file:///absolute/directory or "
        "s3://bucket/prefix",
        "servers.b.upload_to: not a repository's URI: '/var/copies'; write file:///var/copies",
    ]
    assert pgbackup_dags({"servers": {"a": {"repository": "{{ var.value.repository }}"}}})


def test_names_from_the_mapping_are_code_on_the_page() -> None:
    name = "a|b`c\n# d"
    (dag,) = pgbackup_dags({"servers": {"crm": {"repository": "s3://aa/b", "databases": [name]}}}).values()
    assert "| databases | `` a\\|b`c # d `` |" in str(dag.doc_md)


@pytest.mark.parametrize(
    ("databases", "named"),
    [(["app", '"Crm"', "b$1"], ["app", "Crm", "b$1"]), (["app", "crm_*"], None), (['"a*b"'], ["a*b"]), (["CRM"], None)],
)
def test_freshness_expects_the_databases_that_are_named(databases: list[str], named: list[str] | None) -> None:
    freshness = {"schedule": "@hourly", "max_age": "26h"}
    server = {"repository": "s3://aa/b", "databases": databases, "freshness": freshness}
    fresh: Any = pgbackup_dags({"servers": {"crm": server}})["pgbackup_crm_freshness"].task_dict["fresh"]
    assert fresh.databases == named


@pytest.mark.parametrize(
    ("exclude", "named"),
    [
        (["b"], ["a", "B?"]),
        (["B", '"B?"'], ["a"]),
        (["?"], ["B?"]),
        (['"B?"*', "x*"], ["a", "b"]),
        (["[[:alpha:]]"], None),
        (["x("], None),
    ],
)
def test_freshness_expects_no_database_that_is_excluded(exclude: list[str], named: list[str] | None) -> None:
    freshness = {"schedule": "@hourly", "max_age": "26h"}
    group = {"repository": "s3://aa/b", "databases": ["a", "b", '"B?"'], "freshness": freshness}
    mapping = {"groups": {"all": group}, "servers": {"crm": {"group": "all", "exclude": exclude}}}
    fresh: Any = pgbackup_dags(mapping)["pgbackup_crm_freshness"].task_dict["fresh"]
    assert fresh.databases == named


def test_freshness_ignores_what_exclude_leaves_out_of_a_pattern() -> None:
    """Their backups become old, and stay."""
    from airflow_pgbackup.pipelines.fleet.selection import excluded_series

    exclude = ["billing", '"B?"', "Test_*", "?x", "*s", "*?y", "[[:alpha:]]"]
    patterns = ["crm/billing", "crm/B[?]", "crm/test_*", "crm/[!@]x", "crm/[!@]*s", "crm/s", "crm/[!@]*y"]
    assert list(excluded_series("crm", exclude)) == patterns
    server = {
        "repository": "s3://aa/b",
        "exclude": exclude,
        "freshness": {"schedule": "@hourly", "max_age": "26h", "exclude": ["crm/old"]},
    }
    fresh: Any = pgbackup_dags({"servers": {"crm": server}})["pgbackup_crm_freshness"].task_dict["fresh"]
    assert (fresh.databases, fresh.exclude) == (None, ["crm/old", *patterns])


def test_hostile_patterns_do_not_hold_up_the_dag_processor() -> None:
    server = {
        "repository": "s3://aa/b",
        "databases": ["a" * 60],
        "exclude": ["*a" * 20 + "b"],
        "freshness": {"schedule": "@hourly", "max_age": "26h"},
    }
    assert pgbackup_dags({"servers": {"crm": server}})


@pytest.mark.parametrize("group", [{}, {"postgres_conn_id": "replica"}])
def test_a_connection_of_null_is_the_name_of_the_server(group: Mapping) -> None:
    mapping = {
        "defaults": {"repository": "s3://aa/b"},
        "groups": {"all": group},
        "servers": {"crm": {"group": "all", "postgres_conn_id": None}},
    }
    dag = pgbackup_dags(mapping)["pgbackup_crm"]
    dumps: Any = dag.task_dict["backup.globals.dump"], dag.task_dict["backup.discover"]
    assert [one.postgres_conn_id for one in dumps] == ["crm", "crm"]
    assert "connection `crm`" in str(dag.doc_md)
