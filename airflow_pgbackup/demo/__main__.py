"""``python -m airflow_pgbackup.demo [--dump FILE]``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from airflow_pgbackup.demo.flow import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_pgbackup.demo",
        description="Dump, verify and upload a database with Airflow, on real servers that are removed afterwards.",
    )
    parser.add_argument(
        "--dump",
        type=Path,
        metavar="FILE",
        help="a dump of your own database (custom, tar or directory format), instead of the film-rental sample",
    )
    return run(dump=parser.parse_args(arguments).dump)


if __name__ == "__main__":
    sys.exit(main())
