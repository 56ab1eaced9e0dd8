"""An S3 server that discards bodies, so that the time of an upload is that of the client.

    python benchmarks/discarding_s3.py [MIB]      prints its address; ends with its standard input

MIB: the rate of all uploads together, MiB/s, like a store behind a slow line.

It answers the requests of boto3 and the AWS CLI, keeps small objects and the sizes of large ones, and checks nothing.
"""

from __future__ import annotations

import re
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KEPT = 64 * 1024
_scratch = threading.local()


@dataclass
class Stored:
    size: int
    body: bytes | None
    headers: dict[str, str]


@dataclass
class Store:
    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, dict[int, int]] = field(default_factory=dict)


class Line:
    """A line of a rate in bytes per second, which all clients share."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0  # the time at which the line is free
        self._lock = threading.Lock()

    def carry(self, count: int) -> None:
        with self._lock:
            self._free = max(self._free, time.monotonic()) + count / self._rate
            pause = self._free - time.monotonic()
        time.sleep(max(0.0, pause))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = Store()
    line: Line | None = None
    query: dict[str, list[str]]
    key: str

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def parse_request(self) -> bool:
        good = super().parse_request()
        if good:
            url = urlsplit(self.path)
            self.key = unquote(url.path)
            self.query = parse_qs(url.query, keep_blank_values=True)
        return good

    def do_PUT(self) -> None:
        size, body = self._body()
        if "partNumber" in self.query:
            self.store.uploads[self.query["uploadId"][0]][int(self.query["partNumber"][0])] = size
        elif self.key.count("/") > 1:
            if self.headers.get("If-None-Match") == "*" and self.key in self.store.objects:
                return self._reply(412, _error("PreconditionFailed"))
            self._keep(size, body)
        return self._reply(200, headers=self._checksum())

    def do_POST(self) -> None:
        _, body = self._body()
        if "uploads" in self.query:
            upload = uuid.uuid4().hex
            self.store.uploads[upload] = {}
            answer = f"<UploadId>{upload}</UploadId>"
            return self._reply(200, f"<InitiateMultipartUploadResult>{answer}</InitiateMultipartUploadResult>")
        if "delete" in self.query:
            for key in re.findall(r"<Key>(.*?)</Key>", (body or b"").decode()):
                self.store.objects.pop(f"{self.key.rstrip('/')}/{key}", None)
            return self._reply(200, "<DeleteResult></DeleteResult>")
        self._keep(sum(self.store.uploads.pop(self.query["uploadId"][0]).values()), None)
        answer = '<ETag>"0-1"</ETag>'
        return self._reply(200, f"<CompleteMultipartUploadResult>{answer}</CompleteMultipartUploadResult>")

    def do_DELETE(self) -> None:
        if "uploadId" in self.query:
            self.store.uploads.pop(self.query["uploadId"][0], None)
        else:
            self.store.objects.pop(self.key, None)
        self._reply(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.key.count("/") == 1 or self.key.endswith("/"):
            return self._list()
        stored = self.store.objects.get(self.key)
        if stored is None or (self.command == "GET" and stored.body is None):
            return self._reply(404, _error("NoSuchKey"))
        return self._reply(200, stored.body or b"", headers=stored.headers, length=stored.size)

    def _list(self) -> None:
        if self.command == "HEAD":
            return self._reply(200)
        start = self.key.rstrip("/") + "/"
        prefix = start + self.query.get("prefix", [""])[0]
        contents = "".join(
            f"<Contents><Key>{escape(key[len(start) :])}</Key><Size>{stored.size}</Size>"
            '<ETag>"0"</ETag><LastModified>2026-11-22T00:00:00.000Z</LastModified></Contents>'
            for key, stored in sorted(self.store.objects.items())
            if key.startswith(prefix)
        )
        return self._reply(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")

    def _keep(self, size: int, body: bytes | None) -> None:
        metadata = {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}
        self.store.objects[self.key] = Stored(size, body, metadata)

    def _body(self) -> tuple[int, bytes | None]:
        """Read the body; return its size, and its bytes if it is small."""
        size = int(self.headers.get("Content-Length") or 0)
        if size <= KEPT:
            return size, self.rfile.read(size)
        buffer: memoryview | None = getattr(_scratch, "buffer", None)
        if buffer is None:
            buffer = _scratch.buffer = memoryview(bytearray(1 << 20))
        left = size
        while left and (got := self.rfile.readinto1(buffer[: min(left, len(buffer))])):
            left -= got
            if self.line:
                self.line.carry(got)
        return size, None

    def _checksum(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-checksum-")}

    def _reply(
        self,
        status: int,
        body: str | bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response_only(status)
        dated = {"Date": formatdate(usegmt=True), "Last-Modified": formatdate(usegmt=True), "ETag": '"0"'}
        for name, value in {**dated, **(headers or {})}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _error(code: str) -> str:
    return f"<Error><Code>{code}</Code></Error>"


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if len(sys.argv) > 1:
        Handler.line = Line(float(sys.argv[1]) * 1024**2)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
