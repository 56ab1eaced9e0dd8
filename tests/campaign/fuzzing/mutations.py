"""Changes of valid inputs: of bytes, of the lines of a text, and of JSON values.

Each takes its random choices from a :class:`random.Random`. The long run passes one with a seed; the tests pass the one
of ``hypothesis.strategies.randoms``, which makes a failing example small.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutator = Callable[[Random, bytes, Sequence[bytes]], bytes]
"""Takes the input to change, and others from which it may take parts."""

LARGEST = 1 << 16
"""Bytes of an input; a longer one is cut."""

_NUMBERS = (0, 1, 2, 3, 4, 5, 16, 127, 128, 255, 256, 1023, 4096, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_BYTES = b"\x00\x01\x02\x7f\x80\xff\n\r\t '\"\\;$()-/*.,:%@aE0"
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.0, 0.5, 1e300, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**30),
    *("", " ", ".", "..", "../x", "/", "a/b", "a//b", "@cluster", "@sets", "%2E%2E", "%zz", "\0", "\n", "\x1b[2J"),
    *("\ud800", "\u202e", "é", "x" * 300, "1.0", "1.99", "2.0", "2026-02-31T00:00:00Z", "0001-01-01T00:00:00Z"),
    *("9999-12-31T23:59:59.999999Z", "2026-11-22T02:00:00+24:00", "2026-11-22T02:00:00", "-", "--help", "a\nb", "0"),
    *([], {}, [[]], {"": ""}, [None] * 3, {"a": {"b": {"c": []}}}),
)


def some_bytes(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """Change a few bytes, numbers or pieces.

    :param words: that mean something to the reader of such inputs.
    """
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        _one_change(random, changed, others, words)
    return bytes(changed[:LARGEST])


def _one_change(random: Random, data: bytearray, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    size = len(data)
    at = random.randint(0, size)
    end = min(size, at + random.choice((1, 1, 2, 4, 5, 8, 30, 200, 2000)))
    kind = random.randrange(11)
    if kind == 0 and at < size:
        data[at] ^= 1 << random.randrange(8)
    elif kind == 1 and at < size:
        data[at] = random.choice(_BYTES)
    elif kind == 2 and at < size:
        data[at] = (data[at] + random.choice((-1, 1))) % 256
    elif kind == 3:
        data[at : at + 4] = random.choice(_NUMBERS).to_bytes(4, "little")
    elif kind == 4:
        del data[at:end]
    elif kind == 5:
        data[at:at] = data[at:end] * random.choice((1, 1, 2, 50))
    elif kind == 6:
        other = random.randint(0, size)
        piece = bytes(data[at:end])
        del data[at:end]
        data[other:other] = piece
    elif kind == 7:
        del data[at:]
    elif kind == 8 and others:
        other_data = random.choice(others)
        start = random.randint(0, len(other_data))
        data[at:end] = other_data[start : start + random.choice((4, 20, 200, 5000))]
    elif kind == 9 and words:
        data[at : random.choice((at, end))] = random.choice(words)
    else:
        data[at:at] = bytes(random.choice(_BYTES) for _ in range(random.randint(1, 4)))


def with_words(words: Sequence[bytes]) -> Mutator:
    """Return :func:`some_bytes` with these words."""

    def mutate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
        return some_bytes(random, data, others, words)

    return mutate


def lines_with_words(words: Sequence[bytes]) -> Mutator:
    """Return a mutator of texts: half of its changes are of lines, the others of bytes."""

    def mutate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
        if random.randrange(2):
            return some_bytes(random, data, others, words)
        lines = data.split(b"\n")
        for _ in range(random.randint(1, 4)):
            at, other = random.randrange(len(lines)), random.randrange(len(lines))
            kind = random.randrange(7)
            if kind == 0:
                lines.insert(other, lines[at])
            elif kind == 1:
                lines[at], lines[other] = lines[other], lines[at]
            elif kind == 2 and len(lines) > 1:
                del lines[at]
            elif kind == 3:
                lines[at] = b" " * random.choice((0, 1, 2, 4, 40)) + lines[at].lstrip()
            elif kind == 4 and words:
                key, colon, _ = lines[at].partition(b":")
                lines[at] = key + colon + b" " + random.choice(words)
            elif kind == 5 and words:
                lines[at] = random.choice(words) + b": " + lines[at].partition(b":")[2]
            elif others:
                lines[at:at] = random.choice(others).split(b"\n")[: random.randint(1, 6)]
        return b"\n".join(lines)[:LARGEST]

    return mutate


def json_values(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change a few values or keys of a JSON document, and sometimes a few bytes."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return some_bytes(random, data, others)
    for _ in range(random.choice((1, 1, 2, 3))):
        content = _changed(random, content, others)
    text = json.dumps(content, indent=random.choice((None, 2)), ensure_ascii=random.choice((True, False)))
    changed = text.encode("utf-8", "backslashreplace")
    return some_bytes(random, changed, others) if random.randrange(6) == 0 else changed


def _changed(random: Random, content: Any, others: Sequence[bytes]) -> Any:
    places = list(_places(content))
    if not places or random.randrange(40) == 0:
        return copy.deepcopy(random.choice(_VALUES))
    holder, key = random.choice(places)
    kind = random.randrange(8)
    if kind < 3:
        holder[key] = copy.deepcopy(random.choice(_VALUES))
    elif kind == 3:
        del holder[key]
    elif kind == 4:
        other, other_key = random.choice(places)
        holder[key] = copy.deepcopy(other[other_key])
    elif kind == 5 and isinstance(holder[key], str):
        text = holder[key]
        at = random.randint(0, len(text))
        holder[key] = text[:at] + random.choice(("", "x", "%", "/", "\n", "Z", "0", "-")) + text[at + 1 :]
    elif kind == 6 and isinstance(holder[key], int | float):
        holder[key] = holder[key] + random.choice((-1, 1, 0.5, 2**31, 2**62))
    elif isinstance(holder, dict):
        holder[random.choice([*holder, "new", "", "x" * 200])] = holder[key]
    else:
        holder.insert(key, copy.deepcopy(holder[key]))
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        value = waiting.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            found.append((value, key))
            waiting.append(value[key])
    return found
