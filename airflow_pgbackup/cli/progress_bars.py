"""Progress on a terminal: a line with a bar for each step of a verb, redrawn in place, below the log lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from airflow_pgbackup.backup.progress import Step, StepFigures
from airflow_pgbackup.quantities import human_duration
from airflow_pgbackup.terminal import Terminal
from airflow_pgbackup.text import printable

_SHOWN = 4  # steps at a time
_REDRAWS = 5  # a second
_ECHO = 3  # cells at the right for the ^C that the terminal shows: if it began a line, that could not be erased
_GAP = 2  # between the columns
_LEAST_NAME, _LEAST_BAR, _MOST_BAR = 16, 8, 40  # cells


class Bars:
    """Shows steps as bars. Begun steps are shown while :meth:`shown` lasts; outside of it, nothing is."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._steps: list[Step] = []
        self._lock = threading.Lock()
        self._spinner = Spinner("dots" if terminal.encoding.startswith("utf") else "line")
        self._what = ""
        self._start = 0.0

    def begin(self, step: Step) -> None:
        with self._lock:
            self._steps = [*self._steps, step]  # replaced, not changed: the drawing thread may be reading it

    def end(self, step: Step) -> None:
        with self._lock:
            self._steps = [other for other in self._steps if other is not step]

    @contextmanager
    def shown(self, what: str) -> Iterator[None]:
        """Show `what` and the steps while the ``with`` lasts. At its end, erase them and show the cursor again.

        :param what: the complete work; shown with its duration.
        """
        self._what, self._start = what, time.monotonic()
        try:
            with Live(get_renderable=self._draw, console=self._terminal, transient=True, refresh_per_second=_REDRAWS):
                yield
        finally:
            self._terminal.show_cursor(True)  # also where a second Ctrl-C interrupted rich's own cleanup

    def _draw(self) -> RenderableType:
        width = self._terminal.width - _ECHO
        elapsed = f" {human_duration(time.monotonic() - self._start)}"
        name = fitted(self._what, width - cell_len(elapsed) - 2)
        self._spinner.update(text=Text.assemble(name, (elapsed, "dim")))
        steps = [step_line(step.figures(), width) for step in self._steps[:_SHOWN]]
        return Group(self._spinner, *steps)


def step_line(figures: StepFigures, width: int) -> RenderableType:
    """Return the line of a step: its name, a bar, its figures.

    :param width: cells. The least important figures are left out where it is too small, then the bar, and the name is
        cut last.
    """
    name, bar, shown = layout(figures, width)
    columns: list[RenderableType] = [Text(name)]
    if bar:
        columns.append(ProgressBar(total=1.0, completed=figures.fraction or 0.0, width=bar))
    line = Table.grid(padding=(0, _GAP, 0, 0))
    for _ in range(len(columns) + 1):
        line.add_column(no_wrap=True)
    line.add_row(*columns, Text(shown, style="dim"))
    return line


def layout(figures: StepFigures, width: int) -> tuple[str, int, str]:
    """Return the name, the width of the bar (0 for none) and the figures that fit into one line."""
    name, parts = printable(figures.step.what), figures.parts
    needed = min(cell_len(name), _LEAST_NAME)
    if figures.fraction is not None:
        needed += _GAP + _LEAST_BAR
    while len(parts) > 1 and needed + _GAP + cell_len("  ".join(parts)) > width:
        parts.pop()
    shown = "  ".join(parts)
    room = width - cell_len(shown) - _GAP
    bar = 0
    if figures.fraction is not None:
        bar = min(max(room - cell_len(name) - _GAP, _LEAST_BAR), _MOST_BAR)
        if room - bar - _GAP < min(cell_len(name), _LEAST_NAME):
            bar = 0
    return fitted(name, room - (bar + _GAP if bar else 0)), bar, shown


def fitted(text: str, width: int) -> str:
    """Return a printable text of at most `width` cells, cut with an ellipsis where it is longer."""
    text = printable(text)
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, width - 1).rstrip()}…" if width > 1 else ""
