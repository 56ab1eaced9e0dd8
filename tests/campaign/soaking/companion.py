"""What runs beside the soak, in a thread of its own, for the length of a ``with``."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from typing_extensions import Self


class Companion(ABC):
    """A subclass defines :meth:`_run`, which returns soon after ``_stop`` is set."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @abstractmethod
    def _run(self) -> None: ...
