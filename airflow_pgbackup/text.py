r"""Escaping text from outside before it is shown.

Names of tables, roles and databases, messages of servers and stores, contents of manifests and archives can hold
characters that a terminal obeys (ESC, C1), that reorder what a reader sees (U+202E), or that end a log line. They are
shown as Python writes them in a literal: ``\x1b``, ``\u202e``, ``\n``.

Every layer may import this module.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def printable(text: str) -> str:
    r"""Return `text` as one line in which every character is visible.

    Escapes the categories Cc (C0 with ``\n`` and ``\t``, DEL, C1), Cf (bidirectional and zero-width characters), Cs
    (lone surrogates), Co, Cn, Zl and Zp of the Unicode Character Database. Keeps all others, such as letters,
    ideographs, emoji and the spaces of category Zs. A backslash stays as it is: the result is for reading and cannot be
    reversed. ``printable(printable(text)) == printable(text)``.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_visible(c) else c.encode("unicode_escape").decode() for c in text)


def printing(log: Callable[[str], object]) -> Callable[[str], None]:
    """Return a function that passes each line to `log`, escaped by :func:`printable`."""

    def say(line: str) -> None:
        log(printable(line))

    return say


def first_of(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first names, for a message, and how many more there are: ``a, b and 3 more``.

    :param separator: ``"; "`` for names with reasons: ``a (old); b (failed); and 3 more``.
    """
    more = len(names) - most
    return separator.join(names[:most]) + (f"{separator.strip(', ')} and {more:,} more" if more > 0 else "")


def first_problem(problems: Sequence[str]) -> str:
    """Return the first problem, and how many more there are: ``film.dat is missing (and 3 more)``."""
    more = len(problems) - 1
    return problems[0] + (f" (and {more:,} more)" if more > 0 else "")


def did_you_mean(name: object, known: Iterable[str], otherwise: str | None = None) -> str | None:
    """Return a hint that names what is most similar to an unknown name; `otherwise` if nothing is."""
    import difflib  # takes its time to load

    near = difflib.get_close_matches(str(name), list(known), 1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def printable_json(text: str) -> str:
    r"""Return the JSON document `text` with the same value, and ``\uXXXX`` for what :func:`printable` escapes.

    :func:`json.dumps` with ``ensure_ascii=False`` escapes C0 only. Line ends stay: they separate values.
    """
    return "".join(c if c == "\n" or _is_visible(c) else json.dumps(c)[1:-1] for c in text)


def encodable(value: Any) -> Any:
    r"""Return plain JSON with the lone surrogates in its strings, which UTF-8 cannot encode, as visible ``\udcXX``.

    For values that Airflow stores and sends, sometimes as msgpack. Integers that do not fit into 64 bits become text: a
    forged file may contain one as a number of rows, and it would crash Airflow's triggerer.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item) for item in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    return value


def _is_visible(c: str) -> bool:
    # str.isprintable() rejects every space but U+0020; French messages have U+00A0 inside quotation marks.
    return c.isprintable() or unicodedata.category(c) == "Zs"
