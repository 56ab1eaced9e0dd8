"""The parts of the soak that need no hour: its DAGs, the trend of a worker that was off, the plots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.sdk import DAG

from tests.campaign.soaking import workload
from tests.campaign.soaking.figures import trend_of
from tests.campaign.soaking.plots import plot
from tests.campaign.soaking.samples import Series


def test_the_dags_are_those_that_the_soak_looks_for(load_dag: Callable[[Path], DAG], tmp_path: Path) -> None:
    paths = [path for path in workload.write_dags(tmp_path, every=120) if path.suffix == ".py"]
    dags = {dag.dag_id: dag for dag in map(load_dag, paths)}
    assert sorted(dags) == sorted(workload.DAGS)
    assert workload.DUMP_TASK in dags[workload.BACKUP_DAG].task_ids


@pytest.fixture
def series() -> Series:
    """An hour in which the second worker is off from minute 40 to 43, and then grows to what it had."""
    made = Series()
    for number in range(360):
        off = 2400 <= number * 10 <= 2580
        young = 2580 < number * 10 <= 2700
        memory = 0.0 if off else 300.0 if young else 700.0
        made.add(number * 10.0, {"memory worker-1": 700.0, "memory worker-2": memory, "objects": float(number % 30)})
    return made


def test_a_worker_that_was_off_did_not_grow(series: Series) -> None:
    down = [("worker-2", 2400.0, 2580.0)]
    assert trend_of(series, "memory worker-2", 1, 24, down).growth == pytest.approx(0)
    assert trend_of(series, "memory worker-2", 1, 24, ()).growth > 24
    assert trend_of(series, "memory of nobody", 1, 24, down).flat is True


def test_a_series_that_begins_later_has_zeros_before() -> None:
    series = Series()
    series.add(0, {"a": 1})
    series.add(10, {"a": 2, "b": 3})
    series.add(20, {"b": 4})
    assert series.values == {"a": [1, 2, 0], "b": [0, 3, 4]}


def test_plots_show_the_series_and_the_faults(series: Series, tmp_path: Path) -> None:
    names = plot(series, [600.0, 1200.0], {"xcom": [74.0, 74.0]}, tmp_path / "plots")
    assert sorted(names) == sorted(path.name for path in (tmp_path / "plots").iterdir())
    memory = (tmp_path / "plots" / "soak-memory.svg").read_text()
    assert "<!-- worker-2 -->" in memory
    assert "<!-- triggerer -->" not in memory, "it has no samples"
    assert memory.count("stroke: #c4271d") == 2
