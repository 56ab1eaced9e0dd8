"""The drill comes round to every series, and takes as much at a time as was said."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow_pgbackup.backup.drill import whose_turn
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


def test_a_large_one_has_its_turn_alone() -> None:
    large = backup("large", size=1000)
    assert turn(large, backup("a", rehearsed=1)) == ["large 22"]
    assert turn(backup("large", size=1000, rehearsed=1), backup("a", rehearsed=9), backup("b")) == ["b 22", "a 22"]


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
