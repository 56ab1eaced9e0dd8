"""Which files one run re-hashes, so that repeated runs read every file.

Each file has a fixed place on a circle, the first 64 bits of the SHA-256 of its key, and a run reads the files in one
arc of that circle. Files that are added or pruned move no other file, so nothing has to be remembered between runs.

``n/m`` is the n-th of m equal arcs, as in ``restic check --read-data-subset=n/m``, which takes the first byte of a
pack's id modulo m. A percentage, which restic draws at random, is an arc of that length here, and its start moves by
the golden ratio of the circle each day. The multiples of an irrational number are spread evenly whatever the step
(three-distance theorem), so runs every day, every week or every 30 days all cover the circle.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from airflow_pgbackup.errors import ConfigurationError

CIRCLE = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / 1.618…
_MOST_PARTS = 1_000_000
_DAY = 86_400

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", re.ASCII)
_PART = re.compile(r"([0-9]{1,7})/([0-9]{1,7})", re.ASCII)


@dataclass(frozen=True)
class Share:
    """An arc of the circle of files.

    :param text: as it was given, ``5%`` or ``3/20``.
    :param start, length: in units of 2**-64 of the circle.
    """

    text: str
    start: int
    length: int

    @classmethod
    def parse(cls, text: str, now: datetime) -> Share:
        """Return the share that `text` names.

        :param text: ``5%``, or ``n/m`` for the n-th of m parts.
        :param now: aware; its UTC day chooses the arc of a percentage.
        :raises ConfigurationError: neither of the two, or out of range.
        """
        if match := _PERCENT.fullmatch(text):
            percent = Fraction(match[1])
            if 0 < percent <= 100:
                day = int(now.timestamp()) // _DAY
                return cls(text, day * _GOLDEN % CIRCLE, -(-percent.numerator * CIRCLE // (percent.denominator * 100)))
        elif match := _PART.fullmatch(text):
            part, parts = int(match[1]), int(match[2])
            if 1 <= part <= parts <= _MOST_PARTS:
                start, end = (-(-number * CIRCLE // parts) for number in (part - 1, part))
                return cls(text, start, end - start)
        raise ConfigurationError(
            f"invalid share of the files to read: {text!r}",
            hint="Give a percentage such as 5%, or a part such as 3/20 for the third of twenty parts.",
        )

    def takes(self, key: str) -> bool:
        """Return whether the file of this key is read."""
        return (place(key) - self.start) % CIRCLE < self.length


def place(key: str) -> int:
    """Return the place of a file on the circle, from 0 to 2**64 - 1."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big")
