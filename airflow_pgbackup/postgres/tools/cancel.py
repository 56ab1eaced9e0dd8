"""The flag that asks a task to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from airflow_pgbackup.errors import Canceled


class Cancel:
    """A flag that asks a task to stop. Once set, it stays set.

    It can be set from another thread and from a signal handler. It takes no lock, because a handler runs in the main
    thread, which can be inside any of these methods.
    """

    def __init__(self) -> None:
        self._set = False
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the flag and call the callbacks, which return at once."""
        self._set = True
        with contextlib.ExitStack() as stack:  # calls all, even if one raises
            for callback in list(self._callbacks):
                stack.callback(callback)

    def is_set(self) -> bool:
        return self._set

    def check(self) -> None:
        """Check that the flag is not set.

        :raises Canceled: it is.
        """
        if self._set:
            raise Canceled("stopped: the task was asked to stop")

    @contextlib.contextmanager
    def set_on_error(self) -> Iterator[None]:
        """Set the flag if the block raises: the threads that work for it must not go on for hours after Airflow's
        ``execution_timeout``, which is raised in the main thread only."""
        try:
            yield
        except BaseException:
            self.set()
            raise

    def on_set(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the flag is set, or at once if it is set already; in a race, twice.

        :return: a function that removes the callback.
        """
        self._callbacks.append(callback)
        if self._set:
            callback()

        def unregister() -> None:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

        return unregister
