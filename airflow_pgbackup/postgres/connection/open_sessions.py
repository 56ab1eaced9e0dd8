"""Sessions that another thread can break off, even if the server neither answers nor obeys a cancel request."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConnectError

if TYPE_CHECKING:
    import psycopg


class OpenSessions:
    """The open sessions of a :class:`.conninfo.ConnectionParams`.

    :ivar broken: why they were broken off; empty until then.
    """

    def __init__(self) -> None:
        # A second descriptor for each socket: the session's own can be closed, and its number reused.
        self._sockets: dict[int, socket.socket] = {}
        self.broken = ""

    def add(self, session: psycopg.Connection[Any]) -> None:
        """Register a session.

        :raises ConnectError: the sessions were broken off; this one is too.
        """
        number = id(session)
        self._sockets[number] = socket.socket(fileno=os.dup(session.fileno()))
        weakref.finalize(session, self._forget, number)
        if self.broken:
            self.break_off(self.broken)
        self.check()

    def check(self) -> None:
        """Check that :meth:`break_off` was not called.

        :raises ConnectError: it was.
        """
        if self.broken:
            raise ConnectError(self.broken)

    def break_off(self, why: str) -> None:
        """Shut down every connection, whatever it waits for, and refuse new ones.

        Takes no lock, so that any thread and any signal handler can call it.
        """
        self.broken = why
        for each in list(self._sockets.values()):
            with contextlib.suppress(OSError):  # already closed
                each.shutdown(socket.SHUT_RDWR)

    def _forget(self, number: int) -> None:
        self._sockets.pop(number).close()
