"""Compare a restore whose rows are masked with the same restore without masking.

    python benchmarks/bench_masking.py [--mib 1024] [--rounds 3] [--bin-dir DIRECTORY]

Four tables of customers, with 20 masked columns in all beside generated text, are dumped once in custom format. Each
round restores the archive by sections into a new database, plain and masked in turns: definitions, rows, then primary
keys. The masked time includes the triggers and dictionaries before the rows and their removal. The search for leaks is
measured apart. The goal: at most 2.0 times as long. Exit status 1 if it is missed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from texty_database import words

from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.masking import Masking, MaskingKey, find_leaks, load_rules, sample_values
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.archive.reader import ArchiveReader
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import find_clients
from airflow_pgbackup.postgres.tools.process import run_tool

GOAL = 2.0
MIB = 1024**2
TABLES = ("customer", "patient", "employee", "supplier")
RULES = """
columns:
  public.*.*: keep
  public.*.name: {fake: name}
  public.*.mail: {fake: email}
  public.*.phone: {fake: phone}
  public.*.street: {fake: street}
  public.*.born: {generalize: year}
"""
_BLOCK = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bin-dir", default=str(postgres_bin_dir(18)), help="PostgreSQL's programs")
    arguments = parser.parse_args()
    bin_dir = Path(arguments.bin_dir)
    with tempfile.TemporaryDirectory() as directory, PostgresServer(bin_dir) as server:
        archive = Path(directory) / "archive"
        source = new_database(server, "source")
        rows = fill(source, arguments.mib * MIB)
        with client_environment(source) as env:
            run_tool([bin_dir / "pg_dump", "-w", "--format=custom", f"--file={archive}"], env=env)
        drop(server, "source")
        print(f"{rows:,} rows, {arguments.mib} MiB; archive of {archive.stat().st_size // MIB} MiB")
        seconds: dict[bool, list[float]] = {False: [], True: []}
        searches = []
        for number in range(arguments.rounds):
            for masked in (True, False) if number % 2 else (False, True):
                copy = new_database(server, "copy")
                masking = Masking(load_rules(RULES.encode()), MaskingKey(b"a key for benchmarks"))
                seconds[masked].append(restore(bin_dir, archive, copy, masking if masked else None))
                if masked:
                    searches.append(search(bin_dir, archive, copy, masking))
                drop(server, "copy")
    ratio = statistics.median(seconds[True]) / statistics.median(seconds[False])
    print("| plain | masked | ratio of medians | search for leaks |")
    print("|---|---|---|---|")
    print(f"| {spread(seconds[False])} | {spread(seconds[True])} | {ratio:.2f} | {spread(searches)} |")
    return int(ratio > GOAL)


def new_database(server: PostgresServer, name: str) -> ConnectionParams:
    with server.params.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return server.params.with_database(name)


def drop(server: PostgresServer, name: str) -> None:
    with server.params.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute("CHECKPOINT")


def fill(params: ConnectionParams, size: int) -> int:
    """Create the tables, the same ones for the same size; return how many rows they have."""
    text = words(max(200_000, min(10_000_000, size // 16)))
    with params.connect() as connection:
        for number, name in enumerate(TABLES):
            connection.execute(
                f"CREATE TABLE {name} (id bigint PRIMARY KEY, name text, mail text, phone text, street text, "
                "born date, note text)"
            )
            with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                for block in blocks(text, size // len(TABLES), random.Random(number)):
                    copy.write(block)
        counts = [connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in TABLES]
    return sum(int(count[0]) for count in counts if count)


def blocks(text: str, size: int, rng: random.Random) -> Iterator[str]:
    block, held, number = [], 0, 0
    while size > 0:
        length = rng.randrange(80, 900)
        start = rng.randrange(len(text) - 1000)
        number += 1
        first, last, street = text[start + length : start + length + 90].split(" ")[1:4]
        row = (
            f"{number}\t{first}qux {last}\t{first}.{last}{number}@{street}.test\t+49 {rng.randrange(10**9)}\t"
            f"{street} {length}\t{1930 + number % 80}-{1 + number % 12:02}-{1 + number % 28:02}\t"
            f"{text[start : start + length]}\n"
        )
        block.append(row)
        held += len(row)
        size -= len(row)
        if held > _BLOCK or size <= 0:
            yield "".join(block)
            block, held = [], 0


def restore(bin_dir: Path, archive: Path, params: ConnectionParams, masking: Masking | None) -> float:
    """Restore by sections; return the seconds."""
    with client_environment(params) as env:

        def section(name: str) -> None:
            options = ["-w", "--exit-on-error", f"--section={name}", "--dbname="]
            run_tool([bin_dir / "pg_restore", *options, archive], env=env)

        started = time.monotonic()
        section("pre-data")
        if masking:
            with session(params) as connection:
                masking.install(connection)
        section("data")
        if masking:
            with session(params) as connection:
                masking.remove(connection)
        section("post-data")
        return time.monotonic() - started


def search(bin_dir: Path, archive: Path, params: ConnectionParams, masking: Masking) -> float:
    """Take samples of the archive and search the copy for them; return the seconds."""
    started = time.monotonic()
    client = next(client for client in find_clients([str(bin_dir)]) if str(client.bin_dir) == str(bin_dir))
    reader = ArchiveReader(archive, format="custom", client=client, deadline=3600)
    with closing(reader.blocks()) as found:
        samples = sample_values(found, masking)
    with session(params) as connection:
        leaks = find_leaks(connection, samples, masking)
    if leaks:
        raise SystemExit(f"not masked: {leaks[0]}")
    return time.monotonic() - started


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


if __name__ == "__main__":
    raise SystemExit(main())
