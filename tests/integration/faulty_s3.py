"""An HTTP proxy before the real S3 server, which injects the faults of networks and stores on demand."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local_http import Handler, LocalServer


@dataclass
class Call:
    """One request that reached the proxy. ``operation`` is S3's name for it."""

    operation: str
    key: str
    headers: dict[str, str]
    size: int
    query: str = ""


@dataclass
class Fault:
    """A fault for `times` requests of an operation, after the first `skip` of them."""

    operation: str
    kind: str
    skip: int = 0
    times: int = 1
    status: int = 503
    code: str = "SlowDown"
    extra: str = ""
    body: str = ""
    message: str = "injected"
    seconds: float = 0.0
    when: Callable[[Call], bool] = lambda call: True
    hits: int = field(default=0, init=False)


class FaultyS3(LocalServer):
    """``url`` is the endpoint for the client. The proxy keeps the Host header, so that signatures stay valid.

    Kinds of faults: ``answer`` (an error, and the server does not get the request), ``reset`` (the connection breaks
    before the server gets the request), ``lose`` (the server executes it, the reply is lost), ``lie`` (200 with an
    error in the body, and the server does not get the request), ``lie-after`` (the same after the server executed it),
    ``stall``, ``corrupt`` (a bit of the body is flipped), ``cut`` (the answer's body ends early), ``shrink`` (the
    answer gives a length of 1), ``halve`` (half of the body, with its own length), ``whole`` (the answer to a range has
    all of the object), ``weaken`` (the ETag is a weak one), ``twice`` (the server executes it twice, and the second
    reply is sent), ``repeat`` (the reply is sent twice: the client may take the second one for that to its next
    request).
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(type("ProxyHandler", (_Handler,), {"proxy": self}))
        self.target = urlsplit(endpoint).netloc
        self.faults: list[Fault] = []
        self.calls: list[Call] = []
        self.lock = threading.Lock()
        self.active = 0

    def fault(self, operation: str, kind: str, **how: Any) -> Fault:
        fault = Fault(operation, kind, **how)
        self.faults.append(fault)
        return fault

    def count(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.calls)

    def settle(self) -> None:
        """Let no fault wait any longer, and return when no request is on its way to the server."""
        self.closed.set()
        while self.active:
            time.sleep(0.01)

    def due(self, call: Call) -> Fault | None:
        with self.lock:
            self.calls.append(call)
            for fault in self.faults:
                if fault.operation in (call.operation, "*") and fault.when(call):
                    if fault.skip:
                        fault.skip -= 1
                    elif fault.hits < fault.times:
                        fault.hits += 1
                        return fault
        return None


def _operation(method: str, path: str, query: dict[str, list[str]], headers: dict[str, str]) -> str:
    in_bucket = path.count("/") == 1
    if method == "POST":
        names = {"uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload", "delete": "DeleteObjects"}
        return next(name for part, name in names.items() if part in query)
    if method == "GET" and in_bucket:
        return "ListMultipartUploads" if "uploads" in query else "ListObjectsV2"
    if method == "GET":
        return "ListParts" if "uploadId" in query else "GetObject"
    if method == "PUT" and "partNumber" in query:
        return "UploadPartCopy" if "x-amz-copy-source" in headers else "UploadPart"
    if method == "PUT":
        return "CopyObject" if "x-amz-copy-source" in headers else "PutObject"
    if method == "DELETE":
        return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
    return "HeadObject"


class _Handler(Handler):
    proxy: FaultyS3

    def answer(self) -> None:
        with self.proxy.lock:
            self.proxy.active += 1
        try:
            self._answer()
        finally:
            with self.proxy.lock:
                self.proxy.active -= 1

    def _answer(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        operation = _operation(self.command, url.path, parse_qs(url.query, keep_blank_values=True), headers)
        call = Call(operation, url.path, headers, len(body), url.query)
        fault = self.proxy.due(call)
        kind = fault.kind if fault else ""
        if fault is not None:
            # A stalled request arrives late, but not during the next test.
            if self.proxy.closed.wait(fault.seconds):
                return self._reset()
            if kind == "answer":
                return self._reply(fault.status, {}, _error(fault))
            if kind == "reset":
                return self._reset()
            if kind == "lie":
                return self._reply(200, {}, _error(fault))
            if kind == "corrupt":
                middle = len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if kind == "twice":
            self._ask(body)
        status, answer_headers, answer = self._ask(body)
        if kind == "shrink":
            answer_headers["Content-Length"] = "1"
        if kind == "halve":
            answer = answer[: len(answer) // 2]
        if kind == "whole":
            begin = int(headers["range"].removeprefix("bytes=").partition("-")[0])
            status, answer = 200, bytes(begin) + answer
            answer_headers.pop("Content-Range")
        if kind == "weaken":
            answer_headers["ETag"] = f"W/{answer_headers['ETag']}"
        if kind == "lose":
            return self._reset()
        if fault is not None and kind == "lie-after":
            return self._reply(200, {}, _error(fault))
        if kind == "cut":
            self._reply(status, answer_headers, answer, send=len(answer) // 2)
            return self._reset()
        if kind == "repeat":
            self._reply(status, answer_headers, answer)
        return self._reply(status, answer_headers, answer)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.proxy.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _reply(self, status: int, headers: dict[str, str], body: bytes, send: int | None = None) -> None:
        self.send_response_only(status)
        # In the answer to a HEAD, Content-Length is the object's size.
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        skipped = ("content-length", "transfer-encoding", "connection")
        for name, value in headers.items():
            if name.lower() not in skipped:
                self.send_header(name, value)
        self.send_header("Content-Length", length if status != 204 else "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:send])
        self.wfile.flush()

    def _reset(self) -> None:
        # With linger 0, close() sends RST: the other side sees a broken connection, not its end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            pass


def _error(fault: Fault) -> bytes:
    if fault.body:
        return fault.body.encode()
    text = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message>{fault.extra}</Error>"
    return b'<?xml version="1.0" encoding="UTF-8"?>' + text.encode()
