"""A bucket: all requests to S3 go through it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import create_loader
from botocore.paginate import Paginator

from airflow_pgbackup.errors import Canceled, ConfigurationError, PgBackupError, RepositoryError
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.listing_limits import MOST_KEYS
from airflow_pgbackup.repository.s3.answers import (
    MALFORMED,
    EndlessListing,
    MalformedAnswer,
    check_answer,
    limit_answers,
)
from airflow_pgbackup.repository.s3.errors import (
    DAMAGED,
    FACTORY,
    MISSING,
    RENEWABLE,
    NotRenewed,
    code_of,
    line_of,
    status_of,
    translate,
)
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.wording import store

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# botocore retries network errors and throttling, but not an upload that the store refused for its checksum.
DAMAGED_RETRIES = 2
MOST_EMPTY_PAGES = 1000
"""Empty pages of a listing in a row. A store may send some while it skips many deleted versions."""

# For each listing: the fields with a page's items, and those with the tokens for the next page.
_LISTINGS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ListObjectsV2": (("Contents", "CommonPrefixes"), ("NextContinuationToken",)),
    "ListObjectVersions": (("Versions", "DeleteMarkers"), ("NextKeyMarker", "NextVersionIdMarker")),
    "ListParts": (("Parts",), ("NextPartNumberMarker",)),
    "ListMultipartUploads": (("Uploads",), ("NextKeyMarker", "NextUploadIdMarker")),
}


def quoted(etag: str) -> str:
    """Return an ETag as conditions and lists of parts take it: a proxy that compresses marks it as weak."""
    strong = etag.removeprefix("W/")
    return strong if strong.startswith('"') else f'"{strong}"'


class Bucket:
    """A bucket that adds the extra arguments to every request and renews expired credentials.

    Thread-safe, as boto3's clients are.

    :param of: another Bucket, whose client this one uses and renews.
    :param cancel: checked while listing and while reading objects; writes have a flag of their own.
    """

    def __init__(
        self, name: str, options: S3Options, *, of: Bucket | None = None, cancel: CancelFlag | None = None
    ) -> None:
        self.name = name
        self._of = of
        self._cancel = cancel
        self.options = options
        self.unconditional: set[str] = set()
        """The operations for which the store has reported that it does not implement ``If-None-Match``."""
        self._lock = threading.Lock()
        self._current: S3Client | None = None
        self._closing: weakref.finalize[..., object] | None = None
        self._members: dict[str, frozenset[str]] = {}

    @property
    def client(self) -> S3Client:
        if self._of is not None:
            return self._of.client
        with self._lock:
            if self._current is None:
                self._current = self._connect()
            return self._current

    def _connect(self) -> S3Client:
        try:
            return self._new_client()
        except (PgBackupError, BotoCoreError, ClientError):
            raise
        except Exception as error:  # of a secrets backend, or of Airflow's API
            raise RepositoryError(
                f"cannot get credentials for bucket {self.name}: {type(error).__name__}: {line_of(error)}",
                hint=FACTORY,
                retry="once",
            ) from error

    def _new_client(self) -> S3Client:
        client = self.options.client_factory()
        if "@" in urlsplit(client.meta.endpoint_url).netloc:  # botocore's errors quote the URL, in tracebacks too
            raise ConfigurationError(
                f"{store('endpoint_url')} holds credentials", hint=f"Remove them, and set {store('credentials')}."
            )
        limit_answers(client)
        if self._closing is not None:
            self._closing.detach()  # other threads may still use the client with the expired credentials
        # A client is in reference cycles: without this, its connections stay open until the garbage collector runs.
        self._closing = weakref.finalize(self, client.close)
        self._closing.atexit = False
        return client

    @property
    def endpoint(self) -> str:
        return self.client.meta.endpoint_url

    @cached_property
    def algorithm(self) -> str | None:
        """The checksum algorithm of uploads; None if the client sends checksums only when S3 requires them."""
        extra = self.options.extra_args
        if chosen := extra.get("ChecksumAlgorithm"):
            return str(chosen).upper()
        # S3 refuses a locked object without a checksum; botocore's model does not mark it as required.
        locked = self.options.lock is not None or any(name.startswith("ObjectLock") for name in extra)
        wanted = getattr(self.client.meta.config, "request_checksum_calculation", None) != "when_required"
        return "CRC32" if wanted or locked else None

    def call(self, operation: str, /, **params: Any) -> dict[str, Any]:
        """Send one request and return its checked answer.

        :param operation: S3's name, like ``PutObject``.
        :param params: the parameters of the request; the bucket and the extra arguments are added.
        :raises NotRenewed: the credentials were refused, and the client factory failed.
        :raises ClientError, BotoCoreError: botocore's own errors; callers translate them with :meth:`errors`.
        """
        params = {"Bucket": self.name, **self.extra_args(operation), **params}
        renewed, damaged = False, 0
        while True:
            client = self.client
            try:
                response: dict[str, Any] = getattr(client, xform_name(operation))(**params)
                return check_answer(operation, response)
            except ClientError as error:
                if code_of(error) in RENEWABLE and not renewed:
                    renewed = True
                    self._renew(client, error)
                elif code_of(error) in DAMAGED and damaged < DAMAGED_RETRIES:
                    damaged += 1
                else:
                    raise
            except MALFORMED as error:
                raise MalformedAnswer(detail=f"{type(error).__name__}, {error}") from error

    def check(self) -> None:
        """Check the cancel flag.

        :raises Canceled: the caller was asked to stop.
        """
        if self._cancel is not None:
            self._cancel.check()

    def pages(self, operation: str, /, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing.

        :raises EndlessListing: more than :data:`MOST_KEYS` items, too many empty pages, or a repeated token.
        :raises MalformedAnswer: an item outside of the requested prefix, or a truncated page without a token.
        """
        names, tokens = _LISTINGS[operation]
        start = params.get("Prefix", "")
        seen: set[int] = set()  # hashes of the tokens, which may be long
        count = empty = 0
        self.check()
        for page in self._paginator(operation).paginate(**params):
            items = [item for name in names for item in page.get(name, ())]
            for item in items:
                # prune deletes the listed keys, and a key outside of the prefix belongs to something else.
                key = item.get("Key", item.get("Prefix", start))
                if not key.startswith(start):
                    raise MalformedAnswer(detail=f"a listing of {start[:200]!r} holds {key[:200]!r}")
            yield page
            if not page.get("IsTruncated"):
                return
            count, empty = count + len(items), 0 if items else empty + 1
            if count > MOST_KEYS:
                raise EndlessListing(detail=f"it holds more than {MOST_KEYS:,} keys")
            if empty > MOST_EMPTY_PAGES:
                raise EndlessListing(detail=f"the store sent more than {MOST_EMPTY_PAGES:,} empty pages in a row")
            for name in tokens:
                if not page.get(name):  # the paginator would end here without an error
                    raise MalformedAnswer(detail=f"a listing is truncated, but lacks {name}")
            token = hash(tuple(page[name] for name in tokens))
            if token in seen:  # the paginator notices only a repeat of the last one
                raise EndlessListing(detail="the store sent the same continuation token twice")
            seen.add(token)
            self.check()

    def knows(self, operation: str, member: str) -> bool:
        """Return whether the installed botocore knows this member of a request."""
        return member in self._members_of(operation)

    def extra_args(self, operation: str) -> dict[str, Any]:
        """Return the extra arguments that a request accepts, by botocore's model of it."""
        members = self._members_of(operation)
        return {name: value for name, value in self.options.extra_args.items() if name in members}

    def head(self, key: str, *, checksum: bool = False) -> dict[str, Any] | None:
        """Return the response to a HEAD of a key, or None if the key does not exist.

        :param checksum: also ask for the checksum. With SSE-KMS that needs the right to decrypt; a role that may only
            write gets the response without the checksum.
        """
        if checksum:
            try:
                return self.call("HeadObject", Key=key, ChecksumMode="ENABLED")
            except ClientError as error:
                if status_of(error) not in (400, 403, 501):
                    self.require_absent(key, error)
                    return None
        return self.find("HeadObject", key)

    def find(self, operation: str, key: str, **params: Any) -> dict[str, Any] | None:
        """Return the answer to a HEAD or GET of a key, or None if the key does not exist.

        :raises ClientError, BotoCoreError: as :meth:`call`.
        """
        client = self.client
        try:
            return self.call(operation, Key=key, **params)
        except ClientError as error:
            try:
                self.require_absent(key, error)
            except ClientError as reason:
                # The answer to a HEAD does not say that the credentials have expired. The listing that asked for the
                # reason has renewed them, if it succeeded.
                if reason is not error or self.client is client:
                    raise
            else:
                return None
        try:
            return self.call(operation, Key=key, **params)
        except ClientError as error:
            self.require_absent(key, error)
            return None

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Translate botocore's errors into errors of this package.

        :param what: the beginning of the message, like ``cannot list s3://bucket/prefix``.
        """
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise translate(error, what, bucket=self.name, endpoint=self.endpoint) from error

    def require_absent(self, key: str, error: ClientError) -> None:
        """Return if this error of a HEAD or GET means that the key does not exist; otherwise raise it.

        S3 answers 403 for a missing key to a role without ``s3:ListBucket``, and so to one whose policy grants it under
        a condition on ``s3:prefix``, which a HEAD and a GET do not have. A listing has one.
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
        """
        if code_of(error) in MISSING:
            return
        if status_of(error) in (301, 400, 403):
            # The answer to a HEAD has no body and so no reason. A listing fails for the same reason and reports it.
            found = self.call("ListObjectsV2", Prefix=key, MaxKeys=1)  # sorted, so the key itself comes first
            if status_of(error) == 403 and all(item["Key"] != key for item in found.get("Contents", ())):
                return
        raise error

    def _paginator(self, operation: str) -> Paginator[Any]:
        """Return boto3's paginator of a listing, with :meth:`call` for its requests."""
        model = self.client.meta.service_model.operation_model(operation)
        request = cast("Any", partial(self.call, operation))  # botocore-stubs say that it is a string
        return Paginator(request, _pagination()[operation], model)

    def _members_of(self, operation: str) -> frozenset[str]:
        if operation not in self._members:
            shape = self.client.meta.service_model.operation_model(operation).input_shape
            self._members[operation] = frozenset(shape.members if shape is not None else ())
        return self._members[operation]

    def _renew(self, client: S3Client, refusal: ClientError) -> None:
        """Replace the client, unless another thread has. If that fails the old one stays, for its endpoint."""
        if self._of is not None:
            self._of._renew(client, refusal)
            return
        with self._lock:
            if self._current is client:
                try:
                    self._current = self._new_client()
                except Canceled:
                    raise
                except Exception as error:  # of a secrets backend, or of Airflow's API
                    raise NotRenewed(refusal, error) from error


@cache
def _pagination() -> Mapping[str, Any]:
    """Return botocore's own description of how S3's listings are paginated, by operation."""
    model: Mapping[str, Mapping[str, Any]] = create_loader().load_service_model("s3", "paginators-1")
    return model["pagination"]
