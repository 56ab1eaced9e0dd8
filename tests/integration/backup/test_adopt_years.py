"""A directory of 400 dumps, as somebody's scripts left it: every file is accounted for, every time is that of its name
though a copy has set all files to today, and then prune keeps what a reading of the names says."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import zstandard

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.retention import Policy

FIRST = date(2024, 9, 3)
NIGHTS = 396
AT = time(2, 13, 5)
LAST = FIRST + timedelta(days=NIGHTS - 1)


def dumped(server: PostgresServer, params: ConnectionParams, *options: str) -> bytes:
    with client_environment(params) as env:
        command = [server.bin_dir / "pg_dump", "-w", *options]
        return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout


def with_header(archive: bytes, at: datetime) -> bytes:
    """Return a custom archive of another time: seven integers of a sign and four bytes each, struct tm."""
    start = 11 + 1  # magic, version, sizes, format, compression
    numbers = (at.second, at.minute, at.hour, at.day, at.month - 1, at.year - 1900)
    times = b"".join(b"\0" + number.to_bytes(4, "little") for number in numbers)
    return archive[:start] + times + archive[start + len(times) :]


@pytest.fixture
def years(
    tmp_path: Path, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> tuple[Path, dict[str, tuple[str, datetime, str]]]:
    """The directory, and what each file is by its name: series, time, and where the time has to come from."""
    tables = ("create table film (title text)", "insert into film select 'film ' || n from generate_series(1, 50) n")
    crm = fresh_database(server18, "crm", *tables)
    billing = fresh_database(server18, "billing", *tables)
    script = dumped(server18, crm)
    archive = dumped(server18, crm, "-Fc", "-Z1")
    directory, expected = tmp_path / "old", {}
    styles: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
        ("crm_%Y-%m-%d.sql.gz", gzip.compress),
        ("nightly/crm-%Y%m%d-%H%M.dump", bytes),
        ("berlin/crm_%d.%m.%Y.sql.bz2", bz2.compress),
        ("%Y/%m/%d/crm.sql.xz", lambda text: lzma.compress(text, preset=0)),
    )

    def write(name: str, data: bytes) -> None:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)  # and so has today's time

    for number in range(NIGHTS):
        at = datetime.combine(FIRST + timedelta(days=number), AT, timezone.utc)
        style, compress = styles[number % len(styles)]
        name = at.strftime(style)
        noon, origin = at.replace(hour=12, minute=0, second=0), "name"
        if style.endswith(".dump"):
            # Every tenth was dumped again from a restored copy, long after.
            again = number % 40 == 1
            write(name, with_header(archive, datetime(2013, 5, 1, 4, tzinfo=timezone.utc) if again else at))
            noon, origin = (at.replace(second=0), "name") if again else (at, "header")
        else:
            # In the first weeks nobody changed anything, so the scripts are equal.
            changed = script if number < 20 else script.replace(b"film 7\n", f"film {number} of 7\n".encode())
            write(name, compress(changed))
        expected[name] = ("old/crm", noon, origin)

    write("crm_2025-10-10.sql.gz", gzip.compress(script)[:-40])
    write("nightly/crm-20251011-0213.dump", archive[:-20])
    # The newest by its name, and of another database.
    other = zstandard.compress(dumped(server18, billing, "--create"))
    write("crm_2026-01-02.sql.zst", other)
    expected["crm_2026-01-02.sql.zst"] = ("old/billing", datetime(2026, 1, 2, 12, tzinfo=timezone.utc), "name")
    first = next(iter(expected))
    write(first.replace(".sql.gz", " (copy).sql.gz"), (directory / first).read_bytes())
    return directory, expected


def kept_by_reading(times: dict[str, datetime], days: int, months: int) -> set[str]:
    """Return the names that the rules keep of one series, in the plainest way."""
    kept = set()
    for count, period in ((days, "%Y-%m-%d"), (months, "%Y-%m")):
        newest: dict[str, str] = {}
        for name in sorted(times, key=times.__getitem__):
            newest[times[name].strftime(period)] = name
        kept |= {newest[key] for key in sorted(newest)[-count:]}
        if len(newest) < count:
            kept.add(min(times, key=times.__getitem__))
    return kept


def test_four_hundred_files_then_prune(
    tmp_path: Path, years: tuple[Path, dict[str, tuple[str, datetime, str]]]
) -> None:
    directory, expected = years
    files = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert len(files) == 400
    today = datetime.now(timezone.utc).date()
    assert {datetime.fromtimestamp((directory / name).stat().st_mtime, timezone.utc).date() for name in files} <= {
        today,
        today - timedelta(days=1),
    }
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    result: Any = adopt(repository=repository, sources=[directory], server="old")

    found = {one["path"]: one for one in result["found"]}
    skipped = {one["path"]: one["reason"] for one in result["skipped"]}
    assert found.keys() | skipped.keys() == files
    assert not found.keys() & skipped.keys()
    assert {
        name: (one["series"], datetime.fromisoformat(one["started_at"]), one["time_from"])
        for name, one in found.items()
    } == expected
    copy = next(name for name in files if "(copy)" in name)
    assert skipped.keys() == {"crm_2025-10-10.sql.gz", "nightly/crm-20251011-0213.dump", copy}
    assert skipped[copy] == f"the same bytes as {copy.replace(' (copy)', '')}"
    for name in skipped.keys() - {copy}:
        assert "is truncated after" in skipped[name]
    assert result["patterns"] == {
        "%Y-%m-%d": 100,
        "%Y%m%d-%H%M": 10,
        "%d.%m.%Y": 99,
        "%Y/%m/%d": 99,
    }
    assert len(result["adopted"]) == len(expected) == 397
    by_id = {}
    for reference in result["adopted"]:
        origin = load_manifest(repository, reference).origin
        by_id[reference["series"], reference["id"]] = origin["adopted_from"]
        assert origin["time_from"] == expected[str(origin["adopted_from"])][2]

    policy = Policy(keep_daily=30, keep_monthly=12, minimum_level=None)
    outcome: Any = prune(repository=repository, policy=policy, dry_run=False)
    kept = {by_id[one["series"], one["id"]] for one in outcome["decisions"] if one["keep"]}
    read = {name: at for name, (series, at, _) in expected.items() if series == "old/crm"}
    by_reading = kept_by_reading(read, 30, 12)
    assert kept == by_reading | {"crm_2026-01-02.sql.zst"}
    assert len(by_reading) == 30 + 10, "the newest of two months are among the days"
    assert outcome["removed"] == 396 - len(by_reading)

    again: Any = adopt(repository=repository, sources=[directory], server="old")
    assert len(again["present"]) == len(kept), "a second run finds what is left, and adopts the others again"
