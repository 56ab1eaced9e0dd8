"""What the command line costs: ``--help``, and ``list`` of 1,000 backups, over ``python -c pass``.

Each figure is the wall-clock time of a fresh process; the rounds are interleaved, and the median is shown with its
ratio to that of an empty program, which says more than seconds on a busy machine.

    python benchmarks/bench_cli.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from honest import write_backup

from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository

PROGRAM = "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"
LIMITS = {"--help": 0.15, "list": 0.5, "list --all": 0.5}
"""Seconds, on a machine that does nothing else."""
BACKUPS, SERIES = 1000, 20


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as directory:
        uri = f"file://{directory}/repository"
        fill(uri)
        commands = {
            "python -c pass": ["pass"],
            "--help": [PROGRAM, "--help"],
            "list": [PROGRAM, "list", uri],
            "list --all": [PROGRAM, "list", uri, "--all"],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, arguments in commands.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", *arguments], check=True, stdout=subprocess.DEVNULL)
                taken[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(figures) for name, figures in taken.items()}
    nothing = medians["python -c pass"]
    print(f"seconds, median of {rounds} fresh processes; {BACKUPS:,} backups in {SERIES} series on a local disk")
    for name, seconds in medians.items():
        limit = f"  at most {LIMITS[name]} s" if name in LIMITS else ""
        print(f"{name:16}{seconds:8.3f}{seconds / nothing:8.1f} x{limit}")
    # An empty program takes 0.02 s; a busy machine stretches it as it does ours.
    return int(any(medians[name] / nothing > limit / 0.02 for name, limit in LIMITS.items()))


def fill(uri: str) -> None:
    """Make a repository of backups of a few bytes each."""
    repository = open_repository(uri)
    repository.init()
    newest = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)
    for number in range(BACKUPS):
        series = Series("prod", f"database_{number % SERIES}")
        write_backup(repository, series, newest - timedelta(days=number // SERIES))


if __name__ == "__main__":
    sys.exit(main())
