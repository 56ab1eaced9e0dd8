"""Measure the peak memory of a dump to S3, beyond that of the process's start: it is the same for 1 GiB and 10 GiB.

    python benchmarks/bench_memory.py [--gib 1 10]

A script in place of pg_dump writes an archive with one table of that size, whose rows hardly compress. The default
options compress it with zstd, and a server that discards the bodies receives it. The goal: at most 200 MiB. Exit status
1 if it is missed.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from upload_candidates import discarding, upload_once

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

MIB = 1024**2
GOAL = 200 * MIB
PG_DUMP = """#!{python}
import os, sys
if "--version" in sys.argv:
    print("pg_dump (PostgreSQL) 18.99")
elif "--dbname=no_such_keyword=1" in sys.argv:
    sys.exit("pg_dump: error: no_such_keyword")  # the probe for compression methods before a dump: it supports all
else:
    letters = bytes(128 + byte % 64 + byte // 64 for byte in range(256))  # neither NUL nor a line end
    sys.stdout.buffer.write({head!r})
    for _ in range({mib} * 1024):
        row = os.urandom(1018).translate(letters) + b"\\n"
        sys.stdout.buffer.write(b"\\0" + len(row).to_bytes(4, "little") + row)
    sys.stdout.buffer.write(bytes(5))
"""


def head_of_a_table(server: PostgresServer) -> bytes:
    """Return a real archive up to the first row of its one table."""
    with server.params.connect() as session:
        session.execute("create table t (a text)")
    argv = [server.bin_dir / "pg_dump", "--format=custom", "--compress=none"]
    with client_environment(server.params) as env:
        archive = subprocess.run(argv, env=env, stdout=subprocess.PIPE, check=True).stdout
    toc, _ = read_toc(io.BytesIO(archive), what="the archive")
    return archive[: toc.size + 6]  # and the block's type and number


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
        head = head_of_a_table(server)
        program = Path(folder) / "pg_dump"
        for gib in arguments.gib:
            program.write_text(PG_DUMP.format(python=sys.executable, head=head, mib=int(gib * 1024)))
            program.chmod(0o755)
            result = upload_once(
                **store,
                uri=f"s3://bench/{gib}",
                keywords=dict(server.params.keywords),
                options={},
                bin_dir=folder,
            )
            good &= result["memory"] <= GOAL
            print(
                f"{gib:g} GiB, dumped as {result['size'] / 1024**3:.1f}: {result['memory'] / MIB:.0f} MiB over the "
                f"start, in {result['seconds']:.1f} s (at most {GOAL / MIB:.0f} MiB)",
                flush=True,
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
