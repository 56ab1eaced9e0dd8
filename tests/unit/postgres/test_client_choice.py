"""Choosing among clients whose programs exist, but are never run: the archives here have no compression."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_pgbackup.errors import ClientError
from airflow_pgbackup.postgres.tools import capabilities
from airflow_pgbackup.postgres.tools.client_choice import (
    ReaderRequirements,
    check_can_read,
    choose_loader,
    choose_reader,
    choose_restorer,
    choose_same_major,
    choose_servers,
)
from airflow_pgbackup.postgres.tools.clients import Client

TOOLS = ("pg_dump", "pg_dumpall", "pg_restore", "psql", "initdb", "postgres")
Versions = list[tuple[int, int]]


def clients(directory: Path, versions: Versions, tools: tuple[str, ...] = TOOLS) -> list[Client]:
    """Return clients in the order of a search: newest first."""
    for tool in tools:
        (directory / tool).touch(mode=0o755)
    return [Client(directory, version, "test") for version in sorted(versions, reverse=True)]


def archive(major: int) -> ReaderRequirements:
    return ReaderRequirements(f"{major}.1", major, None)


@pytest.mark.parametrize(
    ("found", "dumped_by", "chosen"),
    [
        ([(16, 1), (18, 2), (17, 5)], 16, (18, 2)),  # the newest
        ([(16, 1), (17, 3), (17, 5)], 17, (17, 5)),
    ],
)
def test_the_newest_client_reads_an_archive(
    found: Versions, dumped_by: int, chosen: tuple[int, int], tmp_path: Path
) -> None:
    assert choose_reader(clients(tmp_path, found), archive(dumped_by)).version == chosen


def test_an_archive_that_no_client_reads(tmp_path: Path) -> None:
    found = r"no pg_restore here can read an archive of pg_dump 18\.1: found 17\.5 \(.*\); 16\.1 \("
    for choose in (choose_reader, lambda some, needed: choose_restorer(some, needed, 18)):
        with pytest.raises(ClientError, match=found) as caught:
            choose(clients(tmp_path, [(16, 1), (17, 5)]), archive(18))
        assert "postgresql-client-18" in str(caught.value.hint)
    assert choose_loader(clients(tmp_path, [(16, 1), (17, 5)]), archive(18), 18) is None
    (old,) = clients(tmp_path, [(16, 1)])
    with pytest.raises(ClientError, match=r"pg_restore 16\.1 \(.*\) cannot read an archive of pg_dump 18\.1"):
        check_can_read(old, archive(18))


@pytest.mark.parametrize(
    ("found", "dumped_by", "server", "chosen"),
    [
        ([(15, 9), (16, 9), (17, 5), (18, 2)], 15, 17, (17, 5)),  # the server's own
        ([(15, 9), (18, 1), (18, 2)], 15, 17, (18, 2)),  # else the nearest, its newest patch
        ([(15, 9), (17, 5)], 15, 16, (15, 9)),  # one that needs no psql comes first
        ([(17, 4), (17, 5), (18, 2)], 17, 16, (17, 5)),  # none such: the nearest
    ],
)
def test_the_client_for_a_restore_fits_the_server(
    found: Versions, dumped_by: int, server: int, chosen: tuple[int, int], tmp_path: Path
) -> None:
    assert choose_restorer(clients(tmp_path, found), archive(dumped_by), server).version == chosen


@pytest.mark.parametrize(
    ("found", "dumped_by", "server", "chosen"),
    [
        ([(15, 9), (16, 9), (17, 5)], 15, 17, (15, 9)),  # the oldest that reads the archive
        ([(16, 8), (16, 9), (17, 5)], 15, 16, (16, 9)),
        ([(17, 5), (18, 2)], 15, 16, None),  # the server does not know their transaction_timeout
    ],
)
def test_the_client_for_a_rehearsal_is_the_oldest(
    found: Versions, dumped_by: int, server: int, chosen: tuple[int, int] | None, tmp_path: Path
) -> None:
    loader = choose_loader(clients(tmp_path, found), archive(dumped_by), server)
    assert (loader.version if loader else None) == chosen


def test_servers_and_clients_of_one_major_version(tmp_path: Path) -> None:
    found = clients(tmp_path, [(16, 9), (17, 4), (17, 5), (18, 2)])
    assert [one.version for one in choose_servers(found, 17)] == [(17, 5), (17, 4), (18, 2)]
    same = choose_same_major(found, 17, ("pg_dump", "pg_dumpall"))
    assert same is not None
    assert same.version == (17, 5)
    assert choose_same_major(found, 15, ("pg_dump",)) is None
    assert choose_same_major(found, 17, ("pg_dump", "no_such_tool")) is None


@pytest.mark.parametrize(
    ("version", "has"),
    [
        *(((15, 13), False), ((15, 14), True), ((16, 9), False), ((16, 10), True), ((17, 5), False), ((17, 6), True)),
        *(((18, 0), True), ((19, 0), True), ((14, 20), False)),
    ],
)
def test_restrict_is_since_a_release_of_each_branch(version: tuple[int, int], has: bool) -> None:
    assert capabilities.has_restrict(version) is has


def test_scripts_of_new_clients_do_not_run_on_old_servers() -> None:
    runs = {
        (server, client): capabilities.runs_scripts_of(server, client) for server in (16, 17) for client in (16, 17)
    }
    assert runs == {(16, 16): True, (16, 17): False, (17, 16): True, (17, 17): True}
