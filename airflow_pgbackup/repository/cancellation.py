"""The flag that cancels reading and writing."""

from __future__ import annotations

import threading
from typing import Protocol

from airflow_pgbackup.errors import Canceled


class CancelFlag(Protocol):
    def check(self) -> None:
        """Raise if the caller was asked to stop.

        :raises Canceled: it was.
        """


class Stop:
    """The caller's cancel flag, and one for the members of a directory: when one fails, the others stop."""

    def __init__(self, cancel: CancelFlag | None) -> None:
        self._cancel = cancel
        self._set = threading.Event()

    def set(self) -> None:
        self._set.set()

    def check(self) -> None:
        if self._cancel is not None:
            self._cancel.check()
        if self._set.is_set():
            raise Canceled("another member of the directory has failed")
