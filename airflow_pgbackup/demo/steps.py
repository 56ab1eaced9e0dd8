"""The steps that the demo shows while it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from airflow_pgbackup.terminal import Terminal, styled
from airflow_pgbackup.text import printable


class Steps:
    """Show a line for each finished step, with its duration; on a terminal, a spinner and a clock while it runs."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.started = time.monotonic()

    @contextmanager
    def __call__(self, title: str) -> Iterator[Callable[[str], None]]:
        """Run a step. The ``with`` gives a function that shows what the step is doing now."""
        begun = time.monotonic()
        terminal = self.terminal
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
            task = progress.add_task(printable(title))
            yield lambda now: progress.update(task, description=printable(f"{title}: {now}"))
        seconds = time.monotonic() - begun
        terminal.say(styled("✓", "green"), f" {title} ", styled(f"{seconds:.1f} s", "dim"))
