"""A mail server and a webhook on this machine, which keep what real notifiers send them."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any, cast

from local_http import Handler, LocalServer


class _Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as smtplib needs to send mail without TLS and login."""

    def handle(self) -> None:
        self._say("220 sink")
        while line := self.rfile.readline():
            command = line.split()[0].upper() if line.split() else b""
            if command == b"DATA":
                self._say("354 go on")
                lines = []
                while (data := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(data.removeprefix(b"."))
                parsed = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                cast("Any", self.server).mails.append(parsed)
            self._say("221 bye" if command == b"QUIT" else "250 ok")
            if command == b"QUIT":
                return

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class _SmtpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.mails: list[EmailMessage] = []


@contextmanager
def mail_sink() -> Iterator[Any]:
    """Give a mail server: ``port``, and ``mails``, which it has received."""
    with _SmtpServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        sink: Any = server
        sink.port = server.server_address[1]
        try:
            yield sink
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def chat_sink() -> Iterator[Any]:
    """Give a webhook: ``url``, and ``messages``, the JSON that was posted to it."""
    messages: list[dict[str, Any]] = []

    class Webhook(Handler):
        def answer(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    with LocalServer(Webhook).running() as server:
        sink: Any = server
        sink.messages = messages
        yield sink
