"""The arithmetic of progress: shares, times to the end, totals that turn out wrong; and the lines of a log."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.counters import DirectorySize, RestoreCounter, restore_totals
from airflow_pgbackup.backup.dump_plan import DumpPlan
from airflow_pgbackup.backup.progress import LogProgress, NoProgress, Step, StepFigures
from airflow_pgbackup.repository.manifest import RecordedCompression

GIB = 1 << 30


def figures(elapsed: float = 10.0, *, done: int = 0, tables: int = 0, items: int = 0, **totals: Any) -> StepFigures:
    step = Step("dumping app", NoProgress(), **totals)
    step.bytes, step.tables, step.items = done, tables, items
    return StepFigures(step, elapsed)


def test_bytes_of_a_known_total() -> None:
    found = figures(10.0, done=GIB, bytes_total=4 * GIB)
    assert (found.fraction, found.percent, found.eta) == (0.25, "25%", 30.0)
    assert found.line == "dumping app: 25%, 1.0 GiB of 4.0 GiB, ETA 30 s, 102.4 MiB/s, 10 s"


def test_an_estimated_total_is_never_reached() -> None:
    assert figures(done=GIB, bytes_total=4 * GIB, estimated=True).line == (
        "dumping app: ~25%, 1.0 GiB of ~4.0 GiB, ETA ~30 s, 102.4 MiB/s, 10 s"
    )
    assert figures(done=GIB, bytes_total=GIB, estimated=True).percent == "~99%"
    assert figures(done=GIB, bytes_total=GIB).percent == "100%"


@pytest.mark.parametrize("estimated", [True, False])
def test_a_total_that_is_too_small_is_none(estimated: bool) -> None:
    found = figures(done=2 * GIB, bytes_total=GIB, estimated=estimated, tables=3, tables_total=9)
    assert (found.fraction, found.eta) == (None, None)
    assert found.line == "dumping app: 2.0 GiB, table 3 of 9, 204.8 MiB/s, 10 s"


@pytest.mark.parametrize("total", [None, 0])
def test_no_total(total: int | None) -> None:
    found = figures(done=GIB, bytes_total=total, tables=2)
    assert (found.percent, found.eta) == (None, None)
    assert found.line == "dumping app: 1.0 GiB, table 2, 102.4 MiB/s, 10 s"


def test_nothing_yet() -> None:
    assert figures(10.0, bytes_total=GIB).eta is None
    assert figures(10.0).line == "dumping app: 10 s"
    assert figures(1.0, done=1, bytes_total=GIB).eta is None, "the rate of the first moments says nothing"


def test_what_has_only_begun_is_not_done() -> None:
    assert figures(tables=1, tables_total=4).percent == "0%"
    assert figures(tables=4, tables_total=4).percent == "75%"
    assert figures(items=0, items_total=4).percent == "0%"
    more = figures(items=9, items_total=4)
    assert (more.percent, more.parts) == (None, ["object 9", "10 s"])


def test_the_objects_of_a_restore_count_more_than_its_bytes() -> None:
    found = figures(items=6, items_total=10, done=GIB, bytes_total=GIB, tables=3, tables_total=3)
    assert (found.percent, found.eta) == ("50%", None)
    assert found.line.startswith("dumping app: 50%, 1.0 GiB of 1.0 GiB, table 3 of 3, object 6 of 10, ")
    assert figures(items=2, items_total=3, noun="backup").parts == ["33%", "backup 2 of 3", "10 s"]


# -- reporters ---------------------------------------------------------------------------------------------------------


def test_a_step_that_stands_still_is_logged_until_it_ends() -> None:
    lines: list[str] = []
    twice = threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            twice.set()

    with Step("waiting", LogProgress(log, interval=0.01)) as step:
        assert twice.wait(120)
    seen = len(lines)
    step.end()  # ends once
    assert lines[0].startswith("waiting: ")
    assert not [thread for thread in threading.enumerate() if thread.name == "pgbackup-progress"]
    assert len(lines) == seen


def test_a_short_step_is_not_logged() -> None:
    lines: list[str] = []
    with RunContext(log=lines.append).step("hashing", bytes_total=1) as step:
        step.advance(1)
    assert lines == []


def test_a_step_ends_with_an_error() -> None:
    ended: list[Step] = []

    class Reporter(NoProgress):
        def end(self, step: Step) -> None:
            ended.append(step)

    with pytest.raises(KeyboardInterrupt), RunContext(progress=Reporter()).step("dumping") as step:
        raise KeyboardInterrupt
    assert ended == [step]


# -- counters ----------------------------------------------------------------------------------------------------------


def test_lines_of_pg_restore() -> None:
    step = Step("restoring", NoProgress())
    count = RestoreCounter(step)
    for line in (
        "pg_restore: connecting to database for restore",
        "pg_restore: executing SELECT pg_catalog.set_config('search_path', '', false);",
        "pg_restore: processing item 219 TABLE t0",
        'pg_restore: creating TABLE "public.t0"',
        'pg_restore: processing data for table "public.t0"',
        'continued: pg_restore: processing data for table "public.no"',
        "pg_restore: executing SEQUENCE SET s0",
        "pg_restore: processing BLOBS",
        "pg_restore: finished item 2424 INDEX t0_t_idx",
        'pg_restore:pg_restore: processing data for table "public.t1"',  # two processes at once
        ' creating INDEX "public.t1_idx"',
    ):
        count(line)
    assert (step.items, step.tables) == (6, 2)
    assert restore_totals([]) == {"items_total": 0, "tables_total": 0}


def test_lines_of_pg_dump_whose_processes_write_at_once() -> None:
    """pg_dump 18 with two jobs wrote 260 of 3,265 lines of 300 tables so."""
    step, said, items = Step("dumping", NoProgress()), list[str](), list[int]()
    plan = DumpPlan("pg_dump", (), "directory", RecordedCompression("none", None, "postgresql"), False, False, False)
    listen = plan.listener(said.append, step, items.append)
    warnings = ["pg_dump: pg_dump: warning: odd", "pg_dump:pg_dump: error: boom", "pg_dump: error: bad", "warning: odd"]
    for line in (
        'pg_dump: dumping contents of table "public.t9"',
        'pg_dump: pg_dump: dumping contents of table "public.t10"',
        'dumping contents of table "public.t11"',
        "pg_dump:pg_dump: finished item 3770 TABLE DATA t9",
        "finished item 3771 TABLE DATA t10",
        " finished item 3772 TABLE DATA t11",
        "executing SELECT pg_catalog.set_config('search_path', '', false);",
        *warnings,
    ):
        listen(line)
    assert step.tables == 3
    assert items == [3770, 3771, 3772]
    assert said == warnings


def test_the_size_of_a_directory(tmp_path: Path) -> None:
    size = DirectorySize(tmp_path / "dump")
    assert size() == 0
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "1.dat").write_bytes(b"12345")
    assert size() == 0, "measured at most once a second"
    step = Step("dumping", NoProgress(), measure=DirectorySize(tmp_path / "dump"))
    assert step.figures().bytes == 5
