"""The benchmarks run, from end to end and small. Their figures mean nothing here: the machine is shared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_peak_memory_of_a_dump_to_s3() -> None:
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "bench_memory.py", "--gib", "0.1", "0.3"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["0.1 GiB", "0.3 GiB"]
    assert all("MiB over the start" in line for line in lines)


def test_compression_beside_zstd_s_own() -> None:
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "bench_compression.py", "--mib", "1", "--rounds", "1"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split(" | ")[0] for line in run.stdout.splitlines()[2:]]
    assert rows == ["| text", "| pgbench", "| measurements", "| orders", "| uuids", "| events in json", "| bytea"]


def test_fsck_of_a_few_backups() -> None:
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "bench_fsck.py", "--backups", "20", "--series", "4"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    requests = run.stdout.splitlines()[-1].removeprefix("requests: ").split(", ")
    assert set(requests) == {"41 GetObject", "2 ListObjectsV2", "1 ListObjectVersions", "1 ListMultipartUploads"}


def test_both_compressors_make_the_same_archive() -> None:
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "bench_who_compresses.py", "--mib", "4", "--rounds", "1", "--compress", "gzip:1"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert [line.split(" | ")[1] for line in run.stdout.splitlines()[4:]] == ["pg_dump", "airflow-pgbackup"]


def test_the_command_line_beside_an_empty_program() -> None:
    run = subprocess.run([sys.executable, BENCHMARKS / "bench_cli.py", "1"], capture_output=True, text=True)
    assert run.stderr == ""
    rows = [line[:16].strip() for line in run.stdout.splitlines()[1:]]
    assert rows == ["python -c pass", "--help", "list", "list --all"]


def test_a_small_task_beside_the_bare_programs() -> None:
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "bench_small_task.py", "--rounds", "2"], capture_output=True, text=True
    )
    rows = [line[:10].strip() for line in run.stdout.splitlines()[2:-1]]
    assert rows == ["dump", "verify", "upload"], run.stderr


def test_requests_of_a_backup_s_life() -> None:
    """docs/deployment/sizing.md has these numbers."""
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "bench_s3_requests.py", "--mib", "0.1"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    cells = [row.strip("| ").split(" | ") for row in run.stdout.splitlines()[2:]]
    page = (BENCHMARKS.parent / "docs" / "deployment" / "sizing.md").read_text()
    assert len(cells) == 5
    measured = [f"| {what} | {puts} | {gets} | {free} |" for _, _, what, puts, gets, free, _ in cells]
    assert [row for row in measured if row not in page] == []


def test_masking_beside_a_plain_restore() -> None:
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "bench_masking.py", "--mib", "1", "--rounds", "1"], capture_output=True, text=True
    )
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert "rows, 1 MiB" in lines[0]
    assert lines[1] == "| plain | masked | ratio of medians | search for leaks |"
    assert len(lines) == 4


@pytest.mark.timeout(900)  # starts a dozen processes one after the other
def test_scale_beside_the_bare_programs(tmp_path: Path) -> None:
    """A few tables, and a repository of a few backups; what they have at full scale is the same code."""
    figures = tmp_path / "scale.json"
    command = [sys.executable, BENCHMARKS / "bench_scale.py", "--rounds", "1", "--scale", "0.001", "--json", figures]
    command += ["--operation", "dump", "--operation", "rehearsal", "--shape", "tables", "--shape", "repository"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(figures.read_text())
    assert found["violations"] == []
    rows = [row[:2] for row in found["tables"]["Scale"]["rows"]]
    listings = ["list, local", "prune, dry run, local", "list, S3", "prune, dry run, S3"]
    assert rows == [["tables", "dump"], ["tables", "rehearsal"]] + [["repository", each] for each in listings]
