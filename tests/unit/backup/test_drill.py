"""The drill comes round to every series, takes as much at a time as was said, and says what it cannot rehearse."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

import pytest
from honest import write_backup

from airflow_pgbackup.backup.bulk import drill
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.drill import choose_drill, whose_turn
from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import Series, VerificationName

NOW = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)


def backup(
    database: str, *, days_ago: float = 0, size: int = 10, state: str = "written", rehearsed: float | None = None
) -> Backup:
    started = NOW - timedelta(days=days_ago)
    looks = () if rehearsed is None else (VerificationName(NOW - timedelta(days=rehearsed), "restore", "pass"),)
    return Backup(
        series=Series("main", database),
        id=f"{started:%Y%m%dT%H%M%SZ}-abcdef",
        started_at=started,
        committed_at=started,
        size=size,
        state=state,
        verifications=looks,
    )


def turn(*backups: Backup, max_bytes: int = 25) -> list[str]:
    return [f"{each.series.database} {each.started_at.day}" for each in whose_turn(backups, max_bytes=max_bytes)]


def test_never_rehearsed_comes_before_longest_ago() -> None:
    assert turn(backup("a", rehearsed=3), backup("b", rehearsed=9), backup("c")) == ["c 22", "b 22"]


def test_a_rehearsal_of_an_older_backup_counts_for_its_series() -> None:
    old = backup("a", days_ago=7, rehearsed=1)
    assert turn(backup("a"), old, backup("b", rehearsed=5), max_bytes=10) == ["b 22"]


def test_the_newest_is_taken_but_for_those_that_failed() -> None:
    assert turn(backup("a", days_ago=2), backup("a", days_ago=1)) == ["a 21"]
    assert turn(backup("a", days_ago=2), backup("a", days_ago=1, state="failed")) == ["a 20"]
    assert turn(backup("a", state="incomplete")) == []


def test_a_large_one_has_its_turn_beside_the_others() -> None:
    large = backup("large", size=1000)
    assert turn(large, backup("a", rehearsed=1)) == ["a 22", "large 22"]
    assert turn(large, backup("larger", size=2000)) == ["large 22"]
    assert turn(backup("large", size=1000, rehearsed=1), backup("a", rehearsed=9), backup("b")) == ["b 22", "a 22"]


def test_a_large_one_whose_rehearsal_records_nothing_does_not_keep_the_others_from_theirs() -> None:
    sizes = {"a": 10, "b": 20, "c": 30, "large": 90}
    last: dict[str, int] = {}
    for week in range(6):
        backups = [backup(name, size=size, rehearsed=100 - last.get(name, -100)) for name, size in sizes.items()]
        chosen = [str(each.series.database) for each in whose_turn(backups, max_bytes=50)]
        last.update({name: week for name in chosen if name != "large"})
    assert last.keys() == {"a", "b", "c"}
    assert min(last.values()) >= 4


def test_every_series_has_its_turn_in_time() -> None:
    sizes = {name: 3 + 4 * number for number, name in enumerate("abcdefgh")}
    last: dict[str, float] = {}
    for week in range(20):
        chosen = whose_turn(
            [
                backup(name, size=size, rehearsed=None if name not in last else 1000 - last[name])
                for name, size in sizes.items()
            ],
            max_bytes=25,
        )
        assert chosen
        last.update({str(each.series.database): week for each in chosen})
    assert set(last) == set(sizes)
    assert min(last.values()) >= 20 - len(sizes)


def failed(repository: Repository, database: str) -> str:
    """Write two backups that have failed verification. Return the id of the newest."""
    return [
        write_backup(repository, Series("prod", database), NOW + timedelta(hours=hours), looks=["archive-fail"]).id
        for hours in (0, 1)
    ][-1]


def test_a_repository_without_backups_cannot_be_rehearsed(here: Repository) -> None:
    with pytest.raises(BackupNotFound) as caught:
        choose_drill(here, max_bytes=100)
    assert caught.value.message == f"{here.uri} has no backups to rehearse"
    assert caught.value.hint == ("Check the repository and the server's name. pgbackup list shows the backups.")
    write_backup(here, Series("prod", "app"), NOW)
    with pytest.raises(BackupNotFound, match=f"^{here.uri} has no backups of server pord to rehearse"):
        choose_drill(here, max_bytes=100, server="pord")


def test_a_repository_whose_backups_all_failed_cannot_be_rehearsed(here: Repository) -> None:
    newest = failed(here, "app")
    for call in (
        lambda: choose_drill(here, max_bytes=100, server="prod"),
        lambda: next(drill(repository=here, max_bytes=100)),
    ):
        with pytest.raises(BackupNotFound) as caught:
            call()
        assert f"in {here.uri} can be rehearsed: prod/app ({newest} failed verification" in caught.value.message
        assert caught.value.hint == "Find out why the newest backups failed, and dump again."
    for number in range(9):
        failed(here, f"crm{number}")
    with pytest.raises(BackupNotFound, match=r"prod/crm3 \([^;]*\); and 5 more"):
        choose_drill(here, max_bytes=100)


def test_a_series_that_cannot_be_rehearsed_is_a_warning(
    here: Repository, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = failed(here, "app")
    write_backup(here, Series("prod", "later"), datetime.now(timezone.utc) + timedelta(days=1))
    write_backup(here, Series("prod", "crm"), NOW)
    lines: list[str] = []
    with caplog.at_level(logging.WARNING):
        (chosen,) = choose_drill(here, max_bytes=100)
    choose_drill(here, max_bytes=100, log=lines.append)
    assert chosen["series"] == "prod/crm"
    assert lines == caplog.messages
    assert lines[0].startswith(f"warning: no backup of prod/app can be rehearsed: {newest} failed verification")
    assert lines[1:] == ["warning: no backup of prod/later can be rehearsed: all are from the future"]
    lines.clear()
    monkeypatch.setattr("airflow_pgbackup.backup.bulk.verify", lambda **_: {})
    (result,) = drill(repository=here, max_bytes=100, context=RunContext(log=lines.append))
    assert (str(result.series), result.outcome) == ("prod/crm", "done")
    assert lines[:2] == caplog.messages
