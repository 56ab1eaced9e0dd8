"""What the plan of an adoption makes of names and times together."""

from __future__ import annotations

import errno
import io
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.adopt.found_dump import read_dump
from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.errors import ClientError
from airflow_pgbackup.postgres.archive.sniff import sniff_file
from airflow_pgbackup.repository.local.repository import LocalRepository

MARCH = datetime(2025, 3, 15, 2, 13, 5, tzinfo=timezone.utc)
LOST = datetime(2026, 1, 5, 9, 30, tzinfo=timezone.utc)
END = "--\n-- PostgreSQL database dump complete\n--\n\n"


def script(text: str, tables: int = 0, database: str | None = None) -> bytes:
    objects = "".join(
        f"--\n-- Name: t{n}; Type: TABLE; Schema: public; Owner: a\n--\n\nCREATE TABLE public.t{n} (a integer);\n\n\n"
        f"--\n-- Data for Name: t{n}; Type: TABLE DATA; Schema: public; Owner: a\n--\n\n"
        f"COPY public.t{n} (a) FROM stdin;\n\\.\n\n\n"
        for n in range(tables)
    )
    connect = f"\\connect {database}\n\n" if database else ""
    return f"--\n-- PostgreSQL database dump\n--\n\n{connect}SELECT '{text}';\n\n{objects}{END}".encode()


def write(directory: Path, name: str, at: datetime = LOST, data: bytes | None = None) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(script(name) if data is None else data)
    os.utime(path, (at.timestamp(), at.timestamp()))


def plan(repository: LocalRepository, *sources: Path, **more: Any) -> Any:
    return adopt(repository=repository, sources=sources, server="s", **{"dry_run": True, **more})


def times(result: Any) -> dict[str, tuple[str, str]]:
    found = sorted(result["found"], key=lambda one: one["path"])
    return {one["path"]: (one["started_at"][:16].replace("T", " "), one["time_from"]) for one in found}


def reasons(result: Any) -> dict[str, str]:
    return {one["path"]: one["reason"] for one in result["skipped"]}


def test_a_name_with_only_a_month_leaves_the_day_to_the_file(repository: LocalRepository, tmp_path: Path) -> None:
    directory = tmp_path / "dumps"
    for day in range(3):
        write(directory, f"2025-03/crm_{15 + day}.sql", MARCH + timedelta(days=day))
    write(directory, "2025-03/crm_end.sql", MARCH.replace(month=4, day=1))  # it ended after midnight
    result = plan(repository, directory, database_patterns=["crm_*=crm"])
    assert times(result) == {
        "2025-03/crm_15.sql": ("2025-03-15 02:13", "name"),
        "2025-03/crm_16.sql": ("2025-03-16 02:13", "name"),
        "2025-03/crm_17.sql": ("2025-03-17 02:13", "name"),
        "2025-03/crm_end.sql": ("2025-04-01 02:13", "name"),
    }
    assert all("the name gives only the month" in one["notes"] for one in result["found"])


def test_a_month_is_not_a_day_if_a_copy_has_set_the_times_of_the_files(
    repository: LocalRepository, tmp_path: Path
) -> None:
    directory = tmp_path / "dumps"
    for name in ("2025-03/crm_15.sql", "2025-03/crm_16.sql", "crm_2025-05_1.sql", "crm_2025-05_2.sql"):
        write(directory, name)
    write(directory, "crm_2025-04.sql")
    write(directory, "2025-06/01/crm.sql")
    write(directory, "v2024.10/crm.sql")
    result = plan(repository, directory, database_patterns=["crm*=crm"])
    assert times(result) == {
        "2025-06/01/crm.sql": ("2025-06-01 12:00", "name"),
        "crm_2025-04.sql": ("2025-04-01 12:00", "name"),
        "v2024.10/crm.sql": ("2026-01-05 09:30", "mtime"),
    }
    for reason in reasons(result).values():
        assert "its name gives only the month, and its file is of another one; use --time-pattern %Y-%m" in reason
    assert len(reasons(result)) == 4
    given = plan(repository, directory, database_patterns=["crm*=crm"], time_patterns=["%Y-%m"])
    assert times(given)["2025-03/crm_15.sql"] == ("2025-03-01 12:00", "name")


def test_copies_within_the_month_are_reported(repository: LocalRepository, tmp_path: Path) -> None:
    for day in range(3):
        write(tmp_path / "dumps", f"2025-03/crm_{15 + day}.sql", MARCH + timedelta(minutes=day))
    result = plan(repository, tmp_path / "dumps", database_patterns=["crm_*=crm"])
    assert (
        "the files of 3 dumps of s/crm were all last written on one day, perhaps when they were copied"
        in result["warnings"]
    )


def test_the_file_gives_the_time_of_the_day_in_its_name(repository: LocalRepository, tmp_path: Path) -> None:
    directory = tmp_path / "dumps"
    for hour in (2, 22):
        write(directory, f"2025-03-15/crm_{hour}00.sql", MARCH.replace(hour=hour))
        write(directory, f"2025-03-16/crm_{hour:02}00.sql")
    result = plan(repository, directory, database_patterns=["crm_*=crm"])
    assert times(result) == {
        "2025-03-15/crm_200.sql": ("2025-03-15 02:13", "name"),
        "2025-03-15/crm_2200.sql": ("2025-03-15 22:13", "name"),
        "2025-03-16/crm_0200.sql": ("2025-03-16 12:00", "name"),
        "2025-03-16/crm_2200.sql": ("2025-03-16 12:00", "name"),
    }
    assert any(warning.startswith("2 dumps of s/crm have the same time") for warning in result["warnings"])


def test_a_copy_on_the_day_of_its_name_is_not_another_dump(repository: LocalRepository, tmp_path: Path) -> None:
    write(tmp_path / "dumps", "crm_2025-03-15.sql", MARCH, script("x"))
    write(tmp_path / "dumps", "crm_2025-03-15 (copy).sql", MARCH + timedelta(hours=3), script("x"))
    result = plan(repository, tmp_path / "dumps")
    assert times(result) == {"crm_2025-03-15.sql": ("2025-03-15 02:13", "name")}


def test_a_file_that_is_written_during_the_plan_is_not_of_its_start(
    repository: LocalRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime.now(timezone.utc)
    later = start + timedelta(hours=5)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return later if read else start

    read: list[object] = []

    def reads(*args: Any) -> Any:
        read.append(args)
        return read_dump(*args)

    monkeypatch.setattr("airflow_pgbackup.backup.adopt.planner.read_dump", reads)
    monkeypatch.setattr("airflow_pgbackup.backup.adopt.planner.datetime", Clock)
    write(tmp_path / "dumps", "crm.sql", later - timedelta(hours=1))
    shown = f"{later - timedelta(hours=1):%Y-%m-%d %H:%M}"
    assert times(plan(repository, tmp_path / "dumps")) == {"crm.sql": (shown, "mtime")}


@pytest.mark.parametrize("first", ["2025-03-15", "."])
def test_a_file_is_not_adopted_again_by_another_path(repository: LocalRepository, tmp_path: Path, first: str) -> None:
    directory = tmp_path / "dumps"
    write(directory, "2025-03-15/crm.sql")
    sources = [directory / "2025-03-15", directory]
    if first == ".":
        sources.reverse()
    (adopted,) = plan(repository, sources[0], dry_run=False)["adopted"]
    again = plan(repository, sources[1], dry_run=False)
    assert again["adopted"] == []
    assert f"adopted before as {adopted['id']}, with another time" in again["skipped"][0]["reason"]


def test_the_equal_dump_of_another_night_is_adopted_later(repository: LocalRepository, tmp_path: Path) -> None:
    write(tmp_path / "dumps", "crm.sql", data=script("x"))
    write(tmp_path / "more", "crm_2025-03-02.sql", data=script("x"))
    plan(repository, tmp_path / "dumps", dry_run=False)
    assert len(plan(repository, tmp_path / "more", dry_run=False)["adopted"]) == 1


def test_a_date_in_the_name_of_a_database_is_not_that_of_its_dumps(repository: LocalRepository, tmp_path: Path) -> None:
    write(tmp_path / "dumps", "shop_20240101.sql", MARCH, script("x", database="shop_20240101"))
    write(tmp_path / "dumps", "2025-03-01/shop_20240101.sql", LOST, script("y", database="shop_20240101"))
    assert times(plan(repository, tmp_path / "dumps")) == {
        "shop_20240101.sql": ("2025-03-15 02:13", "mtime"),
        "2025-03-01/shop_20240101.sql": ("2025-03-01 12:00", "name"),
    }


def test_a_dump_of_single_tables_is_skipped_if_its_name_differs(repository: LocalRepository, tmp_path: Path) -> None:
    directory = tmp_path / "dumps"
    for day, tables in ((1, 4), (2, 9), (3, 10), (4, 4)):
        write(directory, f"crm_2025-03-0{day}.sql", data=script(str(day), tables, "crm"))
    write(directory, "crm_2025-03-03_t1.sql", data=script("t1", 1, "crm"))
    result = plan(repository, directory)
    assert len(result["found"]) == 4
    assert [one["notes"] for one in result["found"]][3] == ["it has 4 tables, crm_2025-03-03.sql has 10"]
    assert reasons(result) == {
        "crm_2025-03-03_t1.sql": "it has 1 table, crm_2025-03-03.sql has 10: it looks like a dump of single tables; "
        "adopt it alone if it is not"
    }
    assert len(plan(repository, directory / "crm_2025-03-03_t1.sql")["found"]) == 1


def test_a_time_pattern_leaves_the_name_of_the_database(repository: LocalRepository, tmp_path: Path) -> None:
    write(tmp_path / "hosted", "crm_01.03.25.sql")
    write(tmp_path / "hosted", "hr_01.03.25.sql")
    result = plan(repository, tmp_path, time_patterns=["crm_%d.%m.%y", "hr_%d.%m.%y"])
    assert {one["path"]: one["series"] for one in result["found"]} == {
        "hosted/crm_01.03.25.sql": "s/crm",
        "hosted/hr_01.03.25.sql": "s/hr",
    }
    assert result["patterns"] == {"crm_%d.%m.%y": 1, "hr_%d.%m.%y": 1}


def test_many_series_of_one_dump_each_are_reported(repository: LocalRepository, tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / "dumps", f"crm_2025-03-01_x{number}a.sql")
    (warning,) = plan(repository, tmp_path / "dumps")["warnings"]
    assert warning == "6 series have one dump each, as s/crm_x0a; --database-pattern names their databases"


def test_a_dump_that_no_client_reads_does_not_stop_the_others(repository: LocalRepository, tmp_path: Path) -> None:
    write(tmp_path / "dumps", "crm_2025-03-01.sql")
    write(tmp_path / "dumps", "crm_2025-03-02.sql")

    def verify(reference: Any) -> Any:
        if reference["artifact"] == "crm_2025-03-01.sql":
            raise ClientError("no pg_restore reads it")
        return reference

    result = plan(repository, tmp_path / "dumps", dry_run=False, verify=verify)
    assert len(result["adopted"]) == 2
    assert [(one["path"], one["status"]) for one in result["failed"]] == [("crm_2025-03-01.sql", "not proven")]


@pytest.mark.parametrize("options", [["--dry-run"], ["--yes"]])
@pytest.mark.parametrize(("number", "status"), [(errno.EIO, "failed"), (errno.ENOENT, "done"), (None, "done")])
def test_a_file_that_cannot_be_read_is_no_success(
    repository: LocalRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    number: int | None,
    status: str,
) -> None:
    write(tmp_path / "dumps", "crm_2025-03-01.sql", data=b"notes")

    def fails(*args: Any) -> None:
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("airflow_pgbackup.backup.adopt.planner.read_dump", fails)
    arguments = ["adopt", repository.uri, str(tmp_path / "dumps"), "--server", "s", *options]
    assert main(arguments) == EXIT_STATUS[status]


@pytest.mark.parametrize(
    ("connect", "database"),
    [
        ("crm", "crm"),
        ('"my-db"', "my-db"),
        ('"Shop.One"', "Shop.One"),
        ("""-reuse-previous=on "dbname='a b'\"""", "a b"),
        ("x y", None),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_script_with_create_names_its_database(connect: str, database: str | None, line_end: str) -> None:
    text = script("x", database=connect).replace(b"\n", line_end.encode())
    found = sniff_file(io.BytesIO(text), "a script")
    assert found is not None
    assert (found.database, found.create) == (database, database is not None)
