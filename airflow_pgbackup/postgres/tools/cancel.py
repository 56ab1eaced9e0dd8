"""The flag by which a task is asked to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from airflow_pgbackup.errors import Canceled


class Cancel:
    """A flag that says: stop. Once set it stays set.

    Safe to set from another thread and from a signal handler. So it takes no lock: a handler runs in the main thread,
    which may be inside any of these methods just then.
    """

    def __init__(self) -> None:
        self._set = False
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the flag and signal what is running; returns at once."""
        self._set = True
        with contextlib.ExitStack() as stack:  # all are called, also when one raises
            for callback in list(self._callbacks):
                stack.callback(callback)

    def is_set(self) -> bool:
        return self._set

    def check(self) -> None:
        """:raises Canceled: when it is set."""
        if self._set:
            raise Canceled("stopped: the task was asked to stop")

    def on_set(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called when the flag is set, at once if it is: once or, in a race, twice.

        :returns: a function that ends this.
        """
        self._callbacks.append(callback)
        if self._set:
            callback()

        def unregister() -> None:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

        return unregister
