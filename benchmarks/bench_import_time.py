"""Measure the import of the operators in a DAG file, beyond that of airflow.sdk, and list the heavy modules it loads.

Each figure is the CPU time of one import in a new interpreter that has imported airflow.sdk before. The rounds are
interleaved; the output has the median and range.

    python benchmarks/bench_import_time.py [rounds]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

BASE = "from airflow.sdk import DAG, BaseOperator"
OURS = [
    "airflow_pgbackup.operators.dump",
    "airflow_pgbackup.operators.verify",
    "airflow_pgbackup.operators.upload",
    "airflow_pgbackup.pipelines",
    "airflow_pgbackup.hooks.pgbackup",
]
OTHERS = ["airflow.providers.postgres.hooks.postgres", "airflow.providers.amazon.aws.hooks.s3"]
HEAVY = {"boto3", "botocore", "psycopg", "psycopg2", "sqlalchemy", "pandas", "jsonschema", "zstandard"}
LIMIT_MS = 100

SCRIPT = """
import sys, time
{base}
before, start = set(sys.modules), time.process_time()
import {module}
print(time.process_time() - start, *{{name for name in set(sys.modules) - before if name in {heavy}}})
"""


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    taken: dict[str, list[float]] = {module: [] for module in OURS + OTHERS}
    loads: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as home:
        for _ in range(rounds):
            for module, figures in taken.items():
                milliseconds, loads[module] = measure(module, home)
                figures.append(milliseconds)
    print(f"CPU milliseconds over `{BASE}`, {rounds} fresh interpreters each")
    print(f"{'import':45}{'median':>8}{'range':>12}  loads")
    for module, figures in taken.items():
        spread = f"{min(figures):.0f}-{max(figures):.0f}"
        print(
            f"{module:45}{statistics.median(figures):8.0f}{spread:>12}  {', '.join(loads[module]) or 'nothing heavy'}"
        )
    worst = max(statistics.median(taken[module]) for module in OURS)
    print(f"goal: at most {LIMIT_MS} ms for each of our modules, and no heavy module")
    return int(worst > LIMIT_MS or any(loads[module] for module in OURS))


def measure(module: str, home: str) -> tuple[float, list[str]]:
    """Return the CPU milliseconds of the import, and the heavy modules that it loads."""
    script = SCRIPT.format(base=BASE, module=module, heavy=HEAVY)
    env = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    seconds, *names = done.stdout.split()
    return float(seconds) * 1000, sorted(names)


if __name__ == "__main__":
    sys.exit(main())
