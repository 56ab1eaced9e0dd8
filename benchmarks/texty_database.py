"""A database of text for the benchmarks: words with natural frequencies, which zstd at level 3 compresses 2.9 times.

pgbench's own tables compress 25 times, and would make every compressor look too good.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import numpy as np
import psycopg
from psycopg import sql

# The share of each table; none has over a quarter.
TABLES = {
    "article": 0.18,
    "comment": 0.15,
    "message": 0.14,
    "ticket": 0.12,
    "review": 0.10,
    "event_log": 0.09,
    "order_note": 0.08,
    "page": 0.07,
    "product": 0.04,
    "customer": 0.03,
}
WORDS = 20_000
_EPOCH = datetime(2020, 1, 1, tzinfo=timezone.utc)
_BLOCK = 1 << 20


def fill(connection: psycopg.Connection, size: int) -> None:
    """Create the tables, the same ones for the same size.

    :param size: the bytes of their rows, at least; on disk they take a few percent more.
    """
    text = words(max(200_000, min(10_000_000, size // 16)))
    for number, (name, share) in enumerate(TABLES.items()):
        table = sql.Identifier(name)
        connection.execute(
            sql.SQL("CREATE TABLE {} (id bigint, created timestamptz, author bigint, body text)").format(table)
        )
        with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(table)) as copy:
            for block in rows(text, int(size * share), random.Random(number)):
                copy.write(block)
        connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(table))
    connection.execute("VACUUM ANALYZE")
    connection.execute("CHECKPOINT")


def rows(text: str, size: int, rng: random.Random) -> Iterator[str]:
    block, held, number = [], 0, 0
    while size > 0:
        length = rng.randrange(80, 900)
        start = rng.randrange(len(text) - length)
        number += 1
        created = _EPOCH + timedelta(seconds=number * 37 + length)
        row = f"{number}\t{created.isoformat()}\t{rng.getrandbits(40)}\t{text[start : start + length]}\n"
        block.append(row)
        held += len(row)
        size -= len(row)
        if held > _BLOCK or size <= 0:
            yield "".join(block)
            block, held = [], 0


def words(count: int) -> str:
    """Return made-up words, of which the n-th is 1/n as frequent as the first (Zipf's law)."""
    rng = random.Random(1)
    letters, weights = "etaoinshrdlucmfwypvbgkqjxz", [6, 5, 4, 4, 4, 4, 3, 3, 3, 2, 2, 2, 2, 2] + [1] * 12
    lengths = (2, 3, 4, 5, 6, 6, 7, 8, 9, 11)
    known = ["".join(rng.choices(letters, weights, k=rng.choice(lengths))) for _ in range(WORDS)]
    often = 1 / np.arange(1, WORDS + 1)
    drawn = np.searchsorted(np.cumsum(often / often.sum()), np.random.default_rng(1).random(count))
    return " ".join(np.array(known, dtype=object)[np.minimum(drawn, WORDS - 1)].tolist())
