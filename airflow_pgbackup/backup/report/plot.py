"""The picture of the report: for each series and day, what was proven, worst first."""

from __future__ import annotations

import io
from collections.abc import Container
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.formats import text
from airflow_pgbackup.backup.report.collect import DAY_STATES
from airflow_pgbackup.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_pgbackup.backup.report.collect import Report

MOST_SERIES = 40
"""Series in the picture, worst first."""
_COLORS = {
    "none": "#ffffff",
    "failed": "#c4271d",
    "unverified": "#e9b25c",
    "verified": "#7fc998",
    "rehearsed": "#1a6334",
}
_LONGEST_NAME = 40
_MARKS = {"failed": "x", "rehearsed": "R"}


def plot(report: Report) -> bytes:
    """Return the picture as PNG.

    :raises ConfigurationError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.font_manager import findfont, get_font
        from matplotlib.patches import Patch, Rectangle
    except ImportError:
        raise ConfigurationError(
            "the picture needs matplotlib, which is not installed",
            hint="Install airflow-pgbackup[report], or omit the picture.",
        ) from None
    series = [one for each in report.repositories for one in each.series]
    series.sort(key=lambda one: one.status.fine)
    shown = series[:MOST_SERIES]
    figure = Figure(figsize=(9, 1.1 + 0.28 * max(1, len(shown))), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, one in enumerate(shown):
        for day, state in enumerate(one.days):
            axes.add_patch(
                Rectangle(
                    (day + 0.05, row + 0.1), 0.9, 0.8, facecolor=_COLORS[state], edgecolor="#d5d9e0", linewidth=0.6
                )
            )
            if state in _MARKS and report.days <= 31:  # not by color alone
                axes.text(day + 0.5, row + 0.5, _MARKS[state], color="white", ha="center", va="center", fontsize=8)
    axes.set_xlim(0, report.days)
    axes.set_ylim(max(1, len(shown)), 0)
    drawn = get_font(findfont("sans")).get_charmap()
    names = [_name(f"{one.status.server}/{one.status.database}", drawn) for one in shown]
    axes.set_yticks([row + 0.5 for row in range(len(shown))], names, fontsize=8, parse_math=False)
    step = max(1, report.days // 12)
    dates = [report.start + (report.end - report.start) * ((day + 0.5) / report.days) for day in range(report.days)]
    axes.set_xticks(
        [day + 0.5 for day in range(0, report.days, step)],
        [f"{dates[day]:%m-%d}" for day in range(0, report.days, step)],
        fontsize=8,
    )
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    left = len(series) - len(shown)
    title = "What each day proved" + (f" ({left} more series are not shown)" if left else "")
    axes.set_title(title, fontsize=10, loc="left")
    words = {"none": "no backup"}
    patches = [Patch(facecolor=_COLORS[one], edgecolor="#d5d9e0", label=words.get(one, one)) for one in DAY_STATES]
    figure.legend(handles=patches, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", bbox_inches="tight")
    return out.getvalue()


def _name(name: str, drawn: Container[int]) -> str:
    """Return a name of bounded length. Characters that the font lacks are escaped, as all would be the same box."""
    shown = "".join(one if ord(one) in drawn else one.encode("unicode_escape").decode() for one in text(name))
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"
