"""How the Backups page and the report write values: the filters of their templates.

Each returns one line of visible characters.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_pgbackup.quantities import human_age, human_bytes, human_seconds, human_time
from airflow_pgbackup.repository.state import in_words
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 300
UNKNOWN = "\N{EN DASH}"


def text(value: object, longest: int = LONGEST) -> str:
    """Return text from outside, with all characters visible, cut at a length."""
    shown = printable(str(value)[: 4 * longest])
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def age(then: datetime | None, now: datetime) -> str:
    """Return how long ago it was: ``35 min``, ``4 h 10 min``, ``1 d 4 h``."""
    return "never" if then is None else human_age(now - then)


def when(then: datetime | None) -> str:
    """Return a time to the minute: ``2026-11-27 02:00 UTC``; a dash where it is not known."""
    return UNKNOWN if then is None else human_time(then)


def span(seconds: float | None) -> str:
    """Return a duration: ``4 min 12 s``; a dash where it is not known."""
    return UNKNOWN if seconds is None else human_seconds(seconds)


def size(count: float | None) -> str:
    """Return a size: ``1.5 KiB``; a dash where it is not known."""
    return UNKNOWN if count is None else human_bytes(count)


def number(value: int | None) -> str:
    """Return a number with thousands separators; a dash where it is not known."""
    return UNKNOWN if value is None else f"{value:,}"


def part(value: str) -> str:
    """Return text as one part of a URL's query."""
    return quote(value, safe="")


def slug(value: str) -> str:
    """Return a status as the name of a class of the style sheet."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in value)


def measure(value: float, unit: str) -> str:
    """Return a number with its unit, one of ``bytes``, ``seconds``, ``rows``, ``tables``."""
    if unit == "bytes":
        return size(value)
    return span(value) if unit == "seconds" else f"{value:,.0f}"


FILTERS = {
    "measure": measure,
    "state": in_words,
    "text": text,
    "when": when,
    "span": span,
    "size": size,
    "number": number,
    "part": part,
    "slug": slug,
}


def environment(package: str) -> Environment:
    """Return what renders the templates of a package, with these filters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= FILTERS
    return made
