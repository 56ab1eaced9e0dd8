"""An HTTP server on this machine for a test, with a handler of its own: what a hostile and a faulty S3 server share."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

S = TypeVar("S", bound="LocalServer")


class Handler(BaseHTTPRequestHandler, ABC):
    """Every method is one :meth:`answer`; logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @abstractmethod
    def answer(self) -> None:
        """Answer one request of any method."""

    def do_GET(self) -> None:
        self.answer()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # for as many clients as connect before a busy machine accepts them

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients and handlers break connections on purpose."""


class LocalServer:
    """Serves while :meth:`running`.

    :ivar url: its address. :ivar closed: set when it ends, for handlers that wait.
    """

    def __init__(self, handler: type[Handler]) -> None:
        self.closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self: S) -> Iterator[S]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.closed.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()
