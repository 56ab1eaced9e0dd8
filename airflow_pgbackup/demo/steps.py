"""What the demo shows while it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Steps:
    """One line for each step, with the seconds it took; a spinner and a clock meanwhile, where this is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()

    @contextmanager
    def __call__(self, title: str) -> Iterator[Callable[[str], None]]:
        """:return: gives a function that says what the step does at the moment."""
        begun = time.monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(title)
            yield lambda now: progress.update(task, description=f"{title}: {now}")
        seconds = time.monotonic() - begun
        self.console.print(f"[green]✓[/] {title} [dim]{seconds:.1f} s[/]", soft_wrap=True)
