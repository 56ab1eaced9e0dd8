"""Clocks that jump: no backup is lost, refused or condemned because a worker's clock was set meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from jumping_clock import JumpingClock

from airflow_pgbackup.backup import leftovers
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence

HOUR = 3600.0


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep reads the clock for each private directory that another process is making, which would move the jump."""
    monkeypatch.setattr(leftovers, "sweep", lambda *_: [])


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, "create table t as select generate_series(1, 10) n")


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_a_jump_during_a_dump(seconds: float, database: ConnectionParams, here: Repository) -> None:
    """At each reading of the clock. A negative duration would violate the manifest's schema."""
    at, readings = 2, 2
    while at <= readings:
        with JumpingClock(seconds, at).installed() as clock:
            made = dump_database(
                connection=database, server="prod", repository=here, options=DumpOptions(), read_along=True
            )
        assert load_manifest(here, made).duration_seconds < 300
        at, readings = at + 1, clock.readings
    assert readings >= 3, "the clock is read"
    backups = read_catalogue(here).backups
    assert len(backups) == readings - 1
    assert {read_evidence(here, b.series, b.id).backup.state for b in backups} == {"verified"}


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_a_jump_during_a_verification(seconds: float, database: ConnectionParams, here: Repository) -> None:
    made = dump_database(connection=database, server="prod", repository=here, options=DumpOptions())
    with JumpingClock(seconds, 2).installed() as clock:
        if seconds < 0:
            with pytest.raises(NotProven, match="it is from the future"):  # by the clock as it is now
                verify(reference=made, repository=here)
        else:
            verify(reference=made, repository=here)
    assert clock.readings >= 2
    [backup] = read_catalogue(here).backups
    assert read_evidence(here, backup.series, backup.id).backup.level == "archive"
