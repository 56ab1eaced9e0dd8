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
