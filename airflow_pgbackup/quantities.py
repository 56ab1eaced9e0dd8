"""How numbers, sizes, durations, ages and times are written for people. Every layer may import this module."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 table``, ``2,000 tables``.

    :param many: the plural, see :func:`noun`.
    """
    return f"{number:,} {noun(number, one, many)}"


def noun(number: int, one: str, many: str | None = None) -> str:
    """Return the form of a noun for a number: ``table``, ``tables``.

    :param many: the plural; by default `one` with an s, or as it is if it ends with one, such as ``series``.
    """
    return one if number == 1 else many or (one if one.endswith("s") else f"{one}s")


def human_bytes(count: float) -> str:
    """Return a size for people: ``1536`` is ``1.5 KiB``."""
    if round(count) == 1:
        return "1 byte"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if round(count, 1) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def human_seconds(seconds: float) -> str:
    """Return a duration for people: ``3725`` is ``1 h 2 min``, ``12.34`` is ``12.3 s``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes = round(whole / 60)
    return f"{whole // 60} min {whole % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def human_duration(seconds: float) -> str:
    """Return a duration in whole seconds, for text that is updated: ``8 s``, ``3 min 5 s``, ``1 h 2 min``."""
    return f"{seconds:.0f} s" if round(seconds) < 60 else human_seconds(round(seconds))


def human_age(age: timedelta) -> str:
    """Return an age for people: ``35 min``, ``4 h 10 min``, ``1 d 4 h``; ``under 1 min``, also if negative."""
    minutes = int(age.total_seconds() // 60)
    if minutes < 1:
        return "under 1 min"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def span_text(span: timedelta) -> str:
    """Return a span that a user gave: ``30 days``, ``24 hours``, ``1 hour``."""
    hours = span.total_seconds() / 3600
    days, rest = divmod(hours, 24)
    return f"{hours:g} hour{'' if hours == 1 else 's'}" if rest or days == 1 else f"{days:g} days"


def human_time(moment: datetime, *, seconds: bool = False) -> str:
    """Return a time for people: ``2026-11-22 02:00 UTC``; with seconds, ``2026-11-22 02:00:00 UTC``."""
    pattern = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
    return f"{moment.astimezone(timezone.utc):{pattern}} UTC"
