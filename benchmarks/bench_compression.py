"""Compare our settings for level 3 of zstd with zstd's own, on rows as COPY writes them.

    python benchmarks/bench_compression.py [--mib 64] [--rounds 3]

Two threads compress blocks of 4 MiB, as in a dump. CPU time is the minimum of the rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import texty_database
import zstandard

from airflow_pgbackup.backup.streams import zstd_compressor

MIB = 1 << 20
BLOCK = 4 * MIB
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def text(rng: random.Random) -> Iterator[str]:
    """Yield rows of the tables of the other benchmarks."""
    yield from texty_database.rows(texty_database.words(2_000_000), 1 << 40, rng)


def pgbench(rng: random.Random) -> Iterator[str]:
    for number in range(1, 1 << 40):
        yield f"{number}\t{number // 100_000}\t{rng.randint(-5000, 5000)}\t{' ' * 84}\n"


def measurements(rng: random.Random) -> Iterator[str]:
    for number in range(1 << 40):
        at = START + timedelta(seconds=number * 3, microseconds=rng.randint(0, 999_999))
        yield f"{number}\t{at:%Y-%m-%d %H:%M:%S.%f}+00\t{rng.gauss(20, 5):.6f}\t{rng.randint(1, 200)}\n"


def orders(rng: random.Random) -> Iterator[str]:
    for number in range(1 << 40):
        price, day = rng.randint(100, 100_000) / 100, START.date() + timedelta(days=number // 5000)
        ids = f"{rng.randint(1, 1_000_000)}\t{rng.randint(1, 50_000)}\t{rng.randint(1, 10)}"
        yield f"{number}\t{ids}\t{price:.2f}\t{day}\t{rng.choice(['EUR', 'USD', 'GBP'])}\tf\t\\N\n"


def uuids(rng: random.Random) -> Iterator[str]:
    for number in range(1 << 40):
        pair = [uuid.UUID(int=rng.getrandbits(128)) for _ in range(2)]
        yield f"{pair[0]}\t{pair[1]}\t{number}\t{rng.choice(['open', 'closed', 'new'])}\n"


def events_in_json(rng: random.Random) -> Iterator[str]:
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(5000)]
    for number in range(1 << 40):
        event = {"user": rng.randint(1, 100_000), "event": rng.choice(["click", "view", "buy"])}
        rest = {"path": "/" + "/".join(rng.choices(words, k=3)), "ts": 1_700_000_000 + number * 7}
        yield f"{number}\t{json.dumps({**event, **rest, 'agent': 'Mozilla/5.0 (X11; Linux x86_64)'})}\n"


def bytea(rng: random.Random) -> Iterator[str]:
    for number in range(1 << 40):
        yield f"{number}\t\\\\x{rng.getrandbits(1024):0256x}\n"


KINDS: list[Callable[[random.Random], Iterator[str]]] = [
    text,
    pgbench,
    measurements,
    orders,
    uuids,
    events_in_json,
    bytea,
]


def blocks(rows: Iterator[str], size: int) -> list[bytes]:
    taken, left = [], size
    for row in rows:
        taken.append(row)
        left -= len(row)
        if left <= 0:
            break
    data = "".join(taken).encode()
    return [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]


def measure(data: list[bytes], make: Callable[[], Any]) -> tuple[float, int]:
    """Return CPU seconds and bytes."""

    def compress(half: list[bytes]) -> int:
        compressor = make()
        return sum(len(compressor.compress(block)) for block in half)

    started = time.process_time()
    with ThreadPoolExecutor(2) as pool:
        size = sum(pool.map(compress, (data[::2], data[1::2])))
    return time.process_time() - started, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=64, help="of each kind of rows")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("| rows | zstd's own level 3 | ours: CPU time | ours: bytes |\n|---|---|---|---|")
    for kind in KINDS:
        data = blocks(kind(random.Random(1)), arguments.mib * MIB)
        results: dict[str, list[tuple[float, int]]] = {"own": [], "ours": []}
        for _ in range(arguments.rounds):
            results["own"].append(measure(data, lambda: zstandard.ZstdCompressor(level=3)))
            results["ours"].append(measure(data, lambda: zstd_compressor(3)))
        own, ours = min(results["own"]), min(results["ours"])
        times = sum(map(len, data)) / own[1]
        print(
            f"| {kind.__name__.replace('_', ' ')} | {times:.1f} times smaller | {ours[0] / own[0] - 1:+.0%} "
            f"| {ours[1] / own[1] - 1:+.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
