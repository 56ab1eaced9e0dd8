"""Names of mapped tasks that Jinja takes for Python where a DAG renders native objects."""

from __future__ import annotations

import pytest
from jinja2.nativetypes import NativeEnvironment

from airflow_pgbackup.operators._map_label import as_label


@pytest.mark.parametrize("server", ["2024", "1_0", "0x10", "None", "True", "1#", "'a'", "[1]", " 1"])
def test_a_name_stays_text(server: str) -> None:
    for label in (as_label(server), as_label(server, "app")):
        assert server in label
        rendered = NativeEnvironment().from_string("{{ label }}").render(label=label)
        assert rendered == label


def test_other_names_stay_as_they_are() -> None:
    assert as_label("prod", "app") == "prod/app"
    assert as_label("{" * 250) == "{" * 250
