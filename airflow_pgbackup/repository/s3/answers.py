"""Limit and check the responses of a store: their size, and the form that S3 documents.

botocore itself reads an answer of any size into memory, hands any document type declaration to the XML parser, and
raises a bare ``ValueError`` or ``KeyError`` when a value does not have the form that its model of S3 gives.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ReadTimeoutError
from botocore.parsers import ResponseParserError, ResponseParserFactory
from botocore.utils import parse_timestamp
from urllib3.exceptions import HTTPError
from urllib3.exceptions import ReadTimeoutError as URLLib3ReadTimeoutError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MOST_BYTES = 8 * 1024**2
"""The limit for a response other than an object: a page of 1,000 percent-encoded keys of 1,024 bytes takes 3.5 MB."""
MOST_TAGS = 100_000
"""The limit for the tags of an XML response: a page of 1,000 keys has about 20,000."""
MOST_SECONDS = 900.0
"""The deadline for a response. S3 may take minutes to complete an upload, and sends white space until then."""

MALFORMED = (ResponseParserError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""The errors that botocore raises when a response does not have the expected form."""

_CHUNK = 1 << 16
_OBJECTS = b"<ListBucketResult"  # botocore ignores the root element, and would find no uploads

_EXPECTED: Mapping[str, tuple[str, ...]] = {
    "HeadObject": ("ContentLength", "ETag", "LastModified"),
    "GetObject": ("Body", "ContentLength", "ETag"),
    "CreateMultipartUpload": ("UploadId",),
    "UploadPart": ("ETag",),
    "UploadPartCopy": ("CopyPartResult",),
    # S3 always sends it. botocore takes an empty answer or any other XML for a listing without items.
    "ListObjectsV2": ("IsTruncated",),
    "ListObjectVersions": ("IsTruncated",),
    "ListMultipartUploads": ("IsTruncated",),
    "ListParts": ("IsTruncated",),
}
_EXPECTED_ITEMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ListObjectsV2": {"Contents": ("Key", "Size", "ETag", "LastModified"), "CommonPrefixes": ("Prefix",)},
    "ListObjectVersions": {
        "Versions": ("Key", "VersionId", "IsLatest", "Size", "ETag", "LastModified"),
        "DeleteMarkers": ("Key", "VersionId", "IsLatest", "LastModified"),
    },
    "ListMultipartUploads": {"Uploads": ("Key", "UploadId", "Initiated")},
    "ListParts": {"Parts": ("LastModified",)},
}


class MalformedAnswer(BotoCoreError):
    fmt = "unexpected answer from the store: {detail}"


class NotUploads(BotoCoreError):
    """The store has ignored ``?uploads``, and has listed objects."""

    fmt = "it lists objects instead"


class EndlessListing(BotoCoreError):
    fmt = "{detail}"


def limit_answers(client: S3Client) -> None:
    """Make a client read at most :data:`MOST_BYTES` of a response, and refuse XML that declares entities.

    This does not limit the contents of objects, which are streams.
    """
    endpoint = cast("Any", client)._endpoint  # botocore has no event between headers and body
    endpoint._response_parser_factory = _parsers()
    client.meta.events.register("response-received.s3.HeadBucket", _end_redirects, unique_id="pgbackup-redirect")
    if not isinstance(endpoint.http_session, _LimitedSession):
        endpoint.http_session = _LimitedSession(endpoint.http_session)


def _end_redirects(response_dict: dict[str, Any] | None, **_: object) -> None:
    """Refuse a redirected HeadBucket without a region: botocore would send another one for the region, endlessly."""
    if response_dict is None or not 300 <= response_dict["status_code"] < 400:
        return
    if "x-amz-bucket-region" not in response_dict["headers"]:
        raise MalformedAnswer(detail=f"a redirect (status {response_dict['status_code']}) that names no region")


def check_answer(operation: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return a response after checking that it has every value that is used.

    :raises MalformedAnswer: a value is missing or out of range.
    """
    try:
        _check(_EXPECTED.get(operation, ()), answer)
        for name, expected in _EXPECTED_ITEMS.get(operation, {}).items():
            for item in answer.get(name, ()):
                _check(expected, item)
    except MalformedAnswer:
        if "Body" in answer:
            answer["Body"].close()
        raise
    return answer


def _check(expected: tuple[str, ...], values: Mapping[str, Any]) -> None:
    for name in expected:
        value = values.get(name)
        if value is None:
            raise MalformedAnswer(detail=f"it lacks {name}")
        if isinstance(value, int) and value < 0:
            raise MalformedAnswer(detail=f"{name} is {value}")
        if isinstance(value, datetime):
            try:
                value.astimezone(timezone.utc)
            except (ValueError, OverflowError):
                raise MalformedAnswer(detail=f"{name} is {value}") from None


def _parsers() -> ResponseParserFactory:
    """Return botocore's parsers with a quicker one for time stamps, which take three quarters of parsing a listing."""
    factory = ResponseParserFactory()
    factory.set_parser_defaults(timestamp_parser=_timestamp)
    return factory


def _timestamp(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except (ValueError, AttributeError):  # the form of an HTTP header, or a number
        return parse_timestamp(value)
    return moment if moment.tzinfo else parse_timestamp(value)


class _LimitedSession:
    """Wrap botocore's ``URLLib3Session``: read all answers but objects here, within the limits."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        is_object, request.stream_output = request.stream_output, True  # else the session reads the body
        response: AWSResponse = self._session.send(request)
        length = response.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdecimal() and len(length) < 20):
            response.raw.close()
            raise MalformedAnswer(detail=f"Content-Length is {length[:100]}")
        # botocore reads the body of an error into memory even for GetObject.
        if request.method != "HEAD" and not (is_object and response.status_code < 300):
            data = _read(response.raw, request.url)
            if "uploads" in parse_qs(urlsplit(request.url).query, keep_blank_values=True) and _OBJECTS in data:
                raise NotUploads
            response.raw = _Body(data)
        return response

    def close(self) -> None:
        self._session.close()


class _Body:
    """A body that has been read and checked, with the method by which botocore reads it."""

    def __init__(self, data: bytes) -> None:
        if b"<!DOCTYPE" in data or b"\0" in data:  # NUL: UTF-16, which would hide the first
            raise MalformedAnswer(detail="it declares a document type")
        if data.count(b"<") > MOST_TAGS:
            raise MalformedAnswer(detail=f"it has more than {MOST_TAGS:,} tags")
        self._data = data

    def stream(self) -> Iterator[bytes]:
        yield self._data


def _read(raw: Any, url: str) -> bytes:
    read = getattr(raw, "read1", raw.read)  # read() would wait for the full size
    end, left, chunks = time.monotonic() + MOST_SECONDS, MOST_BYTES, []
    try:
        while data := read(_CHUNK):
            chunks.append(data)
            left -= len(data)
            if left < 0 or time.monotonic() > end:
                break
    # The same translation as in URLLib3Session: botocore retries these errors by their classes.
    except URLLib3ReadTimeoutError as error:
        raise ReadTimeoutError(endpoint_url=url, error=error) from error
    except (HTTPError, OSError) as error:
        raise ConnectionClosedError(endpoint_url=url, error=error) from error
    if data:
        raw.close()  # so that the rest is not read as the next answer
        raise MalformedAnswer(
            detail=f"it is longer than {MOST_BYTES:,} bytes"
            if left < 0
            else f"it did not arrive within {MOST_SECONDS:g} s"
        )
    raw.release_conn()
    return b"".join(chunks)
