"""The lines of the bars, at widths from 10 to 200 cells."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from airflow_pgbackup.backup.progress import NoProgress, Step, StepFigures
from airflow_pgbackup.cli.progress_bars import fitted, layout, step_line


def figures(what: str = "dumping app", **totals: Any) -> StepFigures:
    step = Step(what, NoProgress(), bytes_total=4 << 30, tables_total=20, **totals)
    step.bytes, step.tables = 1 << 30, 3
    return StepFigures(step, 10.0)


def test_a_wide_line_has_everything() -> None:
    name, bar, shown = layout(figures(), 200)
    assert (name, bar) == ("dumping app", 40)
    assert shown == "25%  1.0 GiB of 4.0 GiB  table 3 of 20  ETA 30 s  102.4 MiB/s  10 s"


def test_what_is_left_out_of_60_columns() -> None:
    assert layout(figures(), 59) == ("dumping app", 21, "25%  1.0 GiB of 4.0 GiB")
    name, bar, shown = layout(figures("dumping a_database_with_a_long_name"), 59)
    assert name.startswith("dumping a_data")
    assert name.endswith("…")
    assert bar >= 8
    assert shown.startswith("25%")


def test_without_a_share_there_is_no_bar() -> None:
    step = Step("dumping app", NoProgress())
    assert layout(StepFigures(step, 1.0), 80) == ("dumping app", 0, "1 s")


@given(st.text(), st.integers(10, 200), st.booleans())
def test_a_line_always_fits(what: str, width: int, known: bool) -> None:
    found = figures(what) if known else StepFigures(Step(what, NoProgress()), 1.0)
    name, bar, shown = layout(found, width)
    assert cell_len(name) + (2 + bar if bar else 0) + 2 + cell_len(shown) <= max(width, 2 + cell_len(shown))
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(step_line(found, width - 1))
    assert len(out.getvalue().rstrip("\n").split("\n")) == 1


@pytest.mark.parametrize(("width", "shown"), [(5, "lang…"), (4, "lan…"), (1, ""), (0, ""), (9, "langnamen")])
def test_fitted(width: int, shown: str) -> None:
    assert fitted("langnamen", width) == shown
    assert fitted("\x1b[2J", 20) == r"\x1b[2J"
