"""A hostile store: every invalid answer ends soon, in little memory, with an error of one line that has the cause."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hostile_s3 import DATED, OBJECT, Answer, HostileS3, Request, item, listing

from airflow_pgbackup.errors import Canceled, RepositoryError
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository import listing_limits
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3 import bucket as s3_bucket
from airflow_pgbackup.repository.s3 import options as s3_options

MIB = 1024**2
URI = "s3://bucket/pg"
PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]

Look = Callable[[Repository], object]

LOOKS: dict[str, Look] = {
    "list": lambda repository: list(repository.list()),
    "folders": lambda repository: repository.folders(),
    "uploads": lambda repository: repository.unfinished_writes(timedelta(0)),
    "parts": lambda repository: repository.unfinished_writes(timedelta(0)),
    "head": lambda repository: repository.stat("key"),
    "get": lambda repository: repository.read_bytes("key"),
}
BACKUP = "pg/server/db/20261122T020000Z-3f9ac1"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileS3]:
    with HostileS3().running() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield store


@pytest.fixture
def repository(store: HostileS3) -> Repository:
    return open_repository(URI)


def one_line(error: BaseException) -> str:
    line = str(error)
    assert "\n" not in line
    assert len(line) < 1000
    assert URI in line
    return line


def only(operation: str, answer: Callable[[], Answer]) -> Callable[[Request], Answer | None]:
    """Return a script that answers one operation; all other keys do not exist."""
    return lambda request: answer() if request.operation == operation and request.key != "repository.json" else None


# -- endless listings --------------------------------------------------------------------------------------------------


def endless(contents: bool, fresh: bool) -> Callable[[Request], Answer | None]:
    numbers = itertools.count()

    def script(request: Request) -> Answer | None:
        if request.operation != "list":
            return None
        number = next(numbers)
        keys = (f"{BACKUP}/{number}-{n}" for n in range(1000)) if contents else ()
        return listing("".join(map(item, keys)), truncated=True, token=f"token{number if fresh else ''}")

    return script


@pytest.mark.every_value
@pytest.mark.parametrize("look", ["list", "folders"])
@pytest.mark.parametrize("contents", [True, False], ids=["keys", "empty"])
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "repeated"])
def test_a_listing_without_an_end_ends(
    store: HostileS3, repository: Repository, monkeypatch: pytest.MonkeyPatch, look: str, contents: bool, fresh: bool
) -> None:
    monkeypatch.setattr(s3_bucket, "MOST_KEYS", 20_000)
    store.script = endless(contents, fresh)
    with pytest.raises(RepositoryError) as caught:
        LOOKS[look](repository)
    cause = "the same continuation token twice" if not fresh else "more than 20,000 keys" if contents else "empty pages"
    assert cause in one_line(caught.value)
    assert len(store.requests) < 1100


def test_tokens_that_repeat_in_a_cycle(store: HostileS3, repository: Repository) -> None:
    tokens = itertools.cycle("abc")
    store.script = only("list", lambda: listing(truncated=True, token=next(tokens)))
    with pytest.raises(RepositoryError, match="the same continuation token twice"):
        list(repository.list())
    assert len(store.requests) == 4


@pytest.mark.parametrize("operation", ["uploads", "parts"])
def test_uploads_and_parts_without_an_end(store: HostileS3, repository: Repository, operation: str) -> None:
    numbers = itertools.count()
    upload = f"<Upload><Key>{BACKUP}/a</Key><UploadId>u</UploadId><Initiated>2026-11-22T02:00:00Z</Initiated></Upload>"

    def script(request: Request) -> Answer | None:
        number = next(numbers)
        if request.operation == "uploads":
            more = f"<NextKeyMarker>{number}</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker>"
            truncated = operation == "uploads"
            body = f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{more if truncated else upload}"
            return Answer(f"<ListMultipartUploadsResult>{body}</ListMultipartUploadsResult>".encode())
        if request.operation == "parts":
            more = f"<NextPartNumberMarker>{number}</NextPartNumberMarker>"
            return Answer(f"<ListPartsResult><IsTruncated>true</IsTruncated>{more}</ListPartsResult>".encode())
        return None

    store.script = script
    with pytest.raises(RepositoryError, match="empty pages") as caught:
        repository.unfinished_writes(timedelta(0))
    one_line(caught.value)


def test_a_listing_of_parts_that_is_none(store: HostileS3, repository: Repository) -> None:
    """Taken for an upload without parts, one that still grows would be aborted."""
    upload = f"<Upload><Key>{BACKUP}/a</Key><UploadId>u</UploadId><Initiated>2026-11-22T02:00:00Z</Initiated></Upload>"
    bodies = {
        "uploads": f"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{upload}</ListMultipartUploadsResult>",
        "parts": "<html/>",
    }
    store.script = lambda request: Answer(bodies[request.operation].encode()) if request.operation in bodies else None
    with pytest.raises(RepositoryError, match="lacks IsTruncated") as caught:
        repository.unfinished_writes(timedelta(0))
    one_line(caught.value)


def test_a_listing_checks_the_cancel_flag(store: HostileS3) -> None:
    cancel = Cancel()
    repository = open_repository(URI, cancel=cancel)
    script = endless(contents=True, fresh=True)

    def answer(request: Request) -> Answer | None:
        if len(store.requests) == 5:
            cancel.set()
        return script(request)

    store.script = answer
    with pytest.raises(Canceled):
        list(repository.list())
    assert len(store.requests) <= 6


def small_process() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


def start(store: HostileS3, *arguments: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **store.environment}
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=small_process,
    )


@pytest.mark.every_value
@pytest.mark.parametrize("kind", ["endless", "silent", "trickle"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_line_answers_a_signal(store: HostileS3, kind: str, number: int) -> None:
    script = endless(contents=True, fresh=True)

    def silent() -> Iterator[bytes]:
        store.closed.wait()
        yield b""

    def trickle() -> Iterator[bytes]:
        while not store.closed.wait(0.1):
            yield b" "

    answers = {"silent": silent, "trickle": trickle}
    store.script = script if kind == "endless" else only("list", lambda: Answer(answers[kind]()))
    process = start(store, "list", URI)
    try:
        while not any(request.operation == "list" for request in store.requests):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=240)  # the answer has no end
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in err
    assert len(err.splitlines()) == 1


# -- answers that S3 never sends ---------------------------------------------------------------------------------------


def flood() -> Iterator[bytes]:
    while True:
        yield b"<a>" * 20_000


BOMB = b"""<!DOCTYPE b [<!ENTITY a0 "%s">%s]><ListBucketResult><Name>&a9;</Name></ListBucketResult>""" % (
    b"x" * 1000,
    b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)),
)
MANY = b"<ListBucketResult>" + b"<a/>" * 1_500_000 + b"</ListBucketResult>"
DEEP = listing(item("pg/a", Size="<a>" * 40_000 + "</a>" * 40_000))
UPLOAD = "<Key>pg/server/db/20261122T020000Z-3f9ac1/a</Key><UploadId>u</UploadId>"


def uploads(content: str) -> Callable[[], Answer]:
    return lambda: Answer(f"<ListMultipartUploadsResult>{content}</ListMultipartUploadsResult>".encode())


ANSWERS: list[tuple[str, str, Callable[[], Answer]]] = [
    ("no token", "list", lambda: listing(truncated=True)),
    ("empty token", "list", lambda: listing(truncated=True, token="")),
    ("no XML", "list", lambda: Answer(b"hello")),
    ("empty", "list", lambda: Answer(b"")),
    ("binary", "list", lambda: Answer(bytes(range(256)) * 10)),
    ("other XML", "list", lambda: Answer(b"<html><IsTruncated>perhaps</IsTruncated><Contents/></html>")),
    ("a login page", "list", lambda: Answer(b"<html><body>Sign in</body></html>")),
    ("cut", "list", lambda: Answer(listing(item("pg/a")).body[:-30])),  # type: ignore[index]
    ("short", "list", lambda: Answer(b"<ListBucketResult>", length="1000000")),
    ("bomb", "list", lambda: Answer(BOMB)),
    ("bomb in UTF-16", "list", lambda: Answer(BOMB.decode().encode("utf-16"))),
    ("many elements", "list", lambda: Answer(MANY)),
    ("deep", "list", lambda: DEEP),
    ("endless", "list", lambda: Answer(flood())),
    ("endless error", "list", lambda: Answer(flood(), 400)),
    ("huge length", "list", lambda: Answer(flood(), headers={"Content-Length": str(1 << 60)})),
    ("size", "list", lambda: listing(item("pg/a", Size="many"))),
    ("negative size", "list", lambda: listing(item("pg/a", Size="-1"))),
    ("long size", "list", lambda: listing(item("pg/a", Size="9" * 5000))),
    ("no size", "list", lambda: listing(item("pg/a", Size=None))),  # type: ignore[arg-type]
    ("no key", "list", lambda: listing(item("pg/a", Key=None))),  # type: ignore[arg-type]
    ("no etag", "list", lambda: listing(item("pg/a", ETag=None))),  # type: ignore[arg-type]
    ("date", "list", lambda: listing(item("pg/a", LastModified="yesterday"))),
    ("no date", "list", lambda: listing(item("pg/a", LastModified=None))),  # type: ignore[arg-type]
    ("early date", "list", lambda: listing(item("pg/a", LastModified="0001-01-01T00:00:00+14:00"))),
    ("late date", "list", lambda: listing(item("pg/a", LastModified="9999-12-31T23:59:59-14:00"))),
    ("redirect", "list", lambda: Answer(status=301, headers={"Location": "/bucket"})),
    ("redirect", "head", lambda: Answer(status=301, headers={"Location": "/bucket"})),
    ("temporary redirect", "list", lambda: Answer(status=307, headers={"Location": "http://127.0.0.1:9/"})),
    ("status", "list", lambda: Answer(status=299)),
    ("prefix", "folders", lambda: listing("<CommonPrefixes><Foo/></CommonPrefixes>")),
    ("empty", "uploads", lambda: Answer(b"")),
    ("a login page", "uploads", lambda: Answer(b"<html><body>Sign in</body></html>")),
    ("other XML", "uploads", lambda: Answer(b"<Foo/>")),
    ("no initiated", "uploads", uploads(f"<IsTruncated>false</IsTruncated><Upload>{UPLOAD}</Upload>")),
    ("no upload id", "uploads", uploads("<IsTruncated>false</IsTruncated><Upload><Key>pg/a</Key></Upload>")),
    ("no marker", "uploads", uploads("<IsTruncated>true</IsTruncated>")),
    ("no etag", "head", lambda: Answer(headers={**DATED, "Last-Modified": OBJECT["Last-Modified"]})),
    ("no date", "head", lambda: Answer(headers={**DATED, "ETag": '"0"'})),
    ("date", "head", lambda: Answer(headers={**OBJECT, "Last-Modified": "yesterday"})),
    ("length", "head", lambda: Answer(length="many")),
    ("negative length", "head", lambda: Answer(length="-5")),
    ("length", "get", lambda: Answer(b"x", length="many")),
    ("negative length", "get", lambda: Answer(b"x", length="-5")),
    ("no etag", "get", lambda: Answer(b"x", headers=dict(DATED))),
    ("endless", "get", lambda: Answer(flood(), headers={"ETag": '"0"', "Content-Length": str(1 << 60)})),
    ("endless error", "get", lambda: Answer(flood(), 403)),
    ("endless absence", "get", lambda: Answer(flood(), 404)),
    ("many headers", "get", lambda: Answer(headers={f"x-{n}": "y" for n in range(200)})),
    ("long header", "get", lambda: Answer(headers={"ETag": "y" * 100_000})),
    ("status", "get", lambda: Answer(status=999)),
]


CASES = [
    pytest.param(operation, answer, id=f"{operation}-{name.replace(' ', '_')}") for name, operation, answer in ANSWERS
]


@pytest.mark.parametrize(("operation", "answer"), CASES)
def test_an_invalid_answer(
    store: HostileS3, repository: Repository, operation: str, answer: Callable[[], Answer]
) -> None:
    store.script = only({"folders": "list"}.get(operation, operation), answer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RepositoryError) as caught:
        LOOKS[operation](repository)
    one_line(caught.value)
    assert caught.value.hint
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB
    assert len(store.requests) < 120


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_redirect_to_nowhere(store: HostileS3, repository: Repository) -> None:
    """urllib3 fails to parse the address, and leaves its socket to the garbage collector."""
    store.script = only("list", lambda: Answer(status=307, headers={"Location": "http://[::1/"}))
    with pytest.raises(RepositoryError) as caught:
        list(repository.list())
    one_line(caught.value)
    del caught
    gc.collect()


@pytest.mark.parametrize("operation", ["list", "head"])
def test_a_redirect_to_itself_is_followed_once(store: HostileS3, repository: Repository, operation: str) -> None:
    store.script = lambda request: Answer(status=301, headers={"Location": "/bucket"})
    with pytest.raises(RepositoryError) as caught:
        LOOKS[operation](repository)
    one_line(caught.value)
    assert len(store.requests) <= 3


@pytest.mark.parametrize("kind", ["reset", "stall"])
def test_an_answer_that_breaks_off_is_requested_again(
    store: HostileS3, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "stall":
        monkeypatch.setattr(s3_options, "READ_TIMEOUT", 5)
    whole = listing(item("pg/a"))
    lists = itertools.count()

    def broken() -> Iterator[bytes]:
        yield whole.body[:50]  # type: ignore[index]
        if kind == "stall":
            store.closed.wait()

    def script(request: Request) -> Answer | None:
        if request.operation != "list":
            return None
        return whole if next(lists) else Answer(broken(), headers={"Transfer-Encoding": "chunked"})

    store.script = script
    assert [entry.key for entry in open_repository(URI).list()] == ["a"]


def test_an_invalid_date_header(store: HostileS3, repository: Repository) -> None:
    """By the store's clock, prune decides which uploads are old."""
    body = b"<ListMultipartUploadsResult/>"
    store.script = only("uploads", lambda: Answer(body, headers={"Date": "yesterday"}))
    with pytest.raises(RepositoryError) as caught:
        repository.unfinished_writes(timedelta(0))
    one_line(caught.value)


@pytest.mark.parametrize("field", ["Key", "ETag"])
def test_the_names_of_a_listing_have_a_limit(
    store: HostileS3, repository: Repository, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setattr(listing_limits, "MOST_NAMES", 4 * MIB)
    numbers = itertools.count()

    def page() -> Answer:
        return listing(item(**{"key": "pg/a", field: "pg/" + "a" * MIB}), truncated=True, token=str(next(numbers)))

    store.script = only("list", page)
    with pytest.raises(RepositoryError, match="more than 4,194,304 characters") as caught:
        list(repository.list())
    one_line(caught.value)
    assert len(store.requests) < 10


def test_the_default_client_has_short_timeouts(store: HostileS3) -> None:
    config = s3_options.default_client().meta.config
    assert config.connect_timeout <= 10
    assert config.read_timeout <= 60


def test_a_catalogue_keeps_few_foreign_names(store: HostileS3, repository: Repository) -> None:
    """The first hundred, and all backups."""
    foreign = [item(f"pg/elsewhere{n}") for n in range(5000)]
    store.script = only("list", lambda: listing("".join(foreign)))
    assert len(read_catalogue(repository).foreign) == 100


def test_a_local_listing_has_the_same_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = open_repository(f"file://{tmp_path}/repository")
    repository.init()
    monkeypatch.setattr(listing_limits, "MOST_KEYS", 3)
    for name in "abc":
        (tmp_path / "repository" / name).touch()
    with pytest.raises(RepositoryError, match="more than 3 "):
        list(repository.list())
