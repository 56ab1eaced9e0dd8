"""A dump that is decoded while it is written arrives verified; what cannot be decoded never becomes a backup."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest
from builds import BUILDS, Build, each

from airflow_pgbackup.backup import reading_along
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reading_along import ReadingAlong
from airflow_pgbackup.backup.reference import load_evidence, load_manifest
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import BackupNotFound, Canceled, RepositoryError, ToolError
from airflow_pgbackup.postgres.archive import toc, toc_bytes
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.repository.verification import Verification
from airflow_pgbackup.settings import Settings

FILL = [
    "create table film as select n id, repeat(md5(n::text), 4) title from generate_series(1, 20000) n",
    "create table empty (a int)",
    "select lo_from_bytea(4711, 'a large object')",
]
FORMATS: dict[str, dict[str, Any]] = {
    "custom": {},
    "custom, by pg_dump": {"compress": "none"},
    "plain": {"format": "plain", "compress": "gzip"},
    "directory": {"format": "directory", "jobs": 2},
}


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, *FILL)


def dump_along(
    database: ConnectionParams,
    repository: Repository,
    context: RunContext | None = None,
    *,
    count_rows: bool = False,
    **options: Any,
) -> dict[str, object]:
    """Dump a database and read the dump along."""
    return dump_database(
        connection=database,
        server="s",
        repository=repository,
        options=DumpOptions(**options),
        read_along=True,
        count_rows=count_rows,
        context=context,
    )


def verification(repository: Repository, reference: dict[str, object]) -> Verification:
    (report,) = load_evidence(repository, reference).verifications
    return report


@pytest.mark.parametrize("format", FORMATS)
def test_it_records_what_verify_records(format: str, here: Repository, database: ConnectionParams) -> None:
    said: list[str] = []
    reference = dump_along(database, here, RunContext(log=said.append), **FORMATS[format], count_rows=True)
    assert reference["verified"] == "archive"
    along = verification(here, reference)
    assert {check.name for check in along.checks if check.result == "pass"} == {"integrity", "archive", "source"}
    assert any("with 20,000 rows read to the end while they were dumped" in line for line in said)
    recorded: list[Verification] = []
    context = RunContext(on_verification=recorded.append)
    assert verify(reference=reference, repository=here, context=context)["verified"] == "archive"
    assert sorted(along.tables, key=repr) == sorted(recorded[0].tables, key=repr)


@each(BUILDS)
def test_every_version(build: Build, here: Repository) -> None:
    with PostgresServer(build.bin_dir) as server, server.params.connect() as session:
        for statement in FILL:
            session.execute(statement.encode())
        reference = dump_database(
            connection=server.params,
            server="s",
            repository=here,
            options=DumpOptions(),
            read_along=True,
            context=RunContext(settings=build.settings),
        )
        whole = dump_cluster(
            connection=server.params, server="s", repository=here, options=DumpAllOptions(), read_along=True
        )
    assert (reference["verified"], whole["verified"]) == ("archive", "archive")


def test_encrypted_and_proven_without_a_secret_key(s3: S3Server, database: ConnectionParams) -> None:
    client, owner = s3.client(), pyrage.x25519.Identity.generate()
    repository = open_repository(f"s3://{s3.bucket()}", s3=S3Options(client_factory=lambda: client))
    repository.init()
    context = RunContext(settings=Settings(recipients=(str(owner.to_public()),)))
    for format in ("custom", "directory"):
        reference = dump_along(database, repository, context, **FORMATS[format])
        assert reference["verified"] == "archive"
        along = verification(repository, reference)
        recorded: list[Verification] = []
        reads = RunContext(identities=Identities((owner,)), on_verification=recorded.append)
        verify(reference=reference, repository=repository, context=reads)
        assert sorted(along.tables, key=repr) == sorted(recorded[0].tables, key=repr)


def test_a_tar_archive_is_left_to_verify(here: Repository, database: ConnectionParams) -> None:
    said: list[str] = []
    reference = dump_along(database, here, RunContext(log=said.append), format="tar")
    assert reference["verified"] is None
    assert any("tar format cannot be read while it is written" in line for line in said)


# Does what pg_dump or pg_restore does, but as the test says.
PROGRAM = """#!{python}
import os, subprocess, sys
if "--version" in sys.argv:
    print("{name} (PostgreSQL) 18.99")
    sys.exit()
{body}
"""


def clients(folder: Path, programs: Path, **bodies: str) -> Settings:
    """Return settings with a client whose programs are changed."""
    folder.mkdir()
    for name in ("pg_dump", "pg_dumpall", "pg_restore"):
        body = bodies.get(name, f"os.execv({str(programs / name)!r}, sys.argv)")
        (folder / name).write_text(PROGRAM.format(python=sys.executable, name=name, body=body))
        (folder / name).chmod(0o755)
    return Settings(client_dirs=(str(folder),))


def assert_ends(pid: str) -> None:
    """Check that a process ends; what is left of one that was killed may be reaped a moment later."""
    end = time.monotonic() + 120
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end, "the reader still runs"
        time.sleep(0.01)


FLIPPED = """
data = bytearray(subprocess.run([{program!r}, *sys.argv[1:]], stdout=subprocess.PIPE).stdout)
data[len(data) // 2] ^= 0xff
sys.stdout.buffer.write(data)
"""


def test_a_damaged_dump_never_becomes_a_backup(tmp_path: Path, here: Repository, database: ConnectionParams) -> None:
    """Bytes that rot between pg_dump and us: exit status 0, the right ends, and no reader takes them."""
    programs = BUILDS[-1].bin_dir
    settings = clients(tmp_path / "bin", programs, pg_dump=FLIPPED.format(program=str(programs / "pg_dump")))
    before = [entry.key for entry in here.list()]

    def dump(read_along: bool) -> dict[str, object]:
        return dump_database(
            connection=database,
            server="s",
            repository=here,
            options=DumpOptions(compress="gzip:1"),
            read_along=read_along,
            context=RunContext(settings=replace(settings, compress_by="pg_dump")),
        )

    with pytest.raises(ToolError, match="is not a complete custom dump"):
        dump(True)
    assert [entry.key for entry in here.list()] == before
    assert dump(False)["verified"] is None  # and without reading along it does


@pytest.mark.parametrize(
    "body",
    [
        "os.kill(os.getpid(), 9)",
        "sys.stdin.buffer.read(1000); os.kill(os.getpid(), 9)",
        "sys.exit('out of memory')",
    ],
    ids=["killed at once", "killed in the middle", "without memory"],
)
def test_a_reader_that_cannot_read_says_nothing_about_the_dump(
    body: str, tmp_path: Path, here: Repository, database: ConnectionParams
) -> None:
    settings = clients(tmp_path / "bin", BUILDS[-1].bin_dir, pg_restore=body)
    said: list[str] = []
    reference = dump_along(database, here, RunContext(settings=settings, log=said.append), compress="none")
    assert reference["verified"] is None
    assert load_manifest(here, reference).id == reference["id"]
    assert any("was not verified while it was dumped" in line for line in said)
    assert verify(reference=reference, repository=here)["verified"] == "archive"


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_a_limit_of_the_reader_does_not_end_the_dump(
    format: str, here: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits are for files of others: pg_dump has written more entries, and has held them all in memory."""
    said: list[str] = []
    with monkeypatch.context() as limits:
        limits.setattr(toc, "MAX_ENTRIES", 3)
        limits.setattr(toc_bytes, "MAX_BYTES", 1000)
        reference = dump_along(database, here, RunContext(log=said.append), **FORMATS[format])
        assert reference["verified"] is None
        assert any("was not verified while it was dumped: the table of contents of" in line for line in said), said
    assert not any("has checked it" in line for line in said), said
    assert verify(reference=reference, repository=here)["verified"] == "archive"


def test_a_reader_whose_disk_fails_does_not_end_the_dump_of_a_directory(
    here: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: ArchiveReader) -> ArchiveSummary:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ArchiveReader, "digest", fail)
    said: list[str] = []
    reference = dump_along(database, here, RunContext(log=said.append), **FORMATS["directory"])
    assert reference["verified"] is None
    assert any("reading along failed: OSError: [Errno 5]" in line for line in said), said


def test_a_reader_that_hangs_holds_no_dump_up(
    tmp_path: Path, here: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before it has read a byte, and after it has read them all."""
    monkeypatch.setattr(reading_along, "_HELD", 1 << 10)
    monkeypatch.setattr(reading_along, "_PATIENCE", 0.5)
    for name, body in {"first": "", "last": "sys.stdin.buffer.read(); "}.items():
        body += "import time; time.sleep(3600)"
        said: list[str] = []
        settings = clients(tmp_path / name, BUILDS[-1].bin_dir, pg_restore=body)
        reference = dump_along(database, here, RunContext(settings=settings, log=said.append), compress="none")
        assert reference["verified"] is None
        assert any("the reader made no progress for" in line for line in said), said


def test_a_damaged_dump_is_stopped_before_its_end(
    tmp_path: Path, here: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows damage needs not be dumped: this pg_dump would never end."""
    monkeypatch.setattr(reading_along, "_HELD", 1 << 10)
    program = str(BUILDS[-1].bin_dir / "pg_dump")
    endless = f"""
if "--verbose" not in sys.argv:
    os.execv({program!r}, sys.argv)
data = bytearray(subprocess.run([{program!r}, *sys.argv[1:]], stdout=subprocess.PIPE).stdout)
data[11:600] = b"\\xff" * 589
sys.stdout.buffer.write(data)
while True:
    sys.stdout.buffer.write(bytes(1 << 16))
"""
    settings = clients(tmp_path / "bin", BUILDS[-1].bin_dir, pg_dump=endless)
    with pytest.raises(
        ToolError, match=r"pg_dump was stopped, since its output of .* is not a complete custom dump"
    ) as caught:
        dump_along(database, here, RunContext(settings=settings), compress="none")
    assert "Nothing was kept" in (caught.value.hint or "")
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_an_interrupt_while_the_reader_ends_stops_it(
    tmp_path: Path, here: Repository, database: ConnectionParams
) -> None:
    """As Airflow's execution_timeout does: everything is stored, and pg_restore has not ended."""
    pid = tmp_path / "pid"
    body = f"sys.stdin.buffer.read(); open({str(pid)!r}, 'w').write(str(os.getpid())); import time; time.sleep(3600)"
    settings = clients(tmp_path / "bin", BUILDS[-1].bin_dir, pg_restore=body)

    def interrupt() -> None:
        end = time.monotonic() + 120
        while not (pid.exists() and pid.read_text()) and time.monotonic() < end:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        dump_along(database, here, RunContext(settings=settings), compress="none")
    thread.join()
    assert_ends(pid.read_text())
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_an_upload_that_fails_stops_the_reader_of_a_directory(
    tmp_path: Path, here: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader would never end by itself."""
    pid = tmp_path / "pid"
    body = f"open({str(pid)!r}, 'w').write(str(os.getpid())); import time; time.sleep(3600)"
    settings = clients(tmp_path / "bin", BUILDS[-1].bin_dir, pg_restore=body)
    incoming = here.incoming

    def failing(key: str, directory: Path, *, on_failure: Callable[[BaseException], None], **options: Any) -> Any:
        def fail() -> None:
            end = time.monotonic() + 120
            while not (pid.exists() and pid.read_text()) and time.monotonic() < end:
                time.sleep(0.01)
            on_failure(RepositoryError("the store is full"))

        threading.Thread(target=fail).start()
        return incoming(key, directory, on_failure=on_failure, **options)

    monkeypatch.setattr(here, "incoming", failing)
    with pytest.raises(RepositoryError, match="the store is full"):
        dump_along(database, here, RunContext(settings=settings), format="directory")
    assert_ends(pid.read_text())
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_no_verification_stays_of_a_backup_that_was_removed(
    here: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a prune with other rules, between the commit and the verification."""
    write_bytes = here.write_bytes

    def removing(key: str, data: bytes) -> None:
        if "/verification-" in key:
            here.delete([entry.key for entry in here.list() if entry.key != "repository.json"])
        write_bytes(key, data)

    monkeypatch.setattr(here, "write_bytes", removing)
    with pytest.raises(BackupNotFound, match="was removed"):
        dump_along(database, here)
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_rows_that_differ_from_the_source_are_noticed_before_the_commit(
    here: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ReadingAlong._judge

    def lose_a_row(self: ReadingAlong, error: BaseException | None) -> None:
        whole(self, error)
        assert self.summary is not None
        self.summary.tables = [replace(table, rows=table.rows - 1) for table in self.summary.tables if table.rows]

    monkeypatch.setattr(ReadingAlong, "_judge", lose_a_row)
    with pytest.raises(ToolError, match=r"lacks rows of its source: table public\.film"):
        dump_along(database, here, count_rows=True)
    assert [entry.key for entry in here.list()] == ["repository.json"]


def test_a_store_that_fails_and_a_cancellation_end_the_reader(
    tmp_path: Path, here: Repository, database: ConnectionParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    program = str(BUILDS[-1].bin_dir / "pg_restore")
    body = f"open({str(pid)!r}, 'w').write(str(os.getpid())); os.execv({program!r}, sys.argv)"
    context = RunContext(settings=clients(tmp_path / "bin", BUILDS[-1].bin_dir, pg_restore=body))
    write = here.write

    def run(fault: Callable[[], None], error: type[BaseException]) -> None:
        pid.unlink(missing_ok=True)

        def failing(key: str, source: Any, **options: Any) -> Any:
            if key.endswith(".json"):
                return write(key, source, **options)
            assert source.read(1 << 16)  # the table of contents, after which the reader starts pg_restore
            end = time.monotonic() + 120
            while not (pid.exists() and pid.read_text()):
                assert time.monotonic() < end, "the reader did not start"
                time.sleep(0.01)
            fault()
            return write(key, source, **options)

        monkeypatch.setattr(here, "write", failing)
        with pytest.raises(error):
            dump_along(database, here, context, compress="none")
        assert_ends(pid.read_text())
        assert [entry.key for entry in here.list()] == ["repository.json"]

    def full() -> None:
        raise RepositoryError("the store is full")

    run(full, RepositoryError)
    run(context.cancel.set, Canceled)
