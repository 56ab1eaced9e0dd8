"""Peak memory of a process that dumps to S3, over its start: the same for 1 GiB and for 10.

    python benchmarks/bench_memory.py [--gib 1 10]

A script in place of pg_dump supplies the bytes, incompressible ones, as fast as they are taken; a server that throws
bodies away takes them. The goal: at most 200 MiB. Exit status 1 where it is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from upload_candidates import discarding, upload_once

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.server import PostgresServer

MIB = 1024**2
GOAL = 200 * MIB
PG_DUMP = """#!{python}
import os, sys
if "--version" in sys.argv:
    print("pg_dump (PostgreSQL) 18.99")
elif "--dbname=no_such_keyword=1" in sys.argv:
    sys.exit("pg_dump: error: no compression here")  # asked before a dump for what it can compress with
else:
    block = os.urandom(1 << 20)
    sys.stdout.buffer.write(b"PGDMP")
    for _ in range({mib}):
        sys.stdout.buffer.write(block)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, nargs="+", default=[1, 10])
    arguments = parser.parse_args()
    good = True
    with (
        tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as folder,
        PostgresServer(postgres_bin_dir(18)) as server,
        discarding() as store,
    ):
        program = Path(folder) / "pg_dump"
        for gib in arguments.gib:
            program.write_text(PG_DUMP.format(python=sys.executable, mib=int(gib * 1024)))
            program.chmod(0o755)
            result = upload_once(
                **store,
                uri=f"s3://bench/{gib}",
                keywords=dict(server.params.keywords),
                options={"compress": "none"},
                bin_dir=folder,
            )
            good &= result["memory"] <= GOAL
            print(
                f"{result['size'] / 1024**3:.1f} GiB: {result['memory'] / MIB:.0f} MiB over the start, "
                f"in {result['seconds']:.1f} s (at most {GOAL / MIB:.0f} MiB)",
                flush=True,
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
