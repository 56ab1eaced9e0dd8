"""A hostile S3 server: its repository.json is valid, and a test scripts all other answers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local_http import Handler, LocalServer

UUID = str(uuid.UUID(int=7))
REPOSITORY = b'{"format_version": "1.0", "uuid": "%s", "created_at": "2026-11-22T02:00:00Z"}' % UUID.encode()
DATED = {"Date": "Sun, 22 Nov 2026 03:00:00 GMT"}
OBJECT = {**DATED, "Last-Modified": "Sun, 22 Nov 2026 02:00:00 GMT", "ETag": '"0"'}


@dataclass
class Request:
    """:ivar operation: ``list``, ``uploads``, ``parts``, ``get``, ``head`` or the method."""

    method: str
    operation: str
    key: str
    query: dict[str, list[str]]


@dataclass
class Answer:
    """:param body: bytes, or pieces, possibly endless. :param length: a false Content-Length."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(OBJECT))
    length: str | None = None


Script = Callable[[Request], Answer | None]


class HostileS3(LocalServer):
    """A server whose `script` may be set at any time; a request that it does not answer gets NoSuchKey.

    :ivar requests: all requests so far.
    """

    def __init__(self) -> None:
        super().__init__(type("StoreHandler", (_Handler,), {"store": self}))
        self.script: Script = lambda request: None
        self.requests: list[Request] = []

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which boto3's own chain finds this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "hostile",
            "AWS_SECRET_ACCESS_KEY": "hostile",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "2",
        }


def listing(contents: str = "", *, truncated: bool = False, token: str | None = None) -> Answer:
    """Return a page of ListObjectsV2."""
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token is not None else ""
    return Answer(
        f"<ListBucketResult><IsTruncated>{str(truncated).lower()}</IsTruncated>{more}{contents}</ListBucketResult>".encode(),
        headers=dict(DATED),
    )


def item(key: str, **other: str) -> str:
    """Return an object in a listing. `other` replaces values; None omits one."""
    fields: dict[str, Any] = {
        "Key": key,
        "Size": "1",
        "ETag": '"0"',
        "LastModified": "2026-11-22T02:00:00.000Z",
        **other,
    }
    return "<Contents>" + "".join(f"<{n}>{v}</{n}>" for n, v in fields.items() if v is not None) + "</Contents>"


class _Handler(Handler):
    store: HostileS3

    def answer(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self._operation(query), url.path.partition("/pg/")[2], query)
        self.store.requests.append(request)
        answer = self.store.script(request)
        if answer is None and request.key == "repository.json":
            answer = Answer(REPOSITORY)
        try:
            self._reply(answer or Answer(b"<Error><Code>NoSuchKey</Code></Error>", 404))
        except OSError:
            self.close_connection = True

    def _operation(self, query: dict[str, list[str]]) -> str:
        if self.command != "GET":
            return self.command.lower()
        for name, operation in (("list-type", "list"), ("uploads", "uploads"), ("uploadId", "parts")):
            if name in query:
                return operation
        return "get"

    def _reply(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if isinstance(answer.body, bytes):
            self.send_header("Content-Length", answer.length or str(len(answer.body)))
            self.close_connection = answer.length is not None
            pieces: Iterable[bytes] = [answer.body]
        else:
            self.send_header("Connection", "close")  # the end of the body is the end of the connection
            pieces = answer.body
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pieces:
            if self.store.closed.is_set():
                return
            self.wfile.write(piece)
            self.wfile.flush()
