"""Trends as SVG: coordinates only, so that no text from outside is among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 120, 24
_MARGIN = 2


@dataclass(frozen=True)
class Trend:
    """A line of values over the backups of a series, oldest first.

    :param points: of an SVG polyline, in a box of ``width`` and ``height``.
    :param last: coordinates of the last value.
    :param words: the first and the last value, for those who cannot see the line.
    """

    points: str
    last: tuple[float, float]
    words: str
    width: int
    height: int


def trend(
    values: Sequence[float | None], words: tuple[str, str], *, width: int = WIDTH, height: int = HEIGHT
) -> Trend | None:
    """Return the trend of values; None for fewer than two. The axis begins at zero, so that a small change looks small.

    :param words: the first and the last value in words.
    """
    known = [(position, value) for position, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return None
    most = max(value for _, value in known) or 1.0
    step = (width - 2 * _MARGIN) / (len(values) - 1)
    places = [
        (round(_MARGIN + position * step, 1), round(height - _MARGIN - value / most * (height - 2 * _MARGIN), 1))
        for position, value in known
    ]
    points = " ".join(f"{x},{y}" for x, y in places)
    return Trend(points, places[-1], f"from {words[0]} to {words[1]}", width, height)
