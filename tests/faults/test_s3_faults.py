"""Faults between us and a real S3 server: each upload recovers or fails, and a visible object is always complete."""

from __future__ import annotations

import gc
import hashlib
import io
import logging
import random
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3.session
import pytest
from botocore.config import Config
from botocore.httpsession import URLLib3Session
from faulty_s3 import Call, Fault, FaultyS3
from honest import write_backup
from put_only import deny_versions

from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    Canceled,
    ConfigurationError,
    OutcomeUnknown,
    RepositoryError,
    RepositoryNotFound,
)
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3 import copying, parts
from airflow_pgbackup.repository.s3.commit import TOKEN
from airflow_pgbackup.repository.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MIB = 1024**2
KEY = "server/db/20261122T020000Z-3f9ac1/a.dump"
FOLDER = "server/db/20261122T020000Z-3f9ac1/a.dir"
SMALL = random.Random(1).randbytes(100_000)
LARGE = random.Random(2).randbytes(21 * MIB + 5)
STALL = "x-test-stall"
ALL = [pytest.param(SMALL, id="put"), pytest.param(LARGE, id="multipart")]


class Store:
    """The store through the faulty proxy, and without it (``direct``)."""

    def __init__(self, server: S3Server, direct: S3Client, bucket: str, proxy: FaultyS3) -> None:
        self.server = server
        self.direct = direct
        self.bucket = bucket
        self.proxy = proxy
        self._stalls: list[tuple[Fault, Iterator[int]]] = []

    def fault(self, operation: str, **how: Any) -> Fault:
        if how["kind"] == "stall":
            return self.stall(operation, **{name: value for name, value in how.items() if name != "kind"})
        return self.proxy.fault(operation, **how)

    def client(self, access_key: str | None = None, **config: Any) -> S3Client:
        session = boto3.session.Session(
            aws_access_key_id=access_key or self.server.access_key,
            aws_secret_access_key=self.server.secret_key,
            region_name="us-east-1",
        )
        settings: dict[str, Any] = {"retries": {"mode": "standard", "max_attempts": 3}}
        settings |= {"s3": {"addressing_style": "path"}, **config}
        client = session.client("s3", endpoint_url=self.proxy.url, config=Config(**settings))
        client.meta.events.register("before-send.s3", self._send)
        return client

    def stall(self, operation: str, *, times: int = 1, seconds: float) -> Fault:
        """Have requests arrive late, for which the client does not wait; it waits long for all others.

        :param seconds: how late.
        """
        fault = Fault(operation, "stall", times=times, seconds=seconds, when=lambda call: STALL in call.headers)
        self._stalls.append((fault, iter(range(times))))
        self.proxy.faults.append(fault)
        return fault

    def _send(self, request: Any, event_name: str, **_: object) -> Any:
        for fault, left in self._stalls:
            with self.proxy.lock:
                due = event_name.endswith(f".{fault.operation}") and next(left, None) is not None
            if due:
                request.headers[STALL] = "yes"
                with closing(URLLib3Session(timeout=(60, 0.5))) as session:
                    return session.send(request)
        return None

    def open(self, factory: Callable[[], S3Client] | None = None, **options: Any) -> Repository:
        client = self.client()
        options.setdefault("extra_args", {})
        return open_repository(
            f"s3://{self.bucket}/pg", s3=S3Options(client_factory=factory or (lambda: client), **options)
        )

    def visible(self, key: str = KEY) -> bytes | None:
        keys = [o["Key"] for o in self.direct.list_objects_v2(Bucket=self.bucket).get("Contents", [])]
        if f"pg/{key}" not in keys:
            return None
        return self.direct.get_object(Bucket=self.bucket, Key=f"pg/{key}")["Body"].read()

    def uploads(self) -> list[str]:
        return [u["Key"] for u in self.direct.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]


@pytest.fixture(scope="module")
def direct(s3: S3Server) -> S3Client:
    return s3.client()


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def store(s3: S3Server, direct: S3Client, bucket: str) -> Iterator[Store]:
    with FaultyS3(s3.endpoint_url).running() as proxy:
        store = Store(s3, direct, bucket, proxy)
        yield store
    for upload in direct.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        direct.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    keys = [o["Key"] for o in direct.list_objects_v2(Bucket=bucket).get("Contents", [])]
    if keys:
        direct.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})


@pytest.fixture
def repository(store: Store) -> Repository:
    repository = store.open()
    repository.init()
    return repository


COMMITS = {len(SMALL): "PutObject", len(LARGE): "CompleteMultipartUpload"}


def commit_of(data: bytes) -> str:
    return COMMITS[len(data)]


# -- faults to recover from --------------------------------------------------------------------------------------

RECOVERABLE = [
    ("*", {"kind": "answer", "times": 2}),
    ("*", {"kind": "reset", "times": 2}),
    ("UploadPart", {"kind": "answer", "status": 500, "code": "InternalError", "skip": 1}),
    ("UploadPart", {"kind": "reset", "skip": 1, "times": 2}),
    ("UploadPart", {"kind": "lose"}),
    ("UploadPart", {"kind": "stall", "seconds": 3}),
    ("UploadPart", {"kind": "corrupt"}),
    ("CreateMultipartUpload", {"kind": "reset"}),
    ("CompleteMultipartUpload", {"kind": "answer"}),
    ("CompleteMultipartUpload", {"kind": "reset"}),
    ("CompleteMultipartUpload", {"kind": "lie", "code": "InternalError"}),
    ("CompleteMultipartUpload", {"kind": "lie-after", "code": "InternalError", "times": 3}),
    ("CompleteMultipartUpload", {"kind": "lose"}),
    ("CompleteMultipartUpload", {"kind": "lose", "times": 3}),
    ("CompleteMultipartUpload", {"kind": "stall", "seconds": 3}),
    ("HeadObject", {"kind": "reset", "times": 2}),
]


@pytest.mark.every_value
@pytest.mark.parametrize(("operation", "how"), RECOVERABLE, ids=lambda value: str(value).replace(" ", ""))
def test_an_upload_survives(store: Store, repository: Repository, operation: str, how: dict[str, Any]) -> None:
    fault = store.fault(operation, **how)
    entry = repository.write(KEY, io.BytesIO(LARGE))
    assert fault.hits == fault.times
    assert entry.size == len(LARGE)
    assert store.visible() == LARGE
    assert store.uploads() == []


@pytest.mark.parametrize(
    "how",
    [
        {"kind": "answer", "times": 2},
        {"kind": "reset", "times": 2},
        {"kind": "stall", "seconds": 3},
        {"kind": "lose"},
        {"kind": "lose", "times": 3},
    ],
    ids=str,
)
def test_a_small_write_survives(store: Store, repository: Repository, how: dict[str, Any]) -> None:
    fault = store.fault("PutObject", **how)
    assert repository.write_bytes(KEY, SMALL).size == len(SMALL)
    assert fault.hits == fault.times
    assert store.visible() == SMALL


# -- faults that last --------------------------------------------------------------------------------------------

ALWAYS = 1_000_000
LASTING = [
    ("UploadPart", {"kind": "answer"}, "slow down"),
    ("UploadPart", {"kind": "answer", "skip": 2}, "slow down"),
    ("UploadPart", {"kind": "reset"}, "does not answer"),
    ("UploadPart", {"kind": "corrupt"}, "damaged during the transfer"),
    ("UploadPart", {"kind": "stall", "seconds": 3600}, "does not answer"),
    ("UploadPart", {"kind": "answer", "status": 403, "code": "AccessDenied"}, "access denied"),
    ("UploadPart", {"kind": "answer", "status": 507, "code": "InsufficientStorage"}, "full"),
    ("CreateMultipartUpload", {"kind": "answer", "status": 403, "code": "AccessDenied"}, "access denied"),
    ("CompleteMultipartUpload", {"kind": "answer"}, "slow down"),
    ("CompleteMultipartUpload", {"kind": "reset"}, "does not answer"),
    ("CompleteMultipartUpload", {"kind": "lie", "code": "InternalError"}, "internal error"),
    ("CompleteMultipartUpload", {"kind": "answer", "status": 400, "code": "InvalidPart"}, "part of the upload"),
]


@pytest.mark.every_value
@pytest.mark.parametrize(("operation", "how", "says"), LASTING, ids=lambda value: str(value).replace(" ", ""))
def test_an_upload_fails_and_nothing_is_left(
    store: Store, repository: Repository, operation: str, how: dict[str, Any], says: str
) -> None:
    store.fault(operation, times=ALWAYS, **how)
    with pytest.raises(RepositoryError, match=says) as caught:
        repository.write(KEY, io.BytesIO(LARGE))
    assert "\n" not in str(caught.value)
    assert f"cannot write s3://{store.bucket}/pg/{KEY}" in caught.value.message
    assert caught.value.hint
    assert store.visible() is None
    assert store.uploads() == []


def without_retries(store: Store) -> Repository:
    """A repository whose client sends each request once."""
    client = store.client(retries={"max_attempts": 0})
    repository = store.open(lambda: client)
    repository.init()
    return repository


@pytest.mark.parametrize("kind", ["answer", "reset"])
def test_an_upload_survives_an_outage_longer_than_botos_retries(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    repository = without_retries(store)
    monkeypatch.setattr(parts, "PATIENCE", 60.0)
    monkeypatch.setattr(parts, "PAUSE", 0.1)
    fault = store.proxy.fault("UploadPart", kind, times=6, skip=1)
    with caplog.at_level(logging.WARNING):
        repository.write(KEY, io.BytesIO(LARGE))
    assert fault.hits == 6
    assert store.visible() == LARGE
    assert f"of s3://{store.bucket}/pg/{KEY} failed" in caplog.text


class Stopped:
    """A cancel flag that is set once the store has refused some requests."""

    def __init__(self, proxy: FaultyS3) -> None:
        self.proxy = proxy

    def check(self) -> None:
        if self.proxy.count("UploadPart") + self.proxy.count("UploadPartCopy") > 2:
            raise Canceled("asked to stop")


@pytest.mark.parametrize("how", ["write", "copy", "interrupt"])
def test_an_upload_ends_during_an_outage_when_it_is_stopped(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    class Dies(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            while self.tell() and not store.proxy.count("UploadPart"):
                time.sleep(0.01)
            if self.tell():
                raise RuntimeError("pg_dump failed (exit 1)")
            return super().read(size)

    monkeypatch.setattr(copying, "COPY_PART", 5 * MIB)
    repository = without_retries(store)
    repository.write(f"{KEY}.source", io.BytesIO(LARGE))
    store.proxy.calls.clear()
    monkeypatch.setattr(parts, "PATIENCE", 3600.0)
    monkeypatch.setattr(parts, "PAUSE", 1800.0)
    for operation in ("UploadPart", "UploadPartCopy"):
        store.proxy.fault(operation, "answer", times=ALWAYS)
    stopped = Stopped(store.proxy)
    ways: dict[str, Callable[[], object]] = {
        "write": lambda: repository.write(KEY, io.BytesIO(LARGE), cancel=stopped),
        "copy": lambda: repository.copy_from(repository, f"{KEY}.source", KEY, cancel=stopped),
        "interrupt": lambda: repository.write(KEY, Dies(LARGE)),
    }
    begun = time.monotonic()
    with pytest.raises(RuntimeError if how == "interrupt" else Canceled):
        ways[how]()
    assert time.monotonic() - begun < 60
    assert store.visible() is None
    assert store.uploads() == []


@pytest.mark.parametrize("kind", ["answer", "reset", "corrupt"])
def test_a_small_write_fails_and_nothing_is_left(store: Store, repository: Repository, kind: str) -> None:
    store.proxy.fault("PutObject", kind, times=ALWAYS)
    with pytest.raises(RepositoryError):
        repository.write_bytes(KEY, SMALL)
    assert store.visible() is None


def test_a_failed_abort_is_logged_and_swept_later(
    store: Store, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    class Dies(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise RuntimeError("pg_dump failed (exit 1)")
            return data

    store.proxy.fault("AbortMultipartUpload", "answer", times=ALWAYS)
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="exit 1"):
        repository.write(KEY, Dies(LARGE))
    assert "could not be aborted (SlowDown)" in caplog.text
    assert store.visible() is None
    assert store.uploads() == [f"pg/{KEY}"]
    store.proxy.faults.clear()
    time.sleep(1.1)
    repository.remove_unfinished(repository.unfinished_writes(timedelta(0)))
    assert store.uploads() == []


def test_a_lost_reply_to_the_first_request_leaves_only_what_is_swept(store: Store, repository: Repository) -> None:
    """boto3 retries, so the server has two uploads of the key: the first has no parts, and its id is lost."""
    store.proxy.fault("CreateMultipartUpload", "lose")
    repository.write(KEY, io.BytesIO(LARGE))
    assert store.visible() == LARGE
    time.sleep(1.1)
    repository.remove_unfinished(repository.unfinished_writes(timedelta(0)))
    assert store.uploads() == []
    assert store.visible() == LARGE


@pytest.mark.parametrize("data", ALL)
def test_the_network_fails_at_the_commit(store: Store, repository: Repository, data: bytes) -> None:
    """The outcome is unknown to the client; the object is complete or does not exist."""
    store.proxy.fault(commit_of(data), "lose", times=ALWAYS)
    store.proxy.fault("*", "reset", times=ALWAYS, when=lambda call: store.proxy.count(commit_of(data)) > 1)
    with pytest.raises(RepositoryError, match="does not answer"):
        repository.write(KEY, io.BytesIO(data))
    assert store.visible() in (None, data)


@pytest.mark.parametrize("data", ALL)
def test_another_writer_was_first(store: Store, repository: Repository, data: bytes) -> None:
    """The 412 does not come from a retry after a lost reply."""

    class Overtaken(io.BytesIO):
        done = False

        def read(self, size: int | None = -1, /) -> bytes:
            if not self.done:
                self.done = True
                store.direct.put_object(Bucket=store.bucket, Key=f"pg/{KEY}", Body=b"theirs")
            return super().read(size)

    with pytest.raises(AlreadyExists):
        repository.write(KEY, Overtaken(data))
    assert store.visible() == b"theirs"
    assert store.uploads() == []


@pytest.mark.parametrize("data", ALL)
def test_overwritten_right_after_the_commit(store: Store, repository: Repository, data: bytes) -> None:
    """By another tool, or by a second writer on a store whose If-None-Match is not atomic."""

    def overwrite(call: Any) -> bool:
        if store.proxy.count(commit_of(data)) > before:
            store.direct.put_object(Bucket=store.bucket, Key=f"pg/{KEY}", Body=b"theirs", Metadata={TOKEN: "theirs"})
        return False

    before = store.proxy.count(commit_of(data))
    store.proxy.fault("HeadObject", "answer", when=overwrite)
    with pytest.raises(AlreadyExists, match="at the same time"):
        repository.write(KEY, io.BytesIO(data))
    assert store.visible() == b"theirs"


@pytest.mark.parametrize("data", ALL)
def test_a_store_whose_object_differs_from_what_was_sent(store: Store, repository: Repository, data: bytes) -> None:
    store.proxy.fault("HeadObject", "shrink", skip=1, times=ALWAYS)
    with pytest.raises(RepositoryError, match=rf"differs from what was sent: 1 of {len(data)} bytes"):
        repository.write(KEY, io.BytesIO(data))
    assert store.visible() is None


@pytest.mark.parametrize(
    ("checksum", "differs"),
    [("Tdo0TA==", False), ("Tdo0TA==-3", True)],
    ids=["of the complete object", "composite"],
)
def test_the_checksum_of_an_object_in_parts(store: Store, repository: Repository, checksum: str, differs: bool) -> None:
    """Stores may answer with the checksum of the complete object, or leave out the number of parts as Garage does."""
    client = store.client()
    client.meta.events.register("after-call.s3.HeadObject", lambda parsed, **_: parsed.update(ChecksumCRC32=checksum))
    repository = store.open(lambda: client)
    if not differs:
        assert repository.write(KEY, io.BytesIO(LARGE)).size == len(LARGE)
        assert store.visible() == LARGE
        return
    with pytest.raises(RepositoryError, match=r"expected checksum .*, found Tdo0TA==-3") as caught:
        repository.write(KEY, io.BytesIO(LARGE))
    assert "request_checksum_calculation" in (caught.value.hint or "")
    assert store.visible() is None


@pytest.mark.parametrize(("type_of_it", "differs"), [(None, False), ("FULL_OBJECT", True)])
def test_the_checksum_of_a_copy_of_an_object_in_parts(store: Store, type_of_it: str | None, differs: bool) -> None:
    """Garage writes a composite checksum like one of the complete object, which it computes for the copy."""
    client = store.client()

    def answer(parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
        parsed["ChecksumCRC32"] = "Tdo0TA==" if http_response.url.endswith(KEY) else "AAAAAA=="
        parsed["ChecksumType"] = type_of_it

    repository = store.open(lambda: client)
    repository.init()
    repository.write(KEY, io.BytesIO(LARGE))
    client.meta.events.register("after-call.s3.HeadObject", answer)
    copied = f"{KEY}.copy"
    with pytest.raises(RepositoryError, match="expected checksum") if differs else nullcontext():
        repository.copy_from(repository, KEY, copied)
    assert (store.visible(copied) == LARGE) is not differs


@pytest.mark.parametrize("data", ALL)
def test_a_store_without_if_none_match(store: Store, repository: Repository, data: bytes) -> None:
    def conditional(call: Any) -> bool:
        return "if-none-match" in call.headers

    store.proxy.fault("*", "answer", status=501, code="NotImplemented", times=ALWAYS, when=conditional)
    assert repository.write(KEY, io.BytesIO(data)).size == len(data)
    assert store.visible() == data
    with pytest.raises(AlreadyExists):
        repository.write(KEY, io.BytesIO(data))
    repository.write(f"{KEY}.2", io.BytesIO(data))
    asked = [call for call in store.proxy.calls if conditional(call) and not call.key.endswith("repository.json")]
    assert len(asked) == 1, "after the first refusal no request has the header"


def test_a_probe_sends_three_requests(store: Store) -> None:
    """Its name is random, so it is not looked up before it is written."""
    store.open().probe()
    assert [call.operation for call in store.proxy.calls] == ["PutObject", "HeadObject", "DeleteObject"]
    assert store.proxy.calls[0].headers["if-none-match"] == "*"


# -- credentials -------------------------------------------------------------------------------------------------


def expiring(store: Store) -> tuple[Callable[[], S3Client], list[S3Client]]:
    """Return a factory, whose first client has credentials that expire after one part, and the list of its clients."""
    made: list[S3Client] = []

    def factory() -> S3Client:
        # The server has one key only, so the user agent shows the proxy which client sent a request.
        made.append(store.client(user_agent_extra=f"client/{len(made)}"))
        return made[-1]

    store.proxy.fault(
        "*",
        "answer",
        status=400,
        code="ExpiredToken",
        times=ALWAYS,
        when=lambda call: "client/0" in call.headers["user-agent"] and store.proxy.count("UploadPart") > 1,
    )
    return factory, made


def test_credentials_that_expire_during_an_upload_are_renewed(store: Store) -> None:
    """As with an assumed role: the next client of the factory has new credentials."""
    store.open().init()
    factory, made = expiring(store)
    repository = store.open(factory)
    repository.write(KEY, io.BytesIO(LARGE))
    assert store.visible() == LARGE
    assert store.uploads() == []
    assert len(made) == 2


@pytest.mark.parametrize("status", [400, 403])
def test_credentials_that_expire_before_a_head_are_renewed(store: Store, repository: Repository, status: int) -> None:
    """The answer to a HEAD has no body, and so no code."""
    repository.write(KEY, io.BytesIO(SMALL))
    made: list[S3Client] = []

    def factory() -> S3Client:
        made.append(store.client(user_agent_extra=f"client/{len(made)}"))
        return made[-1]

    def is_old(call: Call) -> bool:
        return "client/0" in call.headers["user-agent"]

    store.proxy.fault("HeadObject", "answer", status=status, code="ExpiredToken", times=ALWAYS, when=is_old)
    store.proxy.fault("ListObjectsV2", "answer", status=400, code="ExpiredToken", times=ALWAYS, when=is_old)
    found = store.open(factory).stat(KEY)
    assert found is not None
    assert found.size == len(SMALL)
    assert len(made) == 2


def test_a_head_with_credentials_that_stay_expired_ends(store: Store, repository: Repository) -> None:
    repository.write(KEY, io.BytesIO(SMALL))
    store.proxy.fault("*", "answer", status=400, code="ExpiredToken", times=ALWAYS)
    with pytest.raises(RepositoryError, match="the credentials have expired"):
        store.open(store.client).stat(KEY)


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "InvalidToken"])
def test_keys_that_were_rotated_are_renewed(store: Store, repository: Repository, code: str) -> None:
    store.proxy.fault("PutObject", "answer", status=403, code=code)
    made: list[S3Client] = []

    def factory() -> S3Client:
        made.append(store.client())
        return made[-1]

    store.open(factory).write(KEY, io.BytesIO(SMALL))
    assert len(made) == 2
    assert store.visible() == SMALL


def test_a_renewal_that_fails_says_so(store: Store, repository: Repository) -> None:
    clients = [store.client()]

    def factory() -> S3Client:
        if clients:
            return clients.pop()
        raise RuntimeError("the secrets backend does not answer")

    opened = store.open(factory)
    store.proxy.fault("*", "answer", status=400, code="ExpiredToken", times=ALWAYS)
    with pytest.raises(RepositoryError, match=r"cannot get credentials .* the secrets backend does not answer"):
        opened.write(KEY, io.BytesIO(LARGE))
    with pytest.raises(RepositoryError, match="cannot get credentials"):
        list(opened.list())


@pytest.fixture
def unrenewed(store: Store, repository: Repository) -> Repository:
    """A repository whose factory makes one client only."""
    clients = iter([store.client()])

    def factory() -> S3Client:
        for client in clients:
            return client
        raise RuntimeError("the secrets backend does not answer")

    return store.open(factory)


NOT_MADE = "cannot .*: cannot get credentials after ExpiredToken: RuntimeError: the secrets backend does not answer"


@pytest.mark.parametrize("operation", ["PutObject", "UploadPart", "CompleteMultipartUpload"])
def test_a_write_names_the_renewal_that_failed(store: Store, unrenewed: Repository, operation: str) -> None:
    store.proxy.fault(operation, "answer", status=400, code="ExpiredToken", times=ALWAYS)
    with pytest.raises(RepositoryError, match=NOT_MADE) as caught:
        unrenewed.write(KEY, io.BytesIO(SMALL if operation == "PutObject" else LARGE))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert store.visible() is None
    assert store.uploads() == []


def test_a_listing_names_the_renewal_that_failed(store: Store, unrenewed: Repository) -> None:
    store.proxy.fault("ListObjectsV2", "answer", status=400, code="ExpiredToken", times=ALWAYS)
    with pytest.raises(RepositoryError, match=NOT_MADE):
        list(unrenewed.list())


def test_an_abort_that_fails_does_not_hide_the_cause(
    store: Store, unrenewed: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    store.proxy.fault("UploadPart", "answer", status=403, code="AccessDenied", times=ALWAYS)
    store.proxy.fault("AbortMultipartUpload", "answer", status=400, code="ExpiredToken", times=ALWAYS)
    with caplog.at_level(logging.WARNING), pytest.raises(RepositoryError, match="access denied"):
        unrenewed.write(KEY, io.BytesIO(LARGE))
    assert "could not be aborted" in caplog.text


def test_a_lost_commit_is_unknown_even_if_the_credentials_cannot_be_renewed(
    store: Store, unrenewed: Repository
) -> None:
    store.proxy.fault("CompleteMultipartUpload", "lose", times=ALWAYS)

    def is_late(call: Any) -> bool:
        return store.proxy.count("CompleteMultipartUpload") > 0 and call.operation != "CompleteMultipartUpload"

    store.proxy.fault("*", "answer", status=400, code="ExpiredToken", times=ALWAYS, when=is_late)
    with pytest.raises(OutcomeUnknown, match="unknown whether it was written"):
        unrenewed.write(KEY, io.BytesIO(LARGE))


def test_a_password_in_the_endpoint_is_refused_and_not_repeated(bucket: str) -> None:
    session = boto3.session.Session("a", "b", region_name="us-east-1")
    client = session.client("s3", endpoint_url="http://me:s3cr3t@127.0.0.1:1")
    opened = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
    with pytest.raises(ConfigurationError, match=r"endpoint_url .* holds credentials") as caught:
        list(opened.list())
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_a_renewal_keeps_no_client_that_has_expired(store: Store) -> None:
    store.open().init()
    factory, made = expiring(store)
    repository = store.open(factory)
    repository.write(KEY, io.BytesIO(LARGE))
    first = weakref.ref(made.pop(0))
    gc.collect()
    assert first() is None
    assert repository.read_bytes(KEY, limit=len(LARGE)) == LARGE


def test_credentials_of_a_shared_client_are_renewed_once(store: Store) -> None:
    store.open().init()
    factory, made = expiring(store)
    first = store.open(factory)
    second = open_repository(f"s3://{store.bucket}/pg", client_of=first)
    second.write(KEY, io.BytesIO(LARGE))
    assert store.visible() == LARGE
    assert first.read_bytes(KEY, limit=len(LARGE)) == LARGE
    assert len(made) == 2


def test_credentials_that_expire_between_members_are_renewed(store: Store, tmp_path: Path) -> None:
    store.open().init()
    factory, made = expiring(store)
    for number in range(3):
        (tmp_path / f"{number}.dat").write_bytes(LARGE)
    repository = store.open(factory)
    with repository.incoming(FOLDER, tmp_path) as incoming:
        incoming.offer("0.dat")
        incoming.offer("1.dat")
        entries = incoming.finish({})
    assert [(entry.key, entry.size) for entry in entries] == [(f"{FOLDER}/{n}.dat", len(LARGE)) for n in range(3)]
    assert {entry.sha256 for entry in entries} == {hashlib.sha256(LARGE).hexdigest()}
    assert store.uploads() == []
    assert len(made) == 2


def wait_for_parts(store: Store) -> None:
    """Wait until the store has all three parts of a member."""

    def stored() -> int:
        for upload in store.direct.list_multipart_uploads(Bucket=store.bucket).get("Uploads", []):
            key = {"Bucket": store.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            return len(store.direct.list_parts(**key).get("Parts", []))
        return 0

    deadline = time.monotonic() + 120
    while stored() < 3:
        assert time.monotonic() < deadline, "the parts were not sent"
        time.sleep(0.05)


def test_a_member_sent_early_and_swept_is_sent_again(store: Store, repository: Repository, tmp_path: Path) -> None:
    """A member may wait for hours until the last one is written, and look like a leftover."""
    (tmp_path / "0.dat").write_bytes(LARGE)
    with repository.incoming(FOLDER, tmp_path) as incoming:
        incoming.offer("0.dat")
        wait_for_parts(store)
        time.sleep(1.1)  # the store's times are in full seconds
        repository.remove_unfinished(repository.unfinished_writes(timedelta(0)))
        assert store.uploads() == []
        incoming.finish({})
    with repository.read(f"{FOLDER}/0.dat") as stream:
        assert stream.read() == LARGE
    assert store.uploads() == []


def test_an_offered_member_that_has_grown_is_sent_again(store: Store, repository: Repository, tmp_path: Path) -> None:
    """A table's name in pg_dump's messages can make a member look finished."""
    (tmp_path / "0.dat").write_bytes(LARGE)
    with repository.incoming(FOLDER, tmp_path) as incoming:
        incoming.offer("0.dat")
        incoming.offer("0.dat")
        wait_for_parts(store)
        with (tmp_path / "0.dat").open("ab") as file:
            file.write(SMALL)
        incoming.finish({})
    with repository.read(f"{FOLDER}/0.dat") as stream:
        assert stream.read() == LARGE + SMALL
    assert store.uploads() == []


def test_an_offered_member_of_an_unfinished_directory_leaves_nothing(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "0.dat").write_bytes(LARGE)
    with repository.incoming(FOLDER, tmp_path) as incoming:
        incoming.offer("0.dat")
        wait_for_parts(store)
    assert store.uploads() == []
    assert [entry.key for entry in repository.list()] == ["repository.json"]


def test_credentials_that_stay_expired(store: Store, repository: Repository) -> None:
    store.proxy.fault(
        "*",
        "answer",
        status=400,
        code="ExpiredToken",
        times=ALWAYS,
        when=lambda call: store.proxy.count("UploadPart") > 1,
    )
    with pytest.raises(RepositoryError, match="expired") as caught:
        repository.write(KEY, io.BytesIO(LARGE))
    assert "assume a role" in (caught.value.hint or "")
    assert store.visible() is None
    assert store.uploads() == [f"pg/{KEY}"], "nobody may abort it now"
    store.proxy.faults.clear()
    time.sleep(1.1)
    repository.remove_unfinished(repository.unfinished_writes(timedelta(0)))
    assert store.uploads() == []


# -- reading, listing, deleting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut", "reset", "answer"])
def test_a_read_continues_where_the_connection_broke(store: Store, repository: Repository, kind: str) -> None:
    entry = repository.write(KEY, io.BytesIO(LARGE))
    fault = store.proxy.fault("GetObject", kind, times=2)
    with repository.read(KEY, pin=entry) as stream:
        assert stream.read() == LARGE
    assert fault.hits == 2


def test_an_answer_that_ignores_the_range_is_an_error(store: Store, repository: Repository) -> None:
    entry = repository.write(KEY, io.BytesIO(LARGE))
    store.proxy.fault("GetObject", "cut")
    store.proxy.fault("GetObject", "whole", when=lambda call: "range" in call.headers)
    with (
        repository.read(KEY, pin=entry) as stream,
        pytest.raises(RepositoryError, match=r"asked for the bytes from \d+ on, and got others"),
    ):
        stream.read()


def test_a_shorter_object_than_announced_is_an_error(store: Store, repository: Repository) -> None:
    entry = repository.write(KEY, io.BytesIO(SMALL))
    store.proxy.fault("GetObject", "halve")
    with pytest.raises(RepositoryError, match="expected an object of 100000 bytes, found 50000"):
        repository.read(KEY, pin=entry).__enter__()


def test_weak_etags(store: Store, repository: Repository) -> None:
    """As of a proxy that compresses: S3's conditions match no weak ETag."""
    repository.write(KEY, io.BytesIO(LARGE))
    store.proxy.fault("HeadObject", "weaken")
    entry = repository.stat(KEY)
    store.proxy.fault("GetObject", "cut")
    with repository.read(KEY, pin=entry) as stream:
        assert stream.read() == LARGE


def test_weak_etags_of_parts(store: Store, repository: Repository) -> None:
    """A store does not know a part by a weak ETag."""
    fault = store.proxy.fault("UploadPart", "weaken", times=ALWAYS)
    repository.write(KEY, io.BytesIO(LARGE))
    assert fault.hits > 1
    assert store.visible() == LARGE


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("HeadObject", {"kind": "answer", "status": 404, "code": "NoSuchKey"}),
        ("HeadObject", {"kind": "shrink"}),
        ("GetObject", {"kind": "answer", "status": 404, "code": "NoSuchKey"}),
        ("GetObject", {"kind": "halve"}),
    ],
    ids=str,
)
def test_no_backup_fails_because_of_one_wrong_answer(
    store: Store, repository: Repository, operation: str, fault: dict[str, Any]
) -> None:
    members = {"app.sql": b"-- PostgreSQL database dump\n"}
    started = datetime.now(timezone.utc) - timedelta(hours=2)
    manifest = write_backup(repository, Series("server", "db"), started, members=members)
    evidence = read_evidence(repository, manifest.series, manifest.id)
    injected = store.proxy.fault(operation, when=lambda call: call.key.endswith("app.sql"), **fault)
    with suppress(RepositoryError):
        verify(reference=reference_of(repository, evidence), repository=repository, level="integrity")
    assert injected.hits == 1
    results = [one.result for one in read_evidence(repository, manifest.series, manifest.id).verifications]
    assert set(results) == {"pass"}


@pytest.mark.parametrize("kind", ["answer", "reset"])
def test_a_read_survives_an_outage_longer_than_botos_retries(store: Store, repository: Repository, kind: str) -> None:
    entry = repository.write(KEY, io.BytesIO(LARGE))
    store.proxy.fault("GetObject", "cut")
    with repository.read(KEY, pin=entry) as stream:
        again = store.proxy.fault("GetObject", kind, times=4)  # the client itself tries three times
        assert stream.read() == LARGE
    assert again.hits == 4


def test_a_read_that_is_refused_midway_ends_at_once(store: Store, repository: Repository) -> None:
    repository.write(KEY, io.BytesIO(LARGE))
    store.proxy.fault("GetObject", "cut")
    with repository.read(KEY) as stream:
        refusal = store.proxy.fault("GetObject", "answer", status=403, code="AccessDenied", times=ALWAYS)
        with pytest.raises(RepositoryError, match="access denied"):
            stream.read()
    assert refusal.hits == 1


def test_a_read_never_mixes_two_objects(store: Store, repository: Repository) -> None:
    """The object is replaced during a read, with or without a pin: the rest is from the old version, or it fails."""
    repository.write(KEY, io.BytesIO(LARGE))
    store.proxy.fault("GetObject", "cut")
    with repository.read(KEY) as stream:
        assert stream.read(MIB) == LARGE[:MIB]
        store.direct.put_object(Bucket=store.bucket, Key=f"pg/{KEY}", Body=LARGE[::-1])
        with pytest.raises(RepositoryError, match="changed since"):
            stream.read()


def test_a_read_gives_up_after_its_attempts(
    store: Store, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_pgbackup.repository.s3.reader.time.sleep", lambda seconds: None)
    repository.write(KEY, io.BytesIO(LARGE))
    store.proxy.fault("GetObject", "cut")
    store.proxy.fault("GetObject", "reset", times=ALWAYS, skip=0)
    with (
        pytest.raises(RepositoryError, match=r"cannot read s3://.*does not answer|broke"),
        repository.read(KEY) as stream,
    ):
        stream.read()


def test_deleting_reads_each_keys_answer(store: Store, repository: Repository) -> None:
    repository.write_bytes("a/b", b"1")
    denied = "<Error><Key>pg/a/b</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
    gone = "<Error><Key>pg/a/c</Key><Code>NoSuchKey</Code></Error>"
    store.proxy.fault("DeleteObjects", "answer", status=200, body=f"<DeleteResult>{denied}{gone}</DeleteResult>")
    with pytest.raises(RepositoryError, match=r"pg: a/b \(AccessDenied: locked\)") as caught:
        repository.delete(["a/b", "a/c"])
    assert "Object lock" in (caught.value.hint or "")


PAGES = {"html": "<html><body>maintenance</body></html>", "other": "<Foo/>", "none": "<DeleteResult/>"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_deletion_that_the_store_did_not_execute(
    store: Store, repository: Repository, page: str, one_by_one: bool
) -> None:
    """A proxy answers with a page of its own and status 200."""
    for name in ("a", "b"):
        repository.write_bytes(f"y/{name}", b"1")
    if one_by_one:
        store.proxy.fault("DeleteObjects", "answer", status=501, code="NotImplemented", times=ALWAYS)
    store.proxy.fault("DeleteObject" if one_by_one else "DeleteObjects", "answer", status=200, body=PAGES[page])
    with pytest.raises(RepositoryError, match=r"y/a \(it still exists"):
        repository.delete(["y/a", "y/never"])
    repository.delete(["y/a", "y/b", "y/never"])
    assert list(repository.list("y")) == []


def test_deleted_keys_that_the_answer_does_not_mention(store: Store, repository: Repository) -> None:
    store.proxy.fault("DeleteObjects", "answer", status=200, body="<DeleteResult/>")
    repository.delete(["y/never"])


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "MissingContentMD5")])
def test_a_store_that_deletes_one_by_one(store: Store, repository: Repository, status: int, code: str) -> None:
    for name in ("a", "b"):
        repository.write_bytes(f"x/{name}", b"1")
    store.proxy.fault("DeleteObjects", "answer", status=status, code=code, times=ALWAYS)
    repository.delete(["x/a", "x/b", "x/never"])
    assert list(repository.list("x")) == []
    store.proxy.fault("DeleteObject", "answer", status=403, code="AccessDenied", times=ALWAYS)
    repository.write_bytes("x/c", b"1")
    with pytest.raises(RepositoryError, match=r"x/c \(AccessDenied: injected\)"):
        repository.delete(["x/c"])


# -- refusals by the store ---------------------------------------------------------------------------------------

REFUSALS = [
    (403, "RequestTimeTooSkewed", "", "clocks", "clock"),
    (403, "InvalidAccessKeyId", "", "does not know this access key", "key"),
    (403, "SignatureDoesNotMatch", "", "secret key is wrong", "secret"),
    (403, "AccessDenied", "", "access denied", "s3:ListBucket"),
    (400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>", "another region", "eu-central-1"),
    (404, "NoSuchBucket", "", "does not exist at", "Create the bucket"),
    (403, "InvalidObjectState", "", "archive storage class", "Restore it"),
    (400, "KMS.DisabledException", "", "encryption key", "kms:"),
    (501, "NotImplemented", "", "does not implement", "when_required"),
]


@pytest.mark.parametrize(("status", "code", "extra", "says", "hint"), REFUSALS, ids=[r[1] for r in REFUSALS])
def test_refusals_are_one_line_with_a_hint(
    store: Store, repository: Repository, status: int, code: str, extra: str, says: str, hint: str
) -> None:
    for operation in ("GetObject", "ListObjectsV2", "PutObject"):
        store.proxy.fault(operation, "answer", status=status, code=code, extra=extra, times=ALWAYS)
    fresh = store.open()
    calls: list[Callable[[], object]] = [
        lambda: fresh.uuid,
        lambda: list(fresh.list()),
        lambda: fresh.folders(),
        fresh.probe,
        lambda: repository.write_bytes(KEY, SMALL),
    ]
    for call in calls:
        with pytest.raises(RepositoryError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert hint in (caught.value.hint or "")
        assert code in caught.value.message or isinstance(caught.value, RepositoryNotFound)
        assert store.server.secret_key not in str(caught.value)


@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (302, "Found"), (307, "TemporaryRedirect")])
def test_a_redirected_write_was_not_written(store: Store, repository: Repository, status: int, code: str) -> None:
    store.proxy.fault("PutObject", "answer", status=status, code=code, times=ALWAYS)
    with pytest.raises(RepositoryError, match=code) as caught:
        repository.write_bytes(KEY, SMALL)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert "unknown" not in caught.value.message


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_without_a_region_is_not_said_to_be_about_one(
    store: Store, repository: Repository, status: int
) -> None:
    """As of a proxy that wants a login."""
    store.proxy.fault("HeadObject", "answer", status=status, times=ALWAYS)
    with pytest.raises(RepositoryError, match=rf"a redirect \(status {status}\) that names no region"):
        repository.stat(KEY)


def test_a_refused_head_gives_the_reason(store: Store, repository: Repository) -> None:
    """The answer to a HEAD has no body, so a listing finds the reason."""
    store.proxy.fault("HeadObject", "answer", status=403, times=ALWAYS)
    store.proxy.fault("ListObjectsV2", "answer", status=403, code="RequestTimeTooSkewed", times=ALWAYS)
    with pytest.raises(RepositoryError, match="clocks"):
        repository.stat(KEY)


def limit_listing_to_prefix(store: Store) -> None:
    """As S3 answers a role that may list below ``pg/`` only: 403 to a HEAD or GET of what does not exist."""

    def is_missing(call: Any) -> bool:
        return call.operation in ("HeadObject", "GetObject") and store.visible(call.key.partition("/pg/")[2]) is None

    def lists_elsewhere(call: Any) -> bool:
        return call.operation == "ListObjectsV2" and "prefix=pg%2F" not in call.query

    for when in (is_missing, lists_elsewhere):
        store.proxy.fault("*", "answer", status=403, code="AccessDenied", times=ALWAYS, when=when)


def test_a_role_that_may_list_below_the_prefix_only(store: Store) -> None:
    limit_listing_to_prefix(store)
    repository = store.open()
    with pytest.raises(RepositoryNotFound):
        repository.uuid  # noqa: B018
    repository.init()
    assert repository.stat(KEY) is None
    with pytest.raises(BackupNotFound), repository.read(KEY):
        pass
    repository.write(KEY, io.BytesIO(SMALL))
    assert store.visible() == SMALL
    assert repository.stat(f"{KEY[:-1]}") is None, "another key begins with it"


def test_a_key_that_exists_and_may_not_be_read_is_not_missing(store: Store, repository: Repository) -> None:
    repository.write(KEY, io.BytesIO(SMALL))
    for operation in ("HeadObject", "GetObject"):
        store.proxy.fault(operation, "answer", status=403, code="AccessDenied", times=ALWAYS)
    with pytest.raises(RepositoryError, match="access denied"):
        repository.stat(KEY)
    with pytest.raises(RepositoryError, match="access denied") as caught:
        repository.read_bytes(KEY)
    assert not isinstance(caught.value, BackupNotFound)


def test_a_pinned_version_is_read_without_the_right_to_name_it(store: Store, repository: Repository) -> None:
    store.direct.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"})
    deny_versions(store.proxy)
    entry = repository.write(KEY, io.BytesIO(SMALL))
    cut = store.proxy.fault("GetObject", "cut", when=lambda call: "versionId=" not in call.query)
    with repository.read(KEY, pin=entry) as stream:
        assert stream.read() == SMALL
    assert cut.hits == 1, "and continued where the connection broke"
    assert repository.copy_from(repository, KEY, f"{KEY}.copy", pin=entry) is None, "so the caller streams it"
    store.direct.put_object(Bucket=store.bucket, Key=f"pg/{KEY}", Body=SMALL)
    with pytest.raises(RepositoryError, match="changed since it was listed") as caught, repository.read(KEY, pin=entry):
        pass
    assert "s3:GetObjectVersion" in (caught.value.hint or "")


def test_a_refused_read_of_a_version_is_a_refusal(store: Store, repository: Repository) -> None:
    store.direct.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"})
    deny_versions(store.proxy)
    entry = repository.write(KEY, io.BytesIO(SMALL))
    store.proxy.fault("GetObject", "answer", status=403, code="AccessDenied", times=ALWAYS)
    with pytest.raises(RepositoryError, match="access denied") as caught, repository.read(KEY, pin=entry):
        pass
    assert "in a versioned bucket also GetObjectVersion" in (caught.value.hint or "")


WORDS = [
    (
        (403, "AccessDenied"),
        "User: arn:aws:iam::1:user/b is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:x",
        "kms:GenerateDataKey and kms:Decrypt",
    ),
    ((400, "KMS.DisabledException"), "arn:aws:kms:x is disabled.", "the key must be enabled"),
    (
        (400, "InvalidRequest"),
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters",
        "ChecksumAlgorithm to CRC32",
    ),
    (
        (400, "InvalidArgument"),
        "Unsupported header 'x-amz-checksum-crc32' received for this API call.",
        "AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
    ),
    ((411, "MissingContentLength"), "You must provide the Content-Length HTTP header.", "request_checksum_calculation"),
    ((501, "NotImplemented"), "A header you provided implies functionality", "request_checksum_calculation"),
    ((403, "SignatureDoesNotMatch"), "Invalid argument.", "request_checksum_calculation"),
    ((400, "InvalidPart"), "All non-trailing parts must have the same length.", "raise min_part_size"),
    ((400, "InvalidTag"), "The TagValue you have provided is invalid", "Look up the code"),
]


@pytest.mark.parametrize(("answer", "words", "hint"), WORDS, ids=[f"{w[0][1]}-{w[1][:8]}" for w in WORDS])
def test_s3s_own_message_is_kept(
    store: Store, repository: Repository, answer: tuple[int, str], words: str, hint: str
) -> None:
    status, code = answer
    store.proxy.fault("PutObject", "answer", status=status, code=code, message=words, times=ALWAYS)
    with pytest.raises(RepositoryError) as caught:
        repository.write_bytes(KEY, SMALL)
    assert f"({code}: {words.rstrip('.')})" in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_role_without_deleteobject_gets_a_hint(store: Store, repository: Repository) -> None:
    for operation in ("DeleteObject", "DeleteObjects"):
        store.proxy.fault(operation, "answer", status=403, code="AccessDenied", times=ALWAYS)
    with pytest.raises(RepositoryError, match="access denied") as caught:
        repository.delete(["a/b"])
    assert (
        caught.value.hint == "Object lock keeps a version until its date. Without one, the role needs s3:DeleteObject."
    )
    assert repository.probe() is False


@pytest.mark.parametrize("data", ALL)
def test_what_arrived_damaged_and_may_not_be_deleted_is_said(store: Store, repository: Repository, data: bytes) -> None:
    store.proxy.fault("DeleteObject", "answer", status=403, code="AccessDenied", times=ALWAYS)
    store.proxy.fault("HeadObject", "shrink", times=ALWAYS, skip=1)
    with pytest.raises(OutcomeUnknown, match=r"differs from what was sent: 1 of \d+ bytes; it could not be removed"):
        repository.write(KEY, io.BytesIO(data))


def test_prune_reports_objects_in_place_of_incomplete_uploads(store: Store, repository: Repository) -> None:
    """A store may ignore ``?uploads``: its answer is not a list without uploads."""
    objects = "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
    store.proxy.fault("ListMultipartUploads", "lie", body=objects, times=ALWAYS)
    result = prune(repository=repository, policy=Policy(keep_last=1), dry_run=False, grace=timedelta(hours=1))
    (note,) = cast("list[str]", result["notes"])
    assert "the store cannot list them (it lists objects instead)" in note


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (400, "NotImplemented"), (405, "MethodNotAllowed")]
)
def test_prune_works_where_uploads_cannot_be_listed_and_reports_it(
    store: Store, repository: Repository, status: int, code: str
) -> None:
    store.proxy.fault("ListMultipartUploads", "answer", status=status, code=code, times=ALWAYS)
    policy = Policy(keep_last=1)
    result = prune(repository=repository, policy=policy, dry_run=False, grace=timedelta(hours=1))
    (note,) = cast("list[str]", result["notes"])
    assert "incomplete uploads" in note
    assert code in note
