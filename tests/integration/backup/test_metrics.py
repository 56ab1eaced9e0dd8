"""Metrics: what they say about real backups and hostile names, read by Prometheus' own parser as oracle."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from honest import write_backup
from nights import NOW as TONIGHT
from nights import fail, night
from sets import back_up_set

from airflow_pgbackup.backup.metrics import Family, metrics, render
from airflow_pgbackup.backup.reference import load_evidence
from airflow_pgbackup.backup.series_reader import MOST_READ
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series, manifest_key

NOW = datetime(2026, 11, 26, 12, tzinfo=timezone.utc)
APP = Series("prod", "app")

Labels = frozenset[tuple[str, str]]


def parsed(text: str) -> dict[str, dict[Labels, float]]:
    """Each metric's samples without the label ``repository``, by both of Prometheus' formats, which must agree."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
    from prometheus_client.parser import text_string_to_metric_families as plain

    read: list[dict[str, dict[Labels, float]]] = []
    for parse in (openmetrics, plain):
        found: dict[str, dict[Labels, float]] = {}
        for family in parse(text):
            assert family.type == "gauge"
            assert family.documentation
            for sample in family.samples:
                labels = frozenset((name, value) for name, value in sample.labels.items() if name != "repository")
                assert labels not in found.setdefault(sample.name, {}), "a collector refuses the file"
                found[sample.name][labels] = sample.value
        read.append(found)
    assert read[0] == read[1]
    return read[0]


def found(repository: Repository, now: datetime = NOW) -> Callable[..., float | None]:
    """``found(repository)(name, **labels)``: the value of the only sample of the metric with these labels."""
    samples = parsed(render(metrics(repository=repository, now=now)))

    def value(name: str, **labels: str) -> float | None:
        fitting = [value for have, value in samples[name].items() if labels.items() <= dict(have).items()]
        assert len(fitting) < 2, fitting
        return fitting[0] if fitting else None

    return value


def test_servers_that_look_alike_have_samples_of_their_own(here: Repository) -> None:
    made = night(here, 0, "app")
    for server in ("a\u200b", "a\\u200b"):
        theirs = replace(made, server=server, databases=())
        here.write_bytes(f"{theirs.location}/{theirs.name.file}", theirs.to_json())
    lines = [line.partition("} ")[0] for line in render(metrics(repository=here, now=TONIGHT)).splitlines()]
    assert any("@sets" in line for line in lines)
    assert len({*lines}) == len(lines)


def test_the_newest_verified_backup_at_each_level(here: Repository) -> None:
    old, mid, new = (NOW - timedelta(days=days) for days in (3, 2, 1))
    write_backup(here, APP, old, looks=["archive-pass", "restore-pass"])
    write_backup(here, APP, mid, looks=["archive-pass"], members={"app.dump": b"1234567"})
    write_backup(here, APP, new, looks=[])
    value = found(here)
    assert value("pgbackup_newest_backup_timestamp_seconds") == new.timestamp()
    assert value("pgbackup_newest_backup_state", state="written") == 1
    assert value("pgbackup_newest_backup_state", state="verified") == 0
    for level, time in (("integrity", mid), ("archive", mid), ("restore", old)):
        assert value("pgbackup_verified_backup_timestamp_seconds", level=level) == time.timestamp()
    assert value("pgbackup_verified_backup_level") == 2
    assert value("pgbackup_verified_backup_size_bytes") == 7
    assert value("pgbackup_verified_backup_rows") == 7
    assert value("pgbackup_verified_backup_dump_duration_seconds") == 5
    assert value("pgbackup_rehearsal_timestamp_seconds") == (old + timedelta(minutes=2)).timestamp()
    assert value("pgbackup_backups", state="verified") == 2
    assert value("pgbackup_backups", state="written") == 1
    assert value("pgbackup_backups", state="failed") == 0
    assert value("pgbackup_series_size_bytes") == value("pgbackup_repository_size_bytes") == 17
    assert value("pgbackup_repository_backups") == 3
    assert value("pgbackup_repository_listed_timestamp_seconds") == NOW.timestamp()


def test_what_never_happened_has_time_0(here: Repository) -> None:
    write_backup(here, APP, NOW - timedelta(hours=1), looks=["archive-fail"])
    value = found(here)
    assert value("pgbackup_verified_backup_timestamp_seconds", level="archive") == 0
    assert value("pgbackup_verified_backup_level") == 0
    assert value("pgbackup_rehearsal_timestamp_seconds") == 0
    assert value("pgbackup_newest_backup_state", state="failed") == 1
    assert "pgbackup_verified_backup_size_bytes" not in parsed(render(metrics(repository=here, now=NOW)))


def test_an_empty_repository_and_a_missing_one(here: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(here)("pgbackup_repository_backups") == 0
    assert main(["metrics", f"{here.uri}/nowhere"]) == EXIT_STATUS["failed"]
    assert capsys.readouterr().out == ""


def test_names_and_clocks_prove_nothing(here: Repository) -> None:
    honest = NOW - timedelta(days=2)
    write_backup(here, APP, honest)
    forged = write_backup(here, APP, NOW - timedelta(days=1))
    (verification,) = here.local_path(f"{APP.path}/{forged.id}").glob("verification-*")  # type: ignore[union-attr]
    verification.write_text("{}")
    write_backup(here, APP, NOW + timedelta(days=1))
    value = found(here)
    assert value("pgbackup_verified_backup_timestamp_seconds", level="archive") == honest.timestamp()
    assert value("pgbackup_newest_backup_timestamp_seconds") == forged.started_at.timestamp()
    assert value("pgbackup_backups", state="verified") == 3, "by file names, as list shows them"


@pytest.fixture
def reads(here: Repository, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are read."""
    keys: list[str] = []
    read_bytes = type(here).read_bytes

    def counted(self: Repository, key: str, **options: Any) -> bytes:
        keys.append(key)
        return read_bytes(self, key, **options)

    monkeypatch.setattr(type(here), "read_bytes", counted)
    return keys


def test_reading_is_bounded(here: Repository, reads: list[str]) -> None:
    for hour in range(MOST_READ + 5):
        made = write_backup(here, APP, NOW - timedelta(hours=hour + 1), looks=["restore-pass"])
        here.local_path(manifest_key(APP, made.id)).write_text("{}")  # type: ignore[union-attr]
    reads.clear()
    assert found(here)("pgbackup_verified_backup_timestamp_seconds", level="restore") == 0
    assert len([key for key in reads if key.endswith("manifest.json")]) == MOST_READ


HOSTILE = [
    'a"b',
    "a\\",
    "a\nb",
    "a\rb",
    "\u202eevil",
    "\\u202eevil",
    "\x1b[31m",
    '"} 1\n# EOF',
    "a,b={}",
    "ä",
    "@cluster",
]


def test_hostile_names(here: Repository) -> None:
    for name in HOSTILE:
        write_backup(here, Series("prod", name), NOW - timedelta(hours=1))
    write_backup(here, Series("prod", None), NOW - timedelta(hours=1))
    text = render(metrics(repository=here, now=NOW))
    assert all(line.isprintable() for line in text.rstrip("\n").split("\n"))
    series = {dict(labels)["series"] for labels in parsed(text)["pgbackup_series_size_bytes"]}
    assert {Series.parse(path).database for path in series} == {*HOSTILE, None}


def test_values_and_help_are_escaped() -> None:
    family = Family("pgbackup_x_bytes", 'a "quoted" \\ help\n', [({"one": '\\n"\n'}, 0.5)])
    assert parsed(render([family])) == {"pgbackup_x_bytes": {frozenset({("one", '\\n"\\n')}): 0.5}}


def test_real_backups_and_a_set(
    server18: PostgresServer, fresh_database: Callable[..., ConnectionParams], here: Repository
) -> None:
    database = fresh_database(server18, None, "create table film as select generate_series(1, 300) n")
    made = back_up_set(server18, here, [database.dbname])
    (member,) = made.databases
    reference = {"repository_uuid": here.uuid, "series": member.series, "id": member.id}
    verify(reference=reference, repository=here, level="restore")
    evidence = load_evidence(here, reference)
    value = found(here, datetime.now(timezone.utc))
    of = {"series": member.series}
    assert value("pgbackup_verified_backup_level", **of) == 3
    assert value("pgbackup_verified_backup_rows", **of) == 300
    assert value("pgbackup_verified_backup_size_bytes", **of) == member.size
    seconds = value("pgbackup_rehearsal_restore_duration_seconds", **of)
    assert seconds == evidence.verifications[-1].restore_seconds
    assert seconds
    assert value("pgbackup_complete_set_timestamp_seconds", server="prod") == made.started_at.timestamp()
    assert value("pgbackup_complete_set_databases", server="prod") == 1
    assert value("pgbackup_complete_set_missing_backups", server="prod") == 0
    assert value("pgbackup_verified_backup_level", database="@globals") == 0
    here.local_path(manifest_key(Series.parse(member.series), member.id)).unlink()  # type: ignore[union-attr]
    assert found(here, datetime.now(timezone.utc))("pgbackup_complete_set_missing_backups", server="prod") == 1


def test_output_replaces_the_file_at_once(
    here: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_backup(here, APP, NOW - timedelta(hours=1))
    directory = tmp_path / "textfile"
    directory.mkdir()
    output = directory / "pgbackup.prom"
    output.write_text("old")
    assert main(["metrics", here.uri, "--output", str(output)]) == 0
    assert capsys.readouterr().out.startswith("wrote ")
    assert parsed(output.read_text())["pgbackup_repository_backups"] == {frozenset(): 1}
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert list(directory.iterdir()) == [output]
    good = output.read_text()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["metrics", here.uri, "--output", str(output)]) == EXIT_STATUS["failed"]
    assert f"cannot write {output}: No space left on device" in capsys.readouterr().err
    assert list(directory.iterdir()) == [output]
    assert output.read_text() == good
    for wrong, why in ((directory, "is a directory"), (tmp_path / "no" / "x.prom", "is not a directory")):
        assert main(["metrics", here.uri, "--output", str(wrong)]) == EXIT_STATUS["usage"]
        assert why in capsys.readouterr().err


def test_a_set_with_a_failed_backup_is_not_the_newest_complete_one(here: Repository) -> None:
    whole = night(here, 1, "app", "crm")
    fail(here, night(here, 0, "app", "crm", "web").databases[1])
    value = found(here, TONIGHT)
    assert value("pgbackup_complete_set_timestamp_seconds", server="prod") == whole.started_at.timestamp()
    assert value("pgbackup_complete_set_databases", server="prod") == 2
    assert value("pgbackup_complete_set_missing_backups", server="prod") == 0
    assert value("pgbackup_complete_set_unusable_backups", server="prod") == 1


def test_dropped_databases_are_marked(here: Repository) -> None:
    night(here, 3, "app", "old")
    night(here, 1, "app")
    night(here, 0, "app", missing=("new",))
    write_backup(here, Series("other", "app"), TONIGHT)
    value = found(here, TONIGHT)
    marks = {name: value("pgbackup_series_dropped", series=name) for name in ("prod/app", "prod/old", "other/app")}
    assert marks == {"prod/app": 0, "prod/old": 1, "other/app": 0}


def test_without_a_set_that_can_be_used_its_time_is_0(here: Repository) -> None:
    fail(here, night(here, 0, "app").databases[0])
    assert found(here, TONIGHT)("pgbackup_complete_set_timestamp_seconds", server="prod") == 0


def test_the_backups_of_a_set_are_read_once(here: Repository, reads: list[str]) -> None:
    night(here, 1, "app", "crm", "web")
    night(here, 0, "app", "crm", "web")
    reads.clear()
    metrics(repository=here, now=TONIGHT)
    manifests = [key for key in reads if key.endswith("manifest.json")]
    assert len(manifests) == len(set(manifests)) == 3
