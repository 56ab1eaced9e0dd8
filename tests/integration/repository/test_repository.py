"""The contract of a repository, one suite for every kind: a folder, a bucket, a prefix in a bucket."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import (
    AlreadyExists,
    BackupNotFound,
    Canceled,
    ConfigurationError,
    ManifestError,
    RepositoryError,
    RepositoryMismatch,
    RepositoryNotFound,
    VerificationFailed,
)
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MIB = 1024**2
# Around S3's part size, where a put becomes a multipart upload, and past it.
SIZES = [0, 1, 1000, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 21 * MIB + 17]
BACKUP = "server/db/20261122T020000Z-3f9ac1"


class Folder:
    """What a test may know of a local repository from outside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = root.as_uri()
        self.root.mkdir()

    def open(self) -> Repository:
        return open_repository(self.uri)

    def state(self) -> list[str]:
        """Everything that is there, hidden or not, folders too."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def put(self, key: str, data: bytes) -> None:
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).write_bytes(data)

    def prelude(self) -> str:
        return (
            f"from airflow_pgbackup.repository.open import open_repository\nrepository = open_repository({self.uri!r})"
        )


class Bucket:
    """The same of a bucket, or a prefix in one."""

    def __init__(self, server: S3Server, client: S3Client, bucket: str, prefix: str) -> None:
        self.server = server
        self.client = client
        self.bucket = bucket
        self.uri = f"s3://{bucket}/{prefix}".removesuffix("/")
        self.root = f"{prefix}/" if prefix else ""

    def open(self) -> Repository:
        return open_repository(self.uri, s3=S3Options(client_factory=lambda: self.client))

    def state(self) -> list[str]:
        """All keys, and all unfinished uploads."""
        listing = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.root)
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.root)
        return [o["Key"] for o in listing.get("Contents", [])] + [u["Key"] for u in uploads.get("Uploads", [])]

    def clear(self) -> None:
        for upload in self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.root).get("Uploads", []):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        while keys := self.state():
            self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in keys]})

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.root + key, Body=data)

    def prelude(self) -> str:
        return textwrap.dedent(f"""
            import boto3
            from airflow_pgbackup.repository.open import open_repository
            from airflow_pgbackup.repository.s3.options import S3Options
            keys = {self.server.access_key!r}, {self.server.secret_key!r}
            session = boto3.session.Session(*keys, region_name="us-east-1")
            options = S3Options(client_factory=lambda: session.client("s3", endpoint_url={self.server.endpoint_url!r}))
            repository = open_repository({self.uri!r}, s3=options)
        """)


Place = Folder | Bucket


@pytest.fixture(scope="module")
def client(s3: S3Server) -> S3Client:
    return s3.client()


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    """One for all prefixes: a new one takes the server most of a second."""
    return s3.bucket()


@pytest.fixture(params=["folder", "bucket", "prefix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield Folder(tmp_path / "my backups")
        return
    server: S3Server = request.getfixturevalue("s3")
    client: S3Client = request.getfixturevalue("client")
    if request.param == "prefix":
        yield Bucket(server, client, request.getfixturevalue("bucket"), f"nightly/{secrets.token_hex(4)}")
        return
    place = Bucket(server, client, server.bucket(), "")
    yield place
    place.clear()
    place.client.delete_bucket(Bucket=place.bucket)  # the server has room for some dozens of them


@pytest.fixture
def repository(place: Place) -> Repository:
    repository = place.open()
    repository.init()
    return repository


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def contents(repository: Repository, key: str) -> bytes:
    with repository.read(key) as stream:
        return stream.read()


class Failing:
    """A reader like that of a dump which dies: some bytes, then an error where the end would be."""

    def __init__(self, size: int, error: BaseException) -> None:
        self._left = size
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        size = min(size, self._left)
        self._left -= size
        if not size:
            raise self._error
        return bytes(size)


class Flag:
    """A cancel flag that is raised by the n-th look at it."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def check(self) -> None:
        self._looks -= 1
        if self._looks <= 0:
            raise Canceled("asked to stop")


# -- identity ----------------------------------------------------------------------------------------------------


def test_an_empty_place_is_no_repository(place: Place) -> None:
    with pytest.raises(RepositoryNotFound) as caught:
        _ = place.open().uuid
    assert place.uri in caught.value.message
    assert caught.value.hint


def test_nothing_is_written_where_there_is_no_repository(place: Place, tmp_path: Path) -> None:
    (tmp_path / "dump.dir").mkdir()
    (tmp_path / "dump.dir" / "toc.dat").write_bytes(b"x")
    with pytest.raises(RepositoryNotFound):
        place.open().write_bytes(f"{BACKUP}/manifest.json", b"{}")
    with pytest.raises(RepositoryNotFound):
        place.open().write_directory(f"{BACKUP}/dump.dir", tmp_path / "dump.dir")
    assert place.state() == []


def test_init_makes_it_once(place: Place) -> None:
    uuid = place.open().init()
    again = place.open()
    assert again.init() == again.uuid == place.open().uuid == uuid
    again.require(uuid)
    with pytest.raises(RepositoryMismatch) as caught:
        again.require("0b9f3f3e-1c44-4c6c-9a4e-5f7d1a2b3c4d")
    assert caught.value.permanent


def test_init_by_many_at_once_makes_one_repository(place: Place) -> None:
    with ThreadPoolExecutor(8) as pool:
        uuids = set(pool.map(lambda _: place.open().init(), range(8)))
    assert len(uuids) == 1


@pytest.mark.every_value
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"format_version": "1.0"}',
        b'{"format_version": "2.0", "uuid": "0b9f3f3e-1c44-4c6c-9a4e-5f7d1a2b3c4d"}',
    ],
)
def test_a_damaged_or_newer_repository_file_is_refused(place: Place, content: bytes) -> None:
    place.put("repository.json", content)
    with pytest.raises(ManifestError):
        _ = place.open().uuid
    with pytest.raises(ManifestError):
        place.open().init()
    assert place.open().read_bytes("repository.json") == content


# -- writing and reading -----------------------------------------------------------------------------------------


@pytest.mark.every_value
@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read(repository: Repository, size: int) -> None:
    data = data_of(size)
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    entry = repository.write(f"{BACKUP}/a.dump", io.BytesIO(data))
    assert (entry.key, entry.size) == (f"{BACKUP}/a.dump", size)
    assert before < entry.modified < before + timedelta(seconds=60)
    assert contents(repository, entry.key) == data
    found = repository.stat(entry.key)
    assert found is not None
    assert replace(found, modified=entry.modified) == entry
    assert found.modified - entry.modified < timedelta(seconds=60), "it got its name later"
    assert [e.size for e in repository.list(BACKUP)] == [size]


def test_a_stream_is_read_in_full_chunks(repository: Repository) -> None:
    data = data_of(5 * MIB + 3)
    repository.write("a", io.BytesIO(data))
    with repository.read("a") as stream:
        chunks = []
        while chunk := stream.read(700_000):
            chunks.append(chunk)
        assert stream.read(1) == b""
    assert [len(c) for c in chunks[:-1]] == [700_000] * (len(chunks) - 1)
    assert b"".join(chunks) == data


def test_a_source_that_gives_what_it_has_is_stored_whole(repository: Repository) -> None:
    data = data_of(9 * MIB)
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        assert repository.write("a", pipe).size == len(data)  # type: ignore[arg-type]
    feeder.join()
    assert contents(repository, "a") == data


def test_nothing_is_overwritten(repository: Repository, place: Place) -> None:
    repository.write_bytes("a/b", b"first")
    state = place.state()
    source = io.BytesIO(data_of(10 * MIB))
    with pytest.raises(AlreadyExists):
        repository.write("a/b", source)
    assert source.tell() == 0, "a dump of hours was read before the answer"
    assert contents(repository, "a/b") == b"first"
    assert place.state() == state


@pytest.mark.every_value
@pytest.mark.parametrize("size", [1000, 17 * MIB])
def test_of_many_writers_of_one_key_one_wins(repository: Repository, place: Place, size: int) -> None:
    barrier = threading.Barrier(4)
    writers = [data_of(size, seed) for seed in range(4)]

    class Late(io.BytesIO):
        """All of them have looked whether the key is free before any of them reads."""

        first = True

        def read(self, size: int | None = -1, /) -> bytes:
            if self.first:
                self.first = False
                barrier.wait(30)
            return super().read(size)

    def write(data: bytes) -> bytes | None:
        try:
            repository.write("a/b", Late(data))
        except AlreadyExists:
            return None
        return data

    with ThreadPoolExecutor(4) as pool:
        won = [data for data in pool.map(write, writers) if data is not None]
    # SeaweedFS looks for If-None-Match before it joins the parts, so there two may pass in the same instant.
    assert len(won) == 1 or (size > 8 * MIB and isinstance(place, Bucket))
    assert contents(repository, "a/b") in won
    assert len([name for name in place.state() if "pgbackup-tmp" in name or name.endswith("a/b")]) == 1


@pytest.mark.every_value
@pytest.mark.parametrize("size", [0, 100, 12 * MIB, 30 * MIB])
def test_a_source_that_fails_leaves_nothing(repository: Repository, place: Place, size: int) -> None:
    state = place.state()
    error = RuntimeError("pg_dump failed (exit 1)")
    with pytest.raises(RuntimeError) as caught:
        repository.write(f"{BACKUP}/a.dump", Failing(size, error))  # type: ignore[arg-type]
    assert caught.value is error
    assert repository.stat(f"{BACKUP}/a.dump") is None
    assert place.state() == state


def test_a_keyboard_interrupt_leaves_nothing(repository: Repository, place: Place) -> None:
    state = place.state()
    with pytest.raises(KeyboardInterrupt):
        repository.write("a/b", Failing(20 * MIB, KeyboardInterrupt()))  # type: ignore[arg-type]
    assert place.state() == state


def test_a_timeout_interrupts_a_read_that_hangs(repository: Repository, place: Place) -> None:
    """As Airflow's does, by an exception in a signal handler, while a dump waits for a lock."""

    class TaskTimeout(BaseException):
        pass

    def handler(number: int, frame: object) -> None:
        raise TaskTimeout

    state = place.state()
    reading, writing = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), open(writing, "wb", buffering=0, closefd=False) as pipe:
            pipe.write(bytes(10 * MIB))

    feeder = threading.Thread(target=feed)
    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        feeder.start()
        timer.start()
        with os.fdopen(reading, "rb", buffering=0) as pipe, pytest.raises(TaskTimeout):
            repository.write("a/b", pipe)  # type: ignore[arg-type]
        assert place.state() == state
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)
        os.close(writing)
        feeder.join()


@pytest.mark.every_value
@pytest.mark.parametrize("looks", [1, 3, 1_000_000])
def test_canceled(repository: Repository, place: Place, looks: int) -> None:
    state = place.state()
    flag = Flag(looks)
    if looks == 1_000_000:  # only the last look, before the commit

        class Source(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(size)
                flag._looks = 1_000_000 if data else 1
                return data

        reader: io.BytesIO = Source(data_of(20 * MIB))
    else:
        reader = io.BytesIO(data_of(20 * MIB))
    with pytest.raises(Canceled):
        repository.write("a/b", reader, cancel=flag)
    assert place.state() == state


@pytest.mark.parametrize("size", [1000, 20 * MIB])
def test_the_expected_digest(repository: Repository, place: Place, size: int) -> None:
    data = data_of(size)
    state = place.state()
    with pytest.raises(VerificationFailed, match="checksum mismatch"):
        repository.write("a/b", io.BytesIO(data[:-1] + b"?"), sha256=hashlib.sha256(data).hexdigest())
    assert place.state() == state
    assert repository.write("a/b", io.BytesIO(data), sha256=hashlib.sha256(data).hexdigest()).size == size


def test_many_threads_share_one_repository(repository: Repository) -> None:
    def write_and_read(number: int) -> bool:
        data = data_of(3 * MIB + number, number)
        repository.write(f"server/db/{number}/x", io.BytesIO(data))
        return contents(repository, f"server/db/{number}/x") == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(16)))


def test_missing_and_too_large(repository: Repository) -> None:
    assert repository.stat("a/b") is None
    with pytest.raises(BackupNotFound, match="a/b"), repository.read("a/b"):
        pass
    repository.write_bytes("a/b", b"12345")
    assert repository.read_bytes("a/b", limit=5) == b"12345"
    with pytest.raises(RepositoryError, match="larger than 4 bytes"):
        repository.read_bytes("a/b", limit=4)
    assert repository.stat("a") is None
    assert repository.stat("a/b/c") is None


NO_KEYS = ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\0b", "a\nb", ".pgbackup-tmp-x", "a/" + "x" * 256]


def test_what_is_no_key(repository: Repository, place: Place) -> None:
    state = place.state()
    for key in NO_KEYS:
        calls: list[Callable[[str], object]] = [
            lambda key: repository.write_bytes(key, b""),
            lambda key: repository.write_bytes(f"{key}/x", b""),
            repository.stat,
            repository.read_bytes,
            lambda key: repository.delete([key]),
        ]
        for call in calls:
            with pytest.raises(ConfigurationError):
                call(key)
    assert place.state() == state


def test_any_database_name_is_a_series(repository: Repository) -> None:
    names = ["..", ".hidden", "a/b", "@cluster", "-lead", "host=evil dbname=x", "Ünï%20côde", "日本"]
    for name in names:
        series = Series("prod", name)
        repository.write_bytes(f"{series.path}/x", name.encode())
        assert [e.key for e in repository.list(series.path)] == [f"{series.path}/x"]
        assert contents(repository, f"{series.path}/x") == name.encode()
    assert sorted(Series.parse(f"prod/{folder}").database or "" for folder in repository.folders("prod")) == sorted(
        names
    )


# -- listing and deleting ----------------------------------------------------------------------------------------


def test_listing_knows_whole_folders_only(repository: Repository) -> None:
    for key in ("app_staging/x", "app/db/x", "app/db-2/x", "app/db/y", "app", "apple"):
        if key != "app":
            repository.write_bytes(key, key.encode())
    assert [e.key for e in repository.list("app")] == ["app/db-2/x", "app/db/x", "app/db/y"]
    assert [e.key for e in repository.list("app/db")] == ["app/db/x", "app/db/y"]
    assert [e.key for e in repository.list("app/db/")] == ["app/db/x", "app/db/y"]
    assert [e.key for e in repository.list("nope")] == []
    assert repository.folders() == ["app", "app_staging"]
    assert repository.folders("app") == ["db", "db-2"]
    assert repository.folders("app/db") == []


def test_listing_is_sorted_and_complete_over_pages(repository: Repository, place: Place) -> None:
    keys = [f"s/d{number % 7}{'-x' * (number % 2)}/{number:05}" for number in range(1203)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: place.put(key, b""), keys))
    assert [e.key for e in repository.list("s")] == sorted(keys)
    repository.delete(keys[:1101])
    assert [e.key for e in repository.list("s")] == sorted(keys[1101:])
    repository.delete(keys)
    assert place.state() == [name for name in place.state() if name.endswith("repository.json")]


def test_foreign_files_do_not_disturb(repository: Repository, place: Place) -> None:
    repository.write_bytes("app/db/x", b"1")
    place.put("app/read me.txt", b"2")
    place.put(".hidden", b"3")
    place.put("app/.pgbackup-tmp-0123", b"4")
    assert [e.key for e in repository.list()] == [".hidden", "app/db/x", "app/read me.txt", "repository.json"]
    assert repository.folders() == ["app"]


def test_deleting(repository: Repository, place: Place) -> None:
    state = place.state()
    repository.write_bytes("a/b/c", b"1")
    repository.delete(["a/b/c", "a/b/never", "x/y"])
    assert repository.stat("a/b/c") is None
    assert place.state() == state
    repository.delete([])


# -- directories -------------------------------------------------------------------------------------------------


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    folder = tmp_path / "outside" / "dump"
    (folder / "blobs").mkdir(parents=True)
    (folder / "toc.dat").write_bytes(data_of(5000))
    (folder / "3456.dat.zst").write_bytes(data_of(9 * MIB, 2))
    (folder / "blobs" / "1.dat").write_bytes(b"")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_directory_comes_in(repository: Repository, dump: Path) -> None:
    expected = tree(dump)
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in expected.items()}
    entries = repository.write_directory(f"{BACKUP}/a.dir", dump, digests=digests)
    assert {e.key: e.size for e in entries} == {f"{BACKUP}/a.dir/{path}": len(data) for path, data in expected.items()}
    assert list(repository.list(f"{BACKUP}/a.dir")) == sorted(entries, key=lambda e: e.key)
    assert {e.key.removeprefix(f"{BACKUP}/a.dir/"): contents(repository, e.key) for e in entries} == expected


def test_a_directory_made_in_scratch_comes_in(repository: Repository, place: Place) -> None:
    state = place.state()
    with repository.scratch(f"{BACKUP}/a.dir") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a.dir").mkdir()
        (folder / "a.dir" / "toc.dat").write_bytes(b"toc")
        assert list(repository.list()) == list(repository.list())
        assert [e.key for e in repository.list()] == ["repository.json"]
        repository.write_directory(f"{BACKUP}/a.dir", folder / "a.dir")
    assert not folder.exists()
    assert contents(repository, f"{BACKUP}/a.dir/toc.dat") == b"toc"
    repository.delete([f"{BACKUP}/a.dir/toc.dat"])
    assert place.state() == state


def test_a_directory_never_joins_another(repository: Repository, place: Place, dump: Path) -> None:
    for key in (f"{BACKUP}/a.dir/other", f"{BACKUP}/b.dir"):
        repository.write_bytes(key, b"1")
    state = place.state()
    for name in ("a.dir", "b.dir"):
        with pytest.raises(AlreadyExists):
            repository.write_directory(f"{BACKUP}/{name}", dump)
    assert place.state() == state


def test_a_directory_that_fails_leaves_nothing(repository: Repository, place: Place, dump: Path) -> None:
    state = place.state()
    with pytest.raises(Canceled):
        repository.write_directory(f"{BACKUP}/a.dir", dump, cancel=Flag(1))
    assert place.state() == state
    (dump / "empty").mkdir()
    with pytest.raises(RepositoryError, match="empty"):
        repository.write_directory(f"{BACKUP}/a.dir", dump / "empty")
    (dump / "link").symlink_to("/etc/passwd")
    with pytest.raises(RepositoryError, match="link"):
        repository.write_directory(f"{BACKUP}/a.dir", dump)
    assert place.state() == state


# -- the place itself --------------------------------------------------------------------------------------------


def test_probing_leaves_nothing(place: Place) -> None:
    place.open().probe()
    assert place.state() == []


WRITER = """
import sys, time
{prelude}
class Slow:
    left = 20 * 2**20
    def read(self, size=-1):
        if not self.left:
            print("stuck", flush=True)
            time.sleep(600)
        size = min(size, self.left)
        self.left -= size
        return bytes(size)
repository.write({key!r}, Slow())
"""


@pytest.fixture
def stuck_writer(repository: Repository, place: Place) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of a write."""
    code = WRITER.format(prelude=place.prelude(), key=f"{BACKUP}/a.dump")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        yield process
        process.kill()


def test_a_killed_writer_leaves_what_can_be_swept(
    repository: Repository, place: Place, stuck_writer: subprocess.Popen[str]
) -> None:
    stuck_writer.send_signal(signal.SIGKILL)
    stuck_writer.wait()
    assert [e.key for e in repository.list()] == ["repository.json"]
    time.sleep(1.1)  # the store's clock shows whole seconds
    assert repository.unfinished_writes(timedelta(hours=1)) == []
    assert repository.unfinished_writes(timedelta(0), prefix="server/other") == []
    found = repository.unfinished_writes(timedelta(0))
    assert len(found) == 1
    assert found[0].key.startswith(BACKUP)
    assert datetime.now(timezone.utc) - found[0].modified < timedelta(minutes=30)
    assert repository.unfinished_writes(timedelta(0), prefix="server/db") == found
    repository.remove_unfinished(found)
    repository.remove_unfinished(found)
    assert repository.unfinished_writes(timedelta(0)) == []
    assert [name for name in place.state() if not name.endswith("repository.json")] == []


def test_a_dump_that_still_grows_is_no_leftover(repository: Repository, stuck_writer: subprocess.Popen[str]) -> None:
    assert stuck_writer.poll() is None
    assert repository.unfinished_writes(timedelta(minutes=30)) == []


def test_the_repository_file_is_readable_by_anything(repository: Repository) -> None:
    content = json.loads(repository.read_bytes("repository.json"))
    assert content.keys() == {"format_version", "uuid", "created_at"}
    assert content["uuid"] == repository.uuid
