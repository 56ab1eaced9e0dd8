"""A rehearsal that is canceled, killed, or loses its server leaves nothing behind, and records nothing false."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg import sql

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.rehearsal import disk_space
from airflow_pgbackup.backup.rehearsal import run as rehearse
from airflow_pgbackup.backup.rehearsal.definitions import Definitions
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import Canceled, NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.private_directory import sweep
from airflow_pgbackup.repository.base import Repository

# The index takes four minutes to build: whatever happens meanwhile happens during the restore.
SLOW = (
    "create table t (a int)",
    "insert into t select n from generate_series(1, 2400) n",
    "create function slow(int) returns int immutable language plpgsql as"
    " $$ begin if current_setting('jit') = 'off' then perform pg_sleep(0.1); end if; return $1; end $$",
    "set jit = on",
    "create index slow_idx on t (slow(a))",
)
QUICK = ("create table t (a int)", "insert into t select n from generate_series(1, 600) n")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, where nothing may be left; short, for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def slow_dump(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> dict[str, object]:
    return dump_database(
        connection=fresh_database(server18, None, *SLOW), server="s", repository=here, options=DumpOptions()
    )


def verifications(repository: Repository) -> list[str]:
    return [entry.key.rpartition("-")[2] for entry in repository.list() if "verification-" in entry.key]


def servers(temporary: Path) -> list[int]:
    """Every process of a throwaway server, whoever's child it is by now."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"autovacuum=off" in command and os.fsencode(temporary) in command:
            found.append(int(entry.name))
    return found


def postmaster(temporary: Path) -> int:
    """The process that the supervisor started."""
    (pid,) = [pid for pid in servers(temporary) if Path(f"/proc/{pid}/exe").resolve().name == "postgres"]
    return pid


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def restoring(temporary: Path) -> bool:
    """pg_restore has come to the index; other servers on this machine take no part."""
    for entry in Path("/proc").iterdir():
        try:
            indexing = entry.name.isdigit() and b" CREATE INDEX" in (entry / "cmdline").read_bytes()
            if indexing and temporary in (entry / "cwd").resolve().parents:
                return True
        except OSError:
            continue
    return False


def nothing_is_left(temporary: Path) -> None:
    end = time.monotonic() + 60
    while (left := [*servers(temporary), *temporary.iterdir()]) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []


def test_stopped_during_the_restore(slow_dump: dict[str, object], here: Repository, temporary: Path) -> None:
    cancel = Cancel()
    stopper = threading.Thread(target=lambda: (wait_for(lambda: restoring(temporary)), cancel.set()))
    stopper.start()
    with pytest.raises(Canceled):
        verify(reference=slow_dump, repository=here, level="restore", context=RunContext(cancel=cancel))
    stopper.join()
    nothing_is_left(temporary)
    assert verifications(here) == []


def test_stopped_during_the_comparison(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    temporary: Path,
) -> None:
    reference, artifact = quick_dump(server18, fresh_database, here)
    cancel = Cancel()
    with pytest.raises(Canceled):
        rehearse_it(reference, artifact, here, cancel=cancel, on_restored=lambda _: cancel.set())
    nothing_is_left(temporary)


class Timeout(BaseException):
    """As AirflowTaskTimeout, which Airflow raises in a signal handler; it calls on_kill only afterwards."""


def test_a_timeout_during_the_comparison_ends_what_other_threads_read(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, temporary: Path
) -> None:
    reference, artifact = quick_dump(server18, fresh_database, here, "create table other as select 1 a")
    main, timed_out_at, holding = threading.get_ident(), [], []

    def handler(*_: object) -> None:
        timed_out_at.append(time.monotonic())
        raise Timeout

    def hold(copy: ConnectionParams) -> None:
        holding.append(copy.with_database(str(reference["database"])).connect(autocommit=False))
        holding[0].execute("lock table t in access exclusive mode")
        threading.Thread(target=interrupt, args=(copy,)).start()

    def interrupt(copy: ConnectionParams) -> None:
        with copy.connect() as connection:
            waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'COPY %'"
            wait_for(lambda: connection.execute(waiting).fetchone() == (1,))
        signal.pthread_kill(main, signal.SIGALRM)

    old = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Timeout):
            rehearse_it(reference, artifact, here, on_restored=hold)
    finally:
        signal.signal(signal.SIGALRM, old)
        holding[0].close()
    assert time.monotonic() - timed_out_at[0] < 60, "it ended at its deadline"
    nothing_is_left(temporary)


def quick_dump(
    server: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository, *more: str
) -> tuple[dict[str, object], Path]:
    database = fresh_database(server, None, *QUICK, *more)
    reference = dump_database(connection=database, server="s", repository=here, options=DumpOptions())
    manifest = load_manifest(here, reference)
    path = here.local_path(manifest.artifact_key)
    assert path is not None
    return reference, path


def rehearse_it(
    reference: dict[str, object],
    artifact: Path,
    here: Repository,
    *,
    on_restored: Callable[[ConnectionParams], None],
    cancel: Cancel | None = None,
) -> rehearse.Rehearsal:
    return rehearse.rehearse(
        artifact,
        load_manifest(here, reference),
        reader=Client(postgres_bin_dir(18), (18, 4), "test"),
        context=RunContext(deadline=120, cancel=cancel or Cancel()),
        on_restored=on_restored,
    )


def test_a_server_killed_during_the_restore_proves_nothing(
    slow_dump: dict[str, object], here: Repository, temporary: Path
) -> None:
    verify(reference=slow_dump, repository=here)

    def kill() -> None:
        wait_for(lambda: restoring(temporary))
        os.kill(postmaster(temporary), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(NotProven, match=r"ended during the rehearsal: .* HINT: It was killed from outside"):
        verify(reference=slow_dump, repository=here, level="restore")
    killer.join()
    nothing_is_left(temporary)
    assert verifications(here) == ["pass.json", "notproven.json"]
    assert verify(reference=slow_dump, repository=here, level="integrity")["verified"] == "archive"


def test_a_copy_that_accepts_no_connection_proves_nothing(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    temporary: Path,
) -> None:
    reference, artifact = quick_dump(server18, fresh_database, here)

    def close(server: ConnectionParams) -> None:
        with server.open_session() as session:
            session.execute(sql.SQL("alter database {} allow_connections false").format(name))

    name = sql.Identifier(str(reference["database"]))
    with pytest.raises(NotProven, match=r"the throwaway PostgreSQL .* not currently accepting connections"):
        rehearse_it(reference, artifact, here, on_restored=close)
    nothing_is_left(temporary)


def test_a_server_killed_during_the_comparison_proves_nothing(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    temporary: Path,
) -> None:
    reference, artifact = quick_dump(server18, fresh_database, here)
    with pytest.raises(NotProven, match="ended during the rehearsal"):
        rehearse_it(reference, artifact, here, on_restored=lambda _: os.kill(postmaster(temporary), signal.SIGKILL))
    nothing_is_left(temporary)


def test_a_disk_that_fills_up_proves_nothing(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    temporary: Path,
) -> None:
    """A trigger stands for the disk: what PostgreSQL says is the same."""
    reference, _ = quick_dump(
        server18,
        fresh_database,
        here,
        "create function full_disk(int) returns int immutable language plpgsql as $$ begin"
        " if current_setting('jit') = 'off' then raise exception 'could not extend file \"base/1/2\": "
        "No space left on device' using errcode = 'disk_full'; end if; return $1; end $$",
        "set jit = on",
        "create index on t (full_disk(a))",
    )
    with pytest.raises(NotProven, match="No space left on device"):
        verify(reference=reference, repository=here, level="restore")
    nothing_is_left(temporary)
    assert verifications(here) == ["notproven.json"]


KILLED = """
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.repository.open import open_repository
verify(reference={reference!r}, repository=open_repository({uri!r}), level="restore")
"""


def test_nothing_outlives_a_worker_that_is_killed(
    slow_dump: dict[str, object], here: Repository, temporary: Path
) -> None:
    code = KILLED.format(reference=slow_dump, uri=here.uri)
    worker = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(temporary)})
    wait_for(lambda: restoring(temporary))
    assert servers(temporary)
    worker.kill()
    worker.wait()
    wait_for(lambda: not servers(temporary))
    # As the next run does: the copy of the artifact has no other holder, once the last process has ended.
    wait_for(lambda: (sweep(temporary), not list(temporary.iterdir()))[1])
    nothing_is_left(temporary)
    assert verifications(here) == []


@pytest.mark.parametrize("way", ["function at restore", "superuser"])
def test_what_runs_inside_is_contained(
    way: str,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    temporary: Path,
    tmp_path: Path,
) -> None:
    """As root it is a user that nobody else is; it has no network, and writes nothing outside."""
    shell = f"id -u; cat /proc/net/dev | grep -c :; touch {tmp_path}/escaped 2>&1; true"
    probe = f"""create function probe(int) returns int language plpgsql as $f$ begin
        if current_setting('jit') = 'off' then
            create table if not exists public.said (line text);
            if not exists (select from public.said) then copy public.said from program '{shell}'; end if;
        end if; return $1; end $f$"""
    more = (probe, "set jit = on", "alter table t add check (probe(a) > 0)") if way == "function at restore" else ()
    reference, artifact = quick_dump(server18, fresh_database, here, *more)
    said: list[str] = []

    def look(server: ConnectionParams) -> None:
        with server.with_database(str(reference["database"])).connect() as session:
            if way == "superuser":
                session.execute("create table public.said (line text)")
                session.execute(f"copy public.said from program '{shell}'".encode())
            said.extend(line for (line,) in session.execute("select line from public.said"))

    found = rehearse_it(reference, artifact, here, on_restored=look)
    assert [note for note in found.notes if note.startswith("uncontained")] == []
    assert (said[0] == str(os.geteuid())) == (os.geteuid() != 0)
    assert said[1] == "1"  # the loopback alone
    assert not (tmp_path / "escaped").exists()
    assert ("table", "public.said") in [(difference.kind, difference.name) for difference in found.differences]


def test_a_wrong_copy_is_a_failure_all_the_same(
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    here: Repository,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through verify: the file says fail, and names the table."""
    reference, _ = quick_dump(server18, fresh_database, here)
    original = rehearse.restore_copy

    def altered(dump: RehearsedDump, definitions: Definitions, server: RehearsalServer) -> object:
        copy = original(dump, definitions, server)
        with server.params.with_database(str(reference["database"])).connect() as session:
            session.execute("delete from t where a = 1")
        return copy

    monkeypatch.setattr(rehearse, "restore_copy", altered)
    with pytest.raises(VerificationFailed, match=r"table data public\.t found 599 rows, expected 600"):
        verify(reference=reference, repository=here, level="restore")
    assert verifications(here) == ["fail.json"]
    nothing_is_left(temporary)


def test_a_nearly_full_disk_is_left_to_other_tasks(
    slow_dump: dict[str, object], here: Repository, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is filled by others here: the rehearsal ends all the same."""
    usage = shutil.disk_usage

    def nearly_full(path: os.PathLike[str]) -> object:
        found = usage(path)
        return found._replace(free=0) if restoring(temporary) else found

    monkeypatch.setattr(disk_space.shutil, "disk_usage", nearly_full)
    with pytest.raises(NotProven, match="nearly filled the disk") as caught:
        verify(reference=slow_dump, repository=here, level="restore")
    assert "temp_dir" in (caught.value.hint or "")
    assert verifications(here) == ["notproven.json"]
    nothing_is_left(temporary)
