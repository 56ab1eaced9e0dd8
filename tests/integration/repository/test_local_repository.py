"""What only a folder can get wrong."""

from __future__ import annotations

import errno
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_pgbackup.errors import AlreadyExists, RepositoryError, RepositoryNotFound, VerificationFailed
from airflow_pgbackup.repository import nofollow
from airflow_pgbackup.repository.local.errors import OpenFile
from airflow_pgbackup.repository.local.repository import LocalRepository

MIB = 1024**2


def modes(root: Path) -> set[tuple[str, int]]:
    return {("dir" if p.is_dir() else "file", p.stat().st_mode & 0o777) for p in [root, *root.rglob("*")]}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        repository = LocalRepository(tmp_path / "new" / "pg")
        repository.init()
        repository.write_bytes("a/b/c", b"1")
        dump = tmp_path / "dump"
        dump.mkdir()
        (dump / "toc.dat").write_bytes(b"1")
        repository.write_directory("a/b/d", dump)
    finally:
        os.umask(before)
    assert modes(tmp_path / "new" / "pg") == {("dir", 0o700), ("file", 0o600)}


def test_the_missing_volume_names_this_host(tmp_path: Path, repository: LocalRepository) -> None:
    """As on another worker, or with the volume not mounted: nothing, or the bare mount point."""
    repository.write_bytes("s/d/x", b"1")
    shutil.rmtree(tmp_path / "pg")
    for empty in (False, True):
        if empty:
            (tmp_path / "pg").mkdir()
        for call in (
            lambda r: r.uuid,
            lambda r: r.write_bytes("s/d/x", b"1"),
            lambda r: r.require("0b9f3f3e-1c44-4c6c-9a4e-5f7d1a2b3c4d"),
        ):
            with pytest.raises(RepositoryNotFound) as caught:
                call(LocalRepository(tmp_path / "pg"))
            assert socket.gethostname() in caught.value.message
            assert "shared volume" in (caught.value.hint or "")
            assert "s3://" in (caught.value.hint or "")
    assert list((tmp_path / "pg").iterdir()) == []


def test_empty_directories_of_a_crash(tmp_path: Path, repository: LocalRepository) -> None:
    """A kill between two mkdir leaves those above a backup, too. Mount points and what others make stay."""
    repository.write_bytes("s/d/20261122T020000Z-3f9ac1/x", b"1")
    ours = ["s/new", "server", "other/@sets", "other/@globals/20261122T020000Z-3f9ac1/0ddba115"]
    ours += ["s/@sets/20261122T020000Z-3f9ac1"]
    others = {"volume": 0o755, "s/volume": 0o755, "a b": 0o700, "s/d/of another": 0o700, "s/.git": 0o700}
    for path in ours:
        (tmp_path / "pg" / path).mkdir(mode=0o700, parents=True)
        for above in (tmp_path / "pg" / path).parents[: len(path.split("/")) - 1]:
            above.chmod(0o700)
    for path, mode in others.items():
        (tmp_path / "pg" / path).mkdir()
        (tmp_path / "pg" / path).chmod(mode)
    found = repository.unfinished_writes(timedelta(0))
    assert {one.key for one in found} == set(ours)
    assert repository.unfinished_writes(timedelta(hours=1)) == []
    repository.remove_unfinished(found)
    left = {str(path.relative_to(tmp_path / "pg")) for path in (tmp_path / "pg").rglob("*")}
    backup = {"s", "s/d", "s/d/20261122T020000Z-3f9ac1", "s/d/20261122T020000Z-3f9ac1/x", "repository.json"}
    assert left == others.keys() | backup


def test_a_volume_that_goes_away_is_not_made_anew(tmp_path: Path, repository: LocalRepository) -> None:
    class Unmounting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            shutil.rmtree(tmp_path / "pg", ignore_errors=True)
            return super().read(size)

    with pytest.raises(RepositoryNotFound):
        repository.write("s/d/x", Unmounting(b"1"))
    with pytest.raises(RepositoryNotFound):
        repository.write_bytes("s/d/y", b"1")
    with pytest.raises(RepositoryNotFound):
        list(repository.list())
    with pytest.raises(RepositoryNotFound):
        repository.probe()
    assert not (tmp_path / "pg").exists()


def test_symbolic_links_lead_nowhere(tmp_path: Path, repository: LocalRepository) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root = tmp_path / "pg"
    (root / "link").symlink_to(outside)
    (root / "s").mkdir()
    (root / "s" / "file").symlink_to(outside / "secret")
    for key in ("link/secret", "link/new", "s/file"):
        for call in (
            repository.read_bytes,
            repository.stat,
            repository.local_path,
            lambda key: repository.write_bytes(key, b"1"),
            lambda key: repository.delete([key]),
            repository.list,
        ):
            with pytest.raises(RepositoryError, match="symbolic link"):
                call(key)
    assert [e.key for e in repository.list()] == ["repository.json"]
    assert repository.folders() == ["s"]
    assert {p.name: p.read_bytes() for p in outside.iterdir()} == {"secret": b"secret"}


def test_the_root_itself_may_be_a_link(tmp_path: Path, repository: LocalRepository) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "pg")
    other = LocalRepository(tmp_path / "link")
    other.require(repository.uuid)
    other.write_bytes("a/b", b"1")
    assert repository.read_bytes("a/b") == b"1"


def test_what_is_no_plain_file(tmp_path: Path, repository: LocalRepository) -> None:
    os.mkfifo(tmp_path / "pg" / "pipe")
    (tmp_path / "pg" / "lost+found").mkdir(mode=0o000)
    assert [e.key for e in repository.list()] == ["repository.json"]
    assert repository.folders() == []
    assert repository.stat("pipe") is None
    with pytest.raises(RepositoryError, match="not a regular file"):
        repository.read_bytes("pipe")
    with pytest.raises(AlreadyExists):
        repository.write_bytes("pipe", b"")


@pytest.mark.parametrize("name", [".snapshot", ".snapshots", ".zfs", "#snapshot", "@eaDir"])
def test_snapshots_in_the_root_are_left_out(tmp_path: Path, repository: LocalRepository, name: str) -> None:
    place = "server/db/20261122T020000Z-3f9ac1"
    for folder in (tmp_path / "pg" / name / "hourly.0" / place, tmp_path / "pg" / place):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(b"{}")
        (folder / ".pgbackup-tmp-0123456789abcdef").write_bytes(b"half a dump")
    assert [entry.key for entry in repository.list()] == ["repository.json", f"{place}/manifest.json"]
    found = repository.unfinished_writes(timedelta(seconds=-5))
    assert [one.key for one in found] == [f"{place}/.pgbackup-tmp-0123456789abcdef"]
    assert repository.folders() == ["server"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_mount_with_one_owner_and_mode(
    number: int,
    tmp_path: Path,
    repository: LocalRepository,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As of SMB or FUSE: everything belongs to one user, and nobody else may change a mode."""

    def refused(descriptor: int, mode: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchmod", refused)
    monkeypatch.setattr(nofollow, "_OPEN_MOUNTS", set())
    make = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode=0o777, **kwargs: make(path, flags, mode | 0o044, **kwargs))
    before = os.umask(0)
    try:
        for name in "ab":
            repository.write_bytes(f"server/{name}", b"1")
        (tmp_path / "app.dir").mkdir()
        (tmp_path / "app.dir" / "toc.dat").write_bytes(b"1")
        repository.write_directory("server/app.dir", tmp_path / "app.dir")
    finally:
        os.umask(before)
    assert [entry.key for entry in repository.list()] == [
        "repository.json",
        "server/a",
        "server/app.dir/toc.dat",
        "server/b",
    ]
    (warning,) = caplog.messages
    assert "sets mode 0644 on its files" in warning


FULL = """
import io, resource, sys
from pathlib import Path
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.local.repository import LocalRepository
repository = LocalRepository(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**20 + 1000, 3 * 2**20 + 1000))
try:
    repository.write("s/d/x", io.BytesIO(bytes(4 * 2**20)))
except RepositoryError as error:
    print(error)
"""


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, repository: LocalRepository) -> None:
    run = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "pg")], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("the repository is full: cannot write")
    assert "file too large" in run.stdout
    assert "prune" in run.stdout
    assert sorted(p.name for p in (tmp_path / "pg").rglob("*")) == ["repository.json"]


DENIED = """
import os, sys
from pathlib import Path
from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.local.repository import LocalRepository
import jsonschema, encodings.idna
repository = LocalRepository(Path(sys.argv[1]))
_ = repository.uuid
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
for call in (lambda: repository.write_bytes("s/d/x", b"1"), lambda: repository.delete(["s/y"])):
    try:
        call()
    except RepositoryError as error:
        print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Whose path any user may follow; pytest's own directories are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_missing_rights_name_the_user(open_folder: Path) -> None:
    repository = LocalRepository(open_folder / "pg")
    repository.init()
    repository.write_bytes("s/y", b"1")
    (open_folder / "pg").chmod(0o555)
    (open_folder / "pg" / "s").chmod(0o555)
    try:
        code = [sys.executable, "-c", DENIED, str(open_folder / "pg")]
        run = subprocess.run(code, capture_output=True, text=True, check=True)
    finally:
        (open_folder / "pg").chmod(0o700)
        (open_folder / "pg" / "s").chmod(0o700)
    write, delete = run.stdout.splitlines()
    assert "cannot write" in write
    assert "permission denied" in write
    assert "lacks read and write access" in write
    assert "s/y (permission denied)" in delete
    assert [e.key for e in repository.list("s")] == ["s/y"]


def test_a_bad_disk_is_an_error_of_the_repository() -> None:
    # Address 0 of a process is never mapped: a plain file, by its type, whose first byte cannot be read.
    stream = io.BufferedReader(OpenFile(os.open("/proc/self/mem", os.O_RDONLY), "file:///pg/s/d/x"))
    with stream, pytest.raises(RepositoryError, match="cannot read file:///pg/s/d/x: input/output error"):
        stream.read(10)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system, where this machine has one at one of the usual places."""
    usual = [place for place in ("/dev/shm", "/var/tmp") if os.access(place, os.W_OK)]
    places = [place for place in usual if Path(place).stat().st_dev != tmp_path.stat().st_dev]
    with tempfile.TemporaryDirectory(dir=(places or usual)[0]) as folder:
        yield Path(folder)


def test_a_directory_from_another_file_system_is_copied(
    tmp_path: Path, repository: LocalRepository, elsewhere: Path
) -> None:
    (elsewhere / "blobs").mkdir()
    (elsewhere / "toc.dat").write_bytes(b"toc")
    (elsewhere / "blobs" / "1.dat").write_bytes(bytes(3 * MIB))
    with pytest.raises(VerificationFailed, match="checksum mismatch"):
        repository.write_directory("s/d", elsewhere, digests={"toc.dat": "0" * 64})
    assert sorted(p.name for p in (tmp_path / "pg").rglob("*")) == ["repository.json"]
    repository.write_directory("s/d", elsewhere)
    assert {e.key: e.size for e in repository.list("s")} == {"s/d/toc.dat": 3, "s/d/blobs/1.dat": 3 * MIB}
    assert modes(tmp_path / "pg" / "s") == {("dir", 0o700), ("file", 0o600)}


def test_a_directory_on_the_same_file_system_is_moved(tmp_path: Path, repository: LocalRepository) -> None:
    with repository.scratch("s/d") as scratch:
        (scratch / "out").mkdir()
        (scratch / "out" / "toc.dat").write_bytes(b"toc")
        inode = (scratch / "out" / "toc.dat").stat().st_ino
        repository.write_directory("s/d", scratch / "out")
    assert (tmp_path / "pg" / "s" / "d" / "toc.dat").stat().st_ino == inode


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links(
    repository: LocalRepository, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    repository.write_bytes("a/b", b"first")

    class Overtaken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            path = repository.local_path("a/c")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"theirs")
            return super().read(size)

    with pytest.raises(AlreadyExists):
        repository.write("a/c", Overtaken(b"ours"))
    assert {e.key: repository.read_bytes(e.key) for e in repository.list("a")} == {"a/b": b"first", "a/c": b"theirs"}


def test_free_bytes(repository: LocalRepository, tmp_path: Path) -> None:
    free = repository.free_bytes()
    assert abs(free - shutil.disk_usage(tmp_path).free) < 1024 * MIB
