"""diff, the pure parts: which table, definition and property counts as changed, and what is said of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from honest import manifest_of, verification_of

from airflow_pgbackup.backup.diff.contents import Contents
from airflow_pgbackup.backup.diff.definitions import compare_definitions
from airflow_pgbackup.backup.diff.properties import (
    compare_extensions,
    compare_left_out,
    compare_locales,
    compare_properties,
    measures,
    versions,
)
from airflow_pgbackup.backup.diff.result import Measure, NotCompared, PropertyChange, TableChange, percent
from airflow_pgbackup.backup.diff.tables import Counted, Tables, compare_tables, counted
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import Manifest, RowCount
from airflow_pgbackup.repository.verification import UNLISTED, Check, TableResult, Verification

AT = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)
PLAIN = "a plain dump has no table of contents"
Toc = Mapping[tuple[str, str], str]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    repository = LocalRepository(tmp_path / "pg")
    repository.init()
    return manifest_of(repository, Series("prod", "app"), AT, {"app.dump": b"12345"})


def rows(digests: Mapping[str, str] | None = None, **counts: int) -> Counted:
    tables = {(None, "public", name): count for name, count in counts.items()}
    return Counted(tables, {(None, "public", name): sha for name, sha in (digests or {}).items()}, "counted")


def contents(
    objects: Toc | None = None,
    *,
    tables: str = "",
    sizes: Mapping[str, int] | None = None,
    locale: Mapping[str, str] | None = None,
    database: str = "app",
) -> Contents:
    return Contents(
        database,
        {(None, kind, "public", name): Counter([text]) for (kind, name), text in (objects or {}).items()},
        frozenset((None, "public", name) for name in tables.split()),
        None if sizes is None else {(None, "public", name): size for name, size in sizes.items()},
        locale,
        True,
    )


def tables(
    before: Counted | None, after: Counted | None, old: Contents | str = PLAIN, new: Contents | str = PLAIN
) -> Tables:
    return compare_tables((before, old), (after, new), ("A", "B"))


def brief(found: Tables) -> list[tuple[str, str, int | None, int | None]]:
    return [(one.change, one.name, one.rows_change, one.bytes_change) for one in found.changes]


# -- tables ------------------------------------------------------------------------------------------------------------


def test_a_table_whose_rows_the_options_leave_out_is_not_dropped() -> None:
    before, after = rows(film=3, audit=2), replace(rows(film=3), complete=False)
    found = tables(before, after)
    assert (brief(found), found.unchanged) == ([], 1)
    assert NotCompared("public.audit", "may exist in B, which leaves out rows of tables") in found.not_compared
    assert [one[:2] for one in brief(tables(before, after, new=contents(tables="film")))] == [("dropped", "audit")]
    assert not brief(tables(before, rows(film=3), new=contents(tables="film audit")))


def test_options_that_leave_out_rows(manifest: Manifest) -> None:
    backup = Backup(series=manifest.series, id=manifest.id, started_at=AT, committed_at=AT, size=5, state="written")
    evidence = Evidence(backup, manifest, ())
    manifest = replace(manifest, source_rows=(RowCount("public", "film", 3),))
    for options, complete in (({}, True), ({"exclude_table_data": ["audit"]}, False), ({"schemas": ["a"]}, True)):
        found = counted(evidence, replace(manifest, options=options))
        assert found and found.complete == complete


def test_dropped_and_added_first_then_by_the_size_of_the_change() -> None:
    before = rows(small=5, large=1000, same=7, gone=3, shrunk=900, lost=50)
    after = rows(small=6, large=1500, same=7, shrunk=100, new=1, come=20)
    found = tables(before, after)
    assert brief(found) == [
        ("dropped", "lost", -50, None),
        ("dropped", "gone", -3, None),
        ("added", "come", 20, None),
        ("added", "new", 1, None),
        ("changed", "shrunk", -800, None),
        ("changed", "large", 500, None),
        ("changed", "small", 1, None),
    ]
    assert found.unchanged == 1
    assert [one.as_json()["rows_percent"] for one in found.changes[-3:]] == [-88.9, 50.0, 20.0]


def test_as_many_rows_of_other_content() -> None:
    found = tables(rows({"a": "1" * 64, "b": "1" * 64}, a=5, b=5), rows({"a": "2" * 64, "b": "1" * 64}, a=5, b=5))
    assert [(one.name, one.content_differs, one.rows_change) for one in found.changes] == [("a", True, 0)]
    assert found.unchanged == 1


def test_bytes_of_directories() -> None:
    old, new = contents(tables="a b", sizes={"a": 100, "b": 50}), contents(tables="a b", sizes={"a": 250, "b": 50})
    found = tables(rows(a=1, b=2), rows(a=1, b=2), old, new)
    assert brief(found) == [("changed", "a", 0, 150)]
    assert found.changes[0].as_json()["bytes_percent"] == 150.0
    assert found.not_compared == ()


def test_equal_rows_compressed_otherwise_are_unchanged() -> None:
    old, new = contents(tables="a", sizes={"a": 100}), contents(tables="a", sizes={"a": 70})
    digest = {"a": "1" * 64}
    assert tables(rows(digest, a=1), rows(digest, a=1), old, new) == Tables((), 1, ())


def test_rows_that_nobody_counted() -> None:
    old, new = contents(tables="a gone"), contents(tables="a come")
    found = tables(None, rows(a=1, come=3), old, new)
    assert brief(found) == [("dropped", "gone", None, None), ("added", "come", None, None)]
    assert found.unchanged == 1
    assert [one.what for one in found.not_compared] == ["rows by table", "bytes by table"]
    assert found.not_compared[0].reason == "no verification of level archive or restore of A has counted them"


def test_tables_of_which_nothing_is_known() -> None:
    found = tables(None, rows(a=1), PLAIN, contents(tables="a"))
    assert (found.changes, found.unchanged) == ((), None)
    assert [one.what for one in found.not_compared] == ["rows by table", "bytes by table", "tables added and dropped"]


def test_a_table_whose_data_is_excluded_is_not_dropped() -> None:
    old, new = contents(tables="a log"), contents(tables="a log")
    (change,) = tables(rows(a=1, log=9), rows(a=1), old, new).changes
    assert (change.change, change.name, change.rows_before, change.rows_after) == ("changed", "log", 9, None)
    assert change.rows_change is None


def test_a_table_that_one_backup_did_not_count_is_neither_dropped_nor_changed() -> None:
    toc = contents(tables="a log")
    for other in (replace(rows(a=1), complete=False), replace(rows(a=1), with_extensions=False)):
        of_an_extension = tables(rows(a=1, cfg=2), other, toc, toc)
        assert (brief(of_an_extension), of_an_extension.unchanged) == ([], 2)
        assert NotCompared("public.cfg", "B has no count of their rows") in of_an_extension.not_compared
        assert brief(tables(other, rows(a=1, log=9), toc, toc)) == []
        assert brief(tables(rows(a=1, gone=2), other, contents(tables="a gone"), toc))[0][:2] == ("dropped", "gone")


def test_a_verified_backup_without_rows_is_counted(manifest: Manifest) -> None:
    backup = Backup(series=manifest.series, id=manifest.id, started_at=AT, committed_at=AT, size=5, state="written")
    evidence = Evidence(backup, manifest, (replace(verification_of(manifest, "archive", "pass", AT), tables=()),))
    found = counted(evidence, manifest)
    assert found is not None
    assert found.rows == {}
    assert counted(evidence, replace(manifest, options={"inserts": True})) is None
    unlisted = replace(evidence.verifications[0], checks=(Check(UNLISTED, "pass", None),))
    assert counted(Evidence(backup, manifest, (unlisted,)), manifest) is None, "too many tables for its file"


def test_rows_are_those_of_the_newest_verification(manifest: Manifest) -> None:
    def look(minutes: int, count: int, level: str = "archive", result: str = "pass") -> Verification:
        table = TableResult(schema="public", name="t", rows=count, sha256="1" * 64, result="pass")
        return replace(verification_of(manifest, level, result, AT + timedelta(minutes=minutes)), tables=(table, table))

    def of(*looks: Verification, counts: int | None = None) -> Counted | None:
        backup = Backup(series=manifest.series, id=manifest.id, started_at=AT, committed_at=AT, size=5, state="written")
        source = None if counts is None else (RowCount("public", "t", counts),)
        return counted(Evidence(backup, manifest, looks), replace(manifest, source_rows=source))

    def count(found: Counted | None) -> int | None:
        return found.rows[None, "public", "t"] if found else None

    assert count(of(look(1, 5), look(2, 6))) == 12, "a partitioned table may have several blocks"
    assert count(of(look(1, 5), look(2, 6, result="fail"))) == 10
    assert count(of(look(2, 6, result="fail"))) == 12
    assert count(of(look(1, 5, level="integrity"))) is None
    assert count(of(counts=7)) == 7
    found = of(look(1, 5), counts=7)
    assert found is not None
    assert found.source == "verification archive of 2026-11-22 02:01 UTC"
    assert found.digests[None, "public", "t"] is None
    assert count(of()) is None


# -- definitions -------------------------------------------------------------------------------------------------------


def test_objects_added_dropped_and_changed() -> None:
    old = {("TABLE", "a"): "CREATE TABLE a (\nid integer\n);", ("INDEX", "i"): "x", ("VIEW", "v"): "same"}
    new = {("TABLE", "a"): "CREATE TABLE a (\nid bigint\n);", ("INDEX", "j"): "x", ("VIEW", "v"): "same"}
    found = compare_definitions(contents(old), contents(new), ("18", "18"))
    assert [(one.change, one.kind, one.label, one.detail) for one in found.changes] == [
        ("dropped", "INDEX", "public.i", None),
        ("added", "INDEX", "public.j", None),
        ("changed", "TABLE", "public.a", "- id integer\n+ id bigint"),
    ]
    assert (found.unchanged, found.not_compared) == (1, ())


def test_nothing_secret_is_shown() -> None:
    old = {("FUNCTION", "f()"): "BEGIN\nPERFORM login('swordfish');\nEND"}
    new = {("FUNCTION", "f()"): "BEGIN\nPERFORM login('tr0ub4dor');\nEND"}
    (change,) = compare_definitions(contents(old), contents(new), ("18", "18")).changes
    assert change.detail == "1 line changed"


def test_very_long_changes_are_cut() -> None:
    old = {("TABLE", "a"): "\n".join(f"c{number} integer" for number in range(20))}
    new = {("TABLE", "a"): "x" * 5000}
    (change,) = compare_definitions(contents(old), contents(new), ("18", "18")).changes
    assert change.detail is not None
    lines = change.detail.splitlines()
    assert len(lines) == 7
    assert lines[-1] == "… and 15 more lines"
    assert max(map(len, lines)) <= 202


def test_a_restore_may_name_what_had_no_name() -> None:
    """A dump after the restore has these names, which is no change, nor one of order or white space."""

    def of(column: str) -> Contents:
        key, text = (None, "TABLE", "public", "a"), f"CREATE TABLE a (\n    {column}\n);"
        return replace(contents(), objects={key: (text,)}, digests={key: text.encode()})

    before, after = of("id integer NOT NULL"), of("id integer CONSTRAINT a_id_not_null1 NOT NULL")
    assert compare_definitions(before, after, ("18", "18")).changes == ()


def test_two_majors_are_compared_by_names() -> None:
    old = {("TABLE", "a"): "worded so", ("TABLE", "b"): "b"}
    new = {("TABLE", "a"): "worded otherwise", ("TABLE", "c"): "c"}
    found = compare_definitions(contents(old), contents(new), ("pg_dump 16 from PostgreSQL 16", "pg_dump 18 from …"))
    assert [(one.change, one.name) for one in found.changes] == [("dropped", "b"), ("added", "c")]
    assert [one.what for one in found.not_compared] == ["text of definitions"]


def test_no_table_of_contents() -> None:
    found = compare_definitions(PLAIN, contents({("TABLE", "a"): "a"}), ("18", "18"))
    assert (found.changes, found.unchanged) == ((), None)
    assert found.not_compared == (NotCompared("definitions", PLAIN),)
    assert compare_definitions(PLAIN, PLAIN, ("18", "18")).not_compared == (NotCompared("definitions", PLAIN),)


@pytest.mark.parametrize(("name", "quoted"), [("billing", "billing"), ('Bil"ling', '"Bil""ling"')])
def test_databases_of_two_names(name: str, quoted: str) -> None:
    def of(name: str, quoted: str) -> Contents:
        objects = {
            (None, "DATABASE", None, name): Counter([f"CREATE DATABASE {name}"]),
            (None, "ACL", None, f"DATABASE {quoted}"): Counter(["GRANT"]),
            (None, "TABLE", "public", "a"): Counter(["a"]),
        }
        return replace(contents(database=name), objects=objects)

    found = compare_definitions(of("app", "app"), of(name, quoted), ("18", "18"))
    assert (found.changes, found.unchanged) == ((), 1)
    assert [one.what for one in found.not_compared] == ["definition of the database itself"]


# -- properties --------------------------------------------------------------------------------------------------------


def test_versions_options_and_the_rest(manifest: Manifest) -> None:
    newer = replace(
        manifest,
        source=replace(manifest.source, server_version="18.5", encoding="LATIN1", host="other"),
        client=replace(manifest.client, version="18.5"),
        options={"exclude_tables": ["public.log_*"], "no_owner": True},
    )
    assert list(compare_properties(manifest, manifest)) == []
    assert list(compare_properties(manifest, newer)) == [
        PropertyChange("server version", "18.4", "18.5"),
        PropertyChange("client version", "pg_dump 18.4", "pg_dump 18.5"),
        PropertyChange("host", "h", "other"),
        PropertyChange("encoding", "UTF8", "LATIN1"),
        PropertyChange("option exclude_tables", None, '["public.log_*"]'),
        PropertyChange("option no_owner", None, "true"),
    ]
    assert versions(manifest) == versions(newer) == "pg_dump 18 from PostgreSQL 18"


def test_extensions(manifest: Manifest) -> None:
    def of(extensions: Mapping[str, str] | None) -> Manifest:
        return replace(manifest, source=replace(manifest.source, extensions=extensions))

    old, new = of({"plpgsql": "1.0", "postgis": "3.4.2", "hstore": "1.8"}), of({"plpgsql": "1.0", "postgis": "3.5.0"})
    assert list(compare_extensions(old, new)) == [
        PropertyChange("hstore", "1.8", None),
        PropertyChange("postgis", "3.4.2", "3.5.0"),
    ]
    (unknown,) = compare_extensions(of(None), new)
    assert isinstance(unknown, NotCompared)
    assert unknown.reason == f"the manifest of {manifest.id} does not record them"


def test_locales() -> None:
    libc = {"LOCALE_PROVIDER": "libc", "LOCALE": "C"}
    old, new = contents(locale=libc), contents(locale={**libc, "LOCALE": "de_DE.UTF-8"})
    assert list(compare_locales(old, new)) == [PropertyChange("locale", "C", "de_DE.UTF-8")]
    assert list(compare_locales(PLAIN, new)) == [NotCompared("locale", PLAIN)]
    assert list(compare_locales(contents(), new)) == [
        NotCompared("locale", "the table of contents has no CREATE DATABASE")
    ]


def test_what_options_leave_out(manifest: Manifest) -> None:
    old, new = replace(manifest, left_out=("table a", "table b")), replace(manifest, left_out=("table b", "table c"))
    assert list(compare_left_out(manifest, manifest)) == []
    assert list(compare_left_out(old, new)) == [
        PropertyChange("left out", "table a", None),
        PropertyChange("left out", None, "table c"),
    ]
    (unknown,) = compare_left_out(manifest, new)
    assert isinstance(unknown, NotCompared)


def test_measures(manifest: Manifest) -> None:
    larger = replace(manifest, artifact=replace(manifest.artifact, size=10), duration_seconds=2.5)
    found = [one for one in measures(manifest, larger) if isinstance(one, Measure)]
    assert [(one.name, one.change, one.percent) for one in found] == [
        ("artifact", 5, 100.0),
        ("database", 0, 0.0),
        ("duration", -2.5, -50.0),
    ]
    blind = replace(manifest, source=replace(manifest.source, size_bytes=None))
    assert [one.what for one in measures(manifest, blind) if isinstance(one, NotCompared)] == ["size of the database"]


def test_percent() -> None:
    assert (percent(0, 5), percent(None, 5), percent(5, None)) == (None, None, None)
    assert (percent(3, 4), percent(8, 0)) == (33.3, -100.0)


def test_labels() -> None:
    assert TableChange(change="added", database=None, schema="public", name="a").label == "public.a"
    assert TableChange(change="added", database="app", schema="public", name="a").label == "app.public.a"


def test_plpgsql_is_in_every_database() -> None:
    again = {("EXTENSION", None, "plpgsql"): ("x",), ("COMMENT", None, "EXTENSION plpgsql"): ("y",)}
    before, after = contents(), replace(contents(), objects={(None, *key): texts for key, texts in again.items()})
    assert compare_definitions(before, after, ("18", "18")).changes == ()
    assert compare_definitions(after, before, ("18", "18")).changes == ()
