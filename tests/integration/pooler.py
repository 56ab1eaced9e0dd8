"""A connection pooler at the protocol, in front of a real PostgreSQL: what PgBouncer does to a session, in small.

It answers a client's startup by itself, with a process id of its own making, and lends it a server session: for one
transaction, or for the client's whole life. https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType

# As PgBouncer 1.18 words it, src/server.c.
_NO_TRANSACTIONS = b"SERROR\0VERROR\0C08P01\0Mtransaction blocks not allowed in statement pooling mode\0\0"
SSL_OR_GSS = (80877103, 80877104)


class Pooler:
    """Listens on ``host`` (a folder for its socket) and ``port``. The server must trust its socket."""

    port = 6432

    def __init__(self, server: Path, user: str, database: str, *, folder: Path, mode: str) -> None:
        self.host = str(folder)
        self._upstream = str(server)
        self._login = _startup(user=user, database=database)
        self._mode = mode
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Pooler:
        self._listener.bind(f"{self.host}/.s.PGSQL.{self.port}")
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.close()
        for session in self._idle:
            session.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):  # a client may leave at any time
            (length,) = struct.unpack("!i", _exactly(client, 4))
            while struct.unpack("!i", _exactly(client, length - 4)[:4])[0] in SSL_OR_GSS:
                client.sendall(b"N")
                (length,) = struct.unpack("!i", _exactly(client, 4))
            server = self._lend()
            self._idle.append(server)
            client.sendall(_message(b"R", struct.pack("!i", 0)))
            for name, value in (("server_version", "18.0"), ("client_encoding", "UTF8"), ("integer_datetimes", "on"),
                                ("standard_conforming_strings", "on"), ("server_encoding", "UTF8")):  # fmt: skip
                client.sendall(_message(b"S", f"{name}\0{value}\0".encode()))
            client.sendall(_message(b"K", struct.pack("!ii", secrets.randbelow(2**31), 1)) + _message(b"Z", b"I"))
            self._lend_on_demand(client)

    def _lend_on_demand(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        try:
            while True:
                kind, body = _receive(client)
                if kind == b"X":
                    return
                server = server or self._lend()
                if self._mode == "statement" and kind == b"Q" and body.lower().startswith(b"begin"):
                    client.sendall(_message(b"E", _NO_TRANSACTIONS) + _message(b"Z", b"I"))
                    continue
                server.sendall(_message(kind, body))
                while server and kind in (b"Q", b"S"):
                    answer, body = _receive(server)
                    if answer + body == b"ZI" and self._mode != "session":
                        self._idle.append(server)  # before the client knows that its transaction has ended
                        server = None
                    client.sendall(_message(answer, body))
                    if answer == b"Z":
                        break
        except OSError:
            return
        finally:
            if server is not None:
                server.close()

    def _lend(self) -> socket.socket:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        session = socket.socket(socket.AF_UNIX)
        session.connect(f"{self._upstream}/.s.PGSQL.5432")
        session.sendall(self._login)
        while _receive(session)[0] != b"Z":
            pass
        return session


def _startup(**parameters: str) -> bytes:
    body = struct.pack("!i", 196608) + b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
    return struct.pack("!i", len(body) + 5) + body + b"\0"


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _receive(source: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(source, 5)
    return head[:1], _exactly(source, struct.unpack("!i", head[1:])[0] - 4)


def _exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := source.recv(count - len(data))):
            raise ConnectionError("closed")
        data += more
    return data
