"""Which tasks the pipelines have where a level is known only when the run starts, and flags that must be known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.pipelines import pg_backup, pg_cluster_backup

PLACE = {"repository": "file:///r"}


@pytest.mark.parametrize(
    ("pipeline", "prefix"), [(pg_backup, "pg_backup"), (pg_cluster_backup, "pg_cluster_backup.databases")]
)
@pytest.mark.parametrize(
    ("level", "verifies"), [("integrity", False), ("archive", False), ("restore", True), ("{{ params.level }}", True)]
)
def test_only_a_known_lower_level_needs_no_task(
    pipeline: Callable[..., Any], prefix: str, level: str, verifies: bool
) -> None:
    with DAG("case", schedule=None, params={"level": "restore"}) as dag:
        pipeline(**PLACE, level=level, verify_while_dumping=True)
    assert (f"{prefix}.verify" in dag.task_dict) is verifies


def test_a_mapped_level_is_verified() -> None:
    with DAG("case", schedule=None) as dag:
        pg_backup.partial(**PLACE, verify_while_dumping=True).expand(level=["archive", "restore"])
    assert "pg_backup.verify" in dag.task_dict


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        (pg_backup, "verify_while_dumping"),
        (pg_cluster_backup, "verify_while_dumping"),
        (pg_cluster_backup, "with_globals"),
    ],
)
def test_flags_that_decide_which_tasks_there_are(pipeline: Any, name: str) -> None:
    with DAG("case", schedule=None):
        with pytest.raises(ConfigurationError, match=rf"^invalid {name} '\{{\{{ params.x \}}\}}'. HINT: Pass True"):
            pipeline.override(group_id="text")(**PLACE, **{name: "{{ params.x }}"})
        with pytest.raises(ConfigurationError, match=rf"^invalid {name} "):
            pipeline.override(group_id="mapped").partial(**PLACE).expand(**{name: [True, False]})


@pytest.mark.parametrize("pipeline", [pg_backup, pg_cluster_backup])
@pytest.mark.parametrize(
    ("prune", "problem"),
    [
        (True, "^invalid prune True. HINT: Pass a policy"),
        ({"time_zone": "Europe/Berlin"}, "the retention policy has no rule"),
        ({"keep_labels": ["release"]}, "the retention policy has no rule"),
        ({"keep_daily": "7"}, "invalid keep_daily '7'"),
    ],
)
def test_prune_is_a_policy(pipeline: Callable[..., Any], prune: Any, problem: str) -> None:
    with DAG("case", schedule=None), pytest.raises(ConfigurationError, match=problem):
        pipeline(**PLACE, prune=prune)


@pytest.mark.parametrize("pipeline", [pg_backup, pg_cluster_backup])
def test_default_args_give_rules_too(pipeline: Callable[..., Any]) -> None:
    with DAG("case", schedule=None, default_args={"keep_daily": 7}) as dag:
        pipeline(**PLACE, prune={})
    (prune,) = [task for name, task in dag.task_dict.items() if name.endswith(".prune")]
    assert (prune.keep_daily, prune.delete) == (7, True)


def test_a_cluster_has_databases() -> None:
    with DAG("case", schedule=None), pytest.raises(ConfigurationError, match=r"HINT: Pass databases, a list"):
        pg_cluster_backup(**PLACE, database="app")


@pytest.mark.parametrize("pipeline", [pg_backup, pg_cluster_backup])
@pytest.mark.parametrize("given", [{}, {"aws_conn_id": "aws_default"}, {"aws_conn_id": None}])
def test_connections_of_default_args(pipeline: Callable[..., Any], given: dict[str, Any]) -> None:
    defaults = {"aws_conn_id": "minio", "destination_aws_conn_id": "away"}
    with DAG("case", schedule=None, default_args=defaults) as dag:
        pipeline(**PLACE, upload_to="s3://b/copies", prune={"keep_last": 1}, **given)

    def of_tasks(name: str) -> set[object]:
        own = [getattr(task, "partial_kwargs", None) or vars(task) for task in dag.tasks]
        return {each[name] for each in own if name in each}

    assert of_tasks("aws_conn_id") == {given.get("aws_conn_id", "minio")}
    assert of_tasks("destination_aws_conn_id") == {"away"}


def test_the_check_has_the_options_of_default_args() -> None:
    """It would stop a dump that leaves out what the role may not read."""
    with DAG("case", schedule=None, default_args={"exclude_schemas": ["private"], "jobs": 2}) as dag:
        pg_backup(repository="file:///r", format="directory")
    check: Any = dag.task_dict["pg_backup.check"]
    assert check.options == {"exclude_schemas": ["private"], "jobs": 2, "format": "directory"}
