"""Sessions that can be broken off from outside, for a server that need not answer, nor obey a cancel request."""

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
    """The sessions that were made with a :class:`.conninfo.ConnectionParams`, as long as they are in use.

    :ivar broken: why they were broken off; empty while they are not.
    """

    def __init__(self) -> None:
        # Of each a second descriptor of its socket: the session's own may be closed, and its number another's.
        self._sockets: dict[int, socket.socket] = {}
        self.broken = ""

    def add(self, session: psycopg.Connection[Any]) -> None:
        """:raises ConnectError: they are broken off."""
        number = id(session)
        self._sockets[number] = socket.socket(fileno=os.dup(session.fileno()))
        weakref.finalize(session, self._forget, number)
        if self.broken:
            self.break_off(self.broken)
        self.check()

    def check(self) -> None:
        """:raises ConnectError: they are broken off."""
        if self.broken:
            raise ConnectError(self.broken)

    def break_off(self, why: str) -> None:
        """Close their connections, whatever they wait for, and allow no more of them. From any thread, and from a
        signal handler: it takes no lock."""
        self.broken = why
        for each in list(self._sockets.values()):
            with contextlib.suppress(OSError):  # closed meanwhile
                each.shutdown(socket.SHUT_RDWR)

    def _forget(self, number: int) -> None:
        self._sockets.pop(number).close()
