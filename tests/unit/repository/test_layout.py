from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.errors import ConfigurationError, OptionError
from airflow_pgbackup.repository.layout import (
    LEVELS,
    SCOPES,
    Series,
    VerificationName,
    artifact_key,
    artifact_name,
    attempt_of,
    backup_id,
    check_key,
    check_level,
    decode_segment,
    encode_segment,
    id_suffix,
    is_key,
    manifest_key,
    new_attempt,
    parse_backup_id,
    reaches,
    split_key,
    utc,
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
    "segment",
    ["", "a b", "@cluster", "%zz", "%2", "..", ".x", "%c3%a9", "%41", "%FF", "Ü", "lost+found", "a%00b", "x" * 256],
)
def test_foreign_folders_are_no_names(segment: str) -> None:
    with pytest.raises(ValueError, match=f"^not an encoded name: {re.escape(repr(segment))}$"):
        decode_segment(segment)


TOO_LONG = "Use a shorter server name."


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("", "a server or database name is empty", None),
        ("\udc80", r"the name '\udc80' is not valid unicode", None),
        ("a\0b", r"the name 'a\x00b' contains a null byte, which PostgreSQL does not allow in names", None),
        ("x" * 256, f"the name '{'x' * 40}'… takes 256 bytes as a directory name, more than 255", TOO_LONG),
        ("é" * 43, f"the name '{'é' * 40}'… takes 258 bytes as a directory name, more than 255", TOO_LONG),
    ],
)
def test_names_that_cannot_be_folders(name: str, message: str, hint: str | None) -> None:
    with pytest.raises(ConfigurationError) as raised:
        encode_segment(name)
    assert (raised.value.message, raised.value.hint) == (message, hint)


def test_a_name_may_take_all_of_255_bytes() -> None:
    assert encode_segment("x" * 255) == "x" * 255
    key = f"{'é' * 127}x/" + "x" * 255
    assert check_key(key) == key
    assert len(artifact_name("x" * 250, database="d", server="s", started_at=AT, format="custom")) == 255


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("a\nb", r"not a key: 'a\nb' holds a control character"),
        ("a/\ud800", r"not a key: 'a/\ud800' is not valid unicode"),
        ("", "not a key: ''"),
        ("a//b", "not a key: 'a//b'"),
        ("a/b/", "not a key: 'a/b/'"),
        ("./a", "not a key: './a'"),
        ("a/../b", "not a key: 'a/../b'"),
        ("a/.pgbackup-tmp-1/b", "not a key: 'a/.pgbackup-tmp-1/b'"),
        (f"a/{'é' * 128}", f"a name in 'a/{'é' * 128}' is longer than 255 bytes"),
    ],
)
def test_what_is_no_key(key: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check_key(key)
    assert raised.value.message == message
    assert not is_key(key)


@pytest.mark.parametrize("key", ["a", "a/b.c/…d", ".hidden/x", "name\udcff of bytes"])
def test_what_is_a_key(key: str) -> None:
    assert check_key(key) == key
    assert is_key(key)


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


def test_the_keys_of_a_backup() -> None:
    series, id = Series("p q", "a/b"), "20261122T020000Z-3f9ac1"
    folder = f"p%20q/a%2Fb/{id}"
    assert manifest_key(series, id) == f"{folder}/manifest.json"
    assert artifact_key(series, id, "a.dump") == f"{folder}/a.dump"
    assert artifact_key(series, id, "a.dir/toc.dat", "0123abcd") == f"{folder}/0123abcd/a.dir/toc.dat"
    verification = verification_key(series, id, at=AT, level="archive", result="fail")
    assert verification == f"{folder}/verification-20261122T020000.123456Z-archive-fail.json"
    assert split_key(f"{folder}/0123abcd/a.dir/toc.dat") == (series, id, "0123abcd/a.dir/toc.dat")


@pytest.mark.parametrize(
    ("path", "attempt"),
    [
        ("0123abcd/a.dump", "0123abcd"),
        ("0123abcd/a.dir/toc.dat", "0123abcd"),
        ("0123abcd", None),
        ("0123ABCD/a.dump", None),
        ("a.dir/toc.dat", None),
        ("a.dump", None),
    ],
)
def test_the_first_folder_of_a_path_is_its_attempt(path: str, attempt: str | None) -> None:
    assert attempt_of(path) == attempt


def test_a_new_attempt_has_a_folder_of_its_own() -> None:
    one, other = new_attempt(), new_attempt()
    assert attempt_of(f"{one}/a.dump") == one
    assert one != other


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker whose local time is ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_names_have_the_time_in_utc_wherever_the_worker_is() -> None:
    east = AT.astimezone(timezone(timedelta(hours=-7)))
    assert utc(east).isoformat() == "2026-11-22T02:00:00.123456+00:00"
    assert VerificationName(east, "archive", "pass").file.startswith("verification-20261122T020000.123456Z-")
    with pytest.raises(ValueError, match=r"^a time without a time zone$"):
        utc(AT.replace(tzinfo=None))


def test_all_digits_of_a_time_count() -> None:
    moment = datetime(2031, 12, 29, 23, 48, 57, 654321, tzinfo=timezone.utc)
    assert VerificationName.parse(VerificationName(moment, "archive", "pass").file) == VerificationName(
        moment, "archive", "pass"
    )
    for suffix in (backup_id(moment), backup_id(moment, "x")):
        assert parse_backup_id(suffix) == moment.replace(microsecond=0)


def test_a_backup_id_is_the_start_in_utc_and_what_asked_for_it() -> None:
    east = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert backup_id(east, "x") == f"20261122T020000Z-{id_suffix('x')}"
    later = backup_id(AT + timedelta(minutes=5), "x")
    assert later.endswith(id_suffix("x"))
    assert later > backup_id(AT, "x")
    assert backup_id(AT) != backup_id(AT)
    assert (id_suffix("x"), id_suffix("y")) == ("2d7116", "a1fce4")
    assert id_suffix("a dag named \ud800 in JSON") == "2e0604"


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
    for encrypted in (False, True):
        name = artifact_name(
            "{database}_{date}_{time}",
            database="dvdrental",
            server="prod",
            started_at=AT,
            format=format,
            compression=compression,
            encrypted=encrypted,
        )
        assert name == (f"{expected}.age" if encrypted else expected)


def test_artifact_names_of_odd_databases_and_clusters() -> None:
    def name(template: str, database: str | None, scope: str | None = None) -> str:
        return artifact_name(template, database=database, server="p q", started_at=AT, format="plain", scope=scope)

    assert name("{server}-{database}", "a/b") == "p%20q-a%2Fb.sql"
    assert name("{database}", None) == "cluster.sql"
    assert name("{database}", None, "roles") == "roles.sql"
    assert name("{database}", "..") == "%2E..sql"
    assert name("nightly {{x}}", "d") == "nightly {x}.sql"


PLACEHOLDERS = "Use {database}, {server}, {date} and {time}, as in '{database}_{date}_{time}'."
UNKNOWN = "holds an unknown placeholder"


@pytest.mark.parametrize(
    ("template", "problem", "hint"),
    [
        ("{db}", UNKNOWN, PLACEHOLDERS),
        ("{database.__class__}", UNKNOWN, PLACEHOLDERS),
        ("{database[0]}", UNKNOWN, PLACEHOLDERS),
        ("{database!r}", UNKNOWN, PLACEHOLDERS),
        ("{date:%Y}", UNKNOWN, PLACEHOLDERS),
        ("{}", UNKNOWN, PLACEHOLDERS),
        ("{", "cannot be read: Single '{' encountered in format string", PLACEHOLDERS),
        ("a/b", "gives 'a/b.dump', which cannot be used as a file name", None),
        ("../{database}", "gives '../d.dump', which cannot be used as a file name", None),
        (".{database}", "gives '.d.dump', which cannot be used as a file name", None),
        ("a\nb", r"gives 'a\nb.dump', which cannot be used as a file name", None),
        ("a\x9bb", r"gives 'a\x9bb.dump', which cannot be used as a file name", None),
        ("a\u202eb", r"gives 'a\u202eb.dump', which cannot be used as a file name", None),
        ("é" * 126, "gives a name of 257 bytes, at most 255 are possible", None),
    ],
)
def test_templates_that_give_no_file_name(template: str, problem: str, hint: str | None) -> None:
    with pytest.raises(OptionError) as raised:
        artifact_name(template, database="d", server="s", started_at=AT, format="custom")
    assert (raised.value.message, raised.value.hint) == (f"the artifact template {template!r} {problem}", hint)


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


@pytest.mark.parametrize("level", [*LEVELS, None])
def test_levels_that_exist(level: str | None) -> None:
    check_level(level)


CHOICES = "Choose one of integrity, archive, restore"


@pytest.mark.parametrize(
    ("level", "asked", "message", "hint"),
    [
        ("restor", {}, "invalid minimum_level 'restor'", "Did you mean 'restore'?"),
        ("deep", {}, "invalid minimum_level 'deep'", f"{CHOICES}, or None."),
        ("deep", {"name": "--verify", "none": "none"}, "invalid --verify 'deep'", f"{CHOICES}, or none."),
        ("deep", {"name": "level", "required": True}, "invalid level 'deep'", f"{CHOICES}."),
        (None, {"name": "level", "required": True}, "invalid level None", f"{CHOICES}."),
    ],
)
def test_levels_that_do_not_exist(level: str | None, asked: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check_level(level, **asked)
    assert (raised.value.message, raised.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("level", "reached"),
    [
        ("restore", ["integrity", "archive", "restore"]),
        ("archive", ["integrity", "archive"]),
        ("integrity", ["integrity"]),
        (None, []),
        ("forged", []),
        (2, []),
    ],
)
def test_a_level_reaches_those_below_it(level: object, reached: list[str]) -> None:
    assert [minimum for minimum in LEVELS if reaches(level, minimum)] == reached
