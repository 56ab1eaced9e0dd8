"""Names of mapped tasks that Jinja takes for Python where a DAG renders native objects."""

from __future__ import annotations

import pytest
from jinja2.nativetypes import NativeEnvironment

from airflow_pgbackup.operators._map_label import as_label
from airflow_pgbackup.operators.dump_all import PgDumpAllOperator


@pytest.mark.parametrize("server", ["2024", "1_0", "0x10", "None", "True", "1#", "'a'", "[1]", " 1"])
def test_a_name_stays_text(server: str) -> None:
    for label in (as_label(server), as_label(server, "app")):
        assert server in label
        rendered = NativeEnvironment().from_string("{{ label }}").render(label=label)
        assert rendered == label


def test_other_names_stay_as_they_are() -> None:
    assert as_label("prod", "app") == "prod/app"
    assert as_label("{" * 250) == "{" * 250


@pytest.mark.parametrize("scope", ["globals", "roles", "tablespaces", None])
def test_a_dump_of_a_cluster_is_named_after_its_series(scope: str | None) -> None:
    options = {f"{scope}_only": True} if scope else {}
    dump = PgDumpAllOperator(task_id="dump", repository="s3://b/pg", server="prod", **options)
    assert dump.map_label == f"prod/@{scope or 'cluster'}"
