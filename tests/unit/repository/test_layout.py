from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.errors import ConfigurationError, OptionError
from airflow_pgbackup.repository.layout import (
    SCOPES,
    Series,
    VerificationName,
    artifact_key,
    artifact_name,
    backup_id,
    check_key,
    decode_segment,
    encode_segment,
    id_suffix,
    manifest_key,
    parse_backup_id,
    split_key,
    verification_key,
)

AT = datetime(2026, 11, 22, 2, 0, 0, 123456, tzinfo=timezone.utc)
# A PostgreSQL name is at most 63 bytes; a server's name is ours, and may be longer.
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(NAMES)
def test_any_name_is_one_segment_and_comes_back(name: str) -> None:
    segment = encode_segment(name)
    assert check_key(segment) == segment
    assert segment.isascii()
    assert segment[0] not in ".@"
    assert decode_segment(segment) == name


@given(NAMES, NAMES)
def test_different_names_are_different_segments(one: str, other: str) -> None:
    assert (encode_segment(one) == encode_segment(other)) == (one == other)


TIMES = st.datetimes(timezones=st.just(timezone.utc)).filter(lambda at: at.year >= 2000)


@given(NAMES, st.none() | NAMES, TIMES)
def test_keys_come_apart_again(server: str, database: str | None, at: datetime) -> None:
    series = Series(server, database)
    id = backup_id(at, "dag/task/run")
    assert Series.parse(series.path) == series
    assert parse_backup_id(id) == at.replace(microsecond=0)
    assert split_key(manifest_key(series, id)) == (series, id, "manifest.json")
    assert split_key(artifact_key(series, id, "a.dir/toc.dat")) == (series, id, "a.dir/toc.dat")
    name = VerificationName(at, "restore", "notproven")
    assert VerificationName.parse(name.file) == name
    assert verification_key(series, id, at=at, level="restore", result="notproven").endswith(f"/{id}/{name.file}")


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("dvdrental", "dvdrental"),
        ("film_2.b-c~d", "film_2.b-c~d"),
        ("..", "%2E."),
        (".x", "%2Ex"),
        ("a/b", "a%2Fb"),
        ("@cluster", "%40cluster"),
        ("Ünï", "%C3%9Cn%C3%AF"),
        ("100%", "100%25"),
    ],
)
def test_how_names_look(name: str, segment: str) -> None:
    assert encode_segment(name) == segment


@pytest.mark.parametrize(
    "segment", ["", "a b", "@cluster", "%zz", "%2", "..", ".x", "%c3%a9", "%41", "%FF", "Ü", "lost+found"]
)
def test_foreign_folders_are_no_names(segment: str) -> None:
    with pytest.raises(ValueError):
        decode_segment(segment)


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 43, "\udc80"])
def test_names_that_cannot_be_folders(name: str) -> None:
    with pytest.raises(ConfigurationError):
        encode_segment(name)


def test_the_cluster_is_not_a_database_of_that_name() -> None:
    assert Series("s", None).path == "s/@cluster"
    assert Series("s", "@cluster").path == "s/%40cluster"
    assert str(Series("s", None)) == "s/@cluster"
    for scope in SCOPES:
        assert Series.parse(f"s/@{scope}") == Series("s", None, scope)
        assert Series("s", None, scope).path == str(Series("s", None, scope)) == f"s/@{scope}"
        assert Series("s", None, scope).kind == scope
        assert Series("s", f"@{scope}").path == f"s/%40{scope}"
        assert Series("s", f"@{scope}").kind == "database"
    assert (Series("s", None).kind, Series("s", "x").kind) == ("cluster", "database")


@pytest.mark.parametrize(
    "key",
    [
        "repository.json",
        "s/d",
        "s/d/20261122T020000Z-3f9ac1",
        "s/d/20261122T020000Z-3f9ac1/",
        "s/d/notes/x",
        "s/d/20261322T020000Z-3f9ac1/x",
        "s/d/20261122T020000Z-3F9AC1/x",
        ".s/d/20261122T020000Z-3f9ac1/x",
        "s/@other/20261122T020000Z-3f9ac1/x",
    ],
)
def test_keys_that_belong_to_no_backup(key: str) -> None:
    assert split_key(key) is None


def test_a_backup_id_is_the_start_in_utc_and_what_asked_for_it() -> None:
    east = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert backup_id(east, "x") == f"20261122T020000Z-{id_suffix('x')}"
    later = backup_id(AT + timedelta(minutes=5), "x")
    assert later.endswith(id_suffix("x"))
    assert later > backup_id(AT, "x")
    assert backup_id(AT) != backup_id(AT)
    assert id_suffix("x") != id_suffix("y")


@pytest.mark.parametrize(
    ("format", "compression", "expected"),
    [
        ("custom", None, "dvdrental_2026-11-22_0200.dump"),
        ("tar", None, "dvdrental_2026-11-22_0200.tar"),
        ("directory", None, "dvdrental_2026-11-22_0200.dir"),
        ("plain", None, "dvdrental_2026-11-22_0200.sql"),
        ("plain", "zstd", "dvdrental_2026-11-22_0200.sql.zst"),
        ("plain", "gzip", "dvdrental_2026-11-22_0200.sql.gz"),
    ],
)
def test_artifact_names(format: str, compression: str | None, expected: str) -> None:
    name = artifact_name(
        "{database}_{date}_{time}",
        database="dvdrental",
        server="prod",
        started_at=AT,
        format=format,
        compression=compression,
    )
    assert name == expected


def test_artifact_names_of_odd_databases_and_clusters() -> None:
    def name(template: str, database: str | None, scope: str | None = None) -> str:
        return artifact_name(template, database=database, server="p q", started_at=AT, format="plain", scope=scope)

    assert name("{server}-{database}", "a/b") == "p%20q-a%2Fb.sql"
    assert name("{database}", None) == "cluster.sql"
    assert name("{database}", None, "roles") == "roles.sql"
    assert name("{database}", "..") == "%2E..sql"
    assert name("nightly {{x}}", "d") == "nightly {x}.sql"


@pytest.mark.parametrize(
    "template",
    [
        "{db}",
        "{database.__class__}",
        "{database[0]}",
        "{database!r}",
        "{date:%Y}",
        "{",
        "{}",
        "a/b",
        "../{database}",
        ".{database}",
        "a\nb",
        "a\x9bb",
        "a\u202eb",
        "x" * 300,
    ],
)
def test_templates_that_give_no_file_name(template: str) -> None:
    with pytest.raises(OptionError):
        artifact_name(template, database="d", server="s", started_at=AT, format="custom")


@pytest.mark.parametrize(
    "name",
    [
        "verification-20261122T020000.123456Z-archive-maybe.json",
        "verification-20261122T020000Z-archive-pass.json",
        "verification-20261199T020000.123456Z-archive-pass.json",
        "verification-20261122T020000.123456Z-archive-pass.json.bak",
    ],
)
def test_what_is_no_verification(name: str) -> None:
    assert VerificationName.parse(name) is None
