"""The plots of a soak, as SVG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tests.campaign.soaking.samples import AIRFLOW, TABLES, WORKERS, Series

MIB = 1024**2
_COLORS = ("#1b7f5c", "#e9a23b", "#4a6fa5", "#b5483a", "#8a6fae", "#7a7a7a")
_GROUPS = (*WORKERS, *AIRFLOW)


def plot(series: Series, faults: Sequence[float], runs: Mapping[str, Sequence[float]], directory: Path) -> list[str]:
    """Draw the series, and return the names of the files.

    :param faults: when one was injected, in seconds. :param runs: values by run of the backup DAG, in their order.
    """
    minutes = [second / 60 for second in series.seconds]

    def lines(title: str, unit: str, names: Mapping[str, str], scale: float = 1.0) -> Callable[[Figure], None]:
        def draw(figure: Figure) -> None:
            axes = figure.add_subplot()
            for color, (name, label) in zip(_COLORS * 2, names.items(), strict=False):
                if values := series.values.get(name):
                    axes.plot(minutes, [value / scale for value in values], color=color, linewidth=1.2, label=label)
            for second in faults:
                axes.axvline(second / 60, color="#c4271d", alpha=0.25, linewidth=0.7)
            axes.set_xlabel("minutes; each red line is a fault", fontsize=8)
            _style(axes, title, unit, figure)

        return draw

    def by_run(figure: Figure) -> None:
        axes = figure.add_subplot()
        for color, (name, values) in zip(_COLORS, runs.items(), strict=False):
            axes.plot(range(1, len(values) + 1), values, color=color, marker="o", markersize=3, linewidth=1, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("run of the backup DAG; a retry adds rows", fontsize=8)
        _style(axes, "Rows in Airflow's database for each run", "rows", figure)

    pictures = {
        "memory": lines("Resident memory", "MiB", {f"memory {each}": each for each in _GROUPS}, MIB),
        "descriptors": lines("Open file descriptors", "descriptors", {f"descriptors {each}": each for each in _GROUPS}),
        "processes": lines("Processes", "processes", {f"processes {each}": each for each in _GROUPS}),
        "temporary": lines(
            "Directories for temporary files",
            "MiB",
            {f"temporary bytes {each}": each for each in (*WORKERS, "hub")},
            MIB,
        ),
        "repository": lines(
            "The repository", "number", {"objects": "objects", "backups": "complete backups (ten series, three each)"}
        ),
        "metadata": lines(
            "Rows of Airflow's database, which grow by a constant number a run",
            "rows",
            {f"rows {table}": table for table in TABLES[:6]},
        ),
        "runs": by_run,
    }
    directory.mkdir(parents=True, exist_ok=True)
    rcParams["svg.hashsalt"] = "soak"
    for name, draw in pictures.items():
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(directory / f"soak-{name}.svg", metadata={"Date": None})
    return [f"soak-{name}.svg" for name in pictures]


def _style(axes: Axes, title: str, unit: str, figure: Figure) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel(unit, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
