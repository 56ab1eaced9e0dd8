"""Compare a script with the table of contents that pg_restore made it from."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import pytest

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.script_reader import ScriptReader
from airflow_pgbackup.postgres.archive.summary import ArchiveSummary
from airflow_pgbackup.postgres.archive.toc import TocEntry

HEAD = "--\n-- PostgreSQL database dump\n--\n\n"
TRAILER = "--\n-- PostgreSQL database dump complete\n--\n\n"


def entry(dump_id: int, name: str, *, kind: str = "TABLE DATA", copies: bool = True, definition: str = "") -> TocEntry:
    copy = f"COPY public.{name} (a) FROM stdin;\n" if copies else None
    return TocEntry(dump_id, 0, 0, kind, "public", name, "owner", copy_statement=copy, definition=definition)


def block(name: str, data: str = "1\n") -> str:
    return f"--\n-- Data for Name: {name}; Type: TABLE DATA\n--\n\nCOPY public.{name} (a) FROM stdin;\n{data}\\.\n\n\n"


def read(script: str, entries: Sequence[TocEntry] | None) -> ArchiveSummary:
    summary = ArchiveSummary()
    for _ in ScriptReader(io.BytesIO((HEAD + script + TRAILER).encode()), summary, entries).blocks():
        pass
    return summary


def test_each_entry_has_its_block() -> None:
    read(block("a") + block("b", "") + block("c"), [entry(7, "a"), entry(8, "b"), entry(9, "c")])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        # pg_restore joins a member without an end marker to the next one, whose COPY becomes a row.
        (
            block("a").replace("\\.\n\n\n", "") + block("b") + block("c"),
            r"after the data of TABLE DATA public.a \(entry 7\): expected TABLE DATA public.b \(entry 8\), found "
            r"COPY public.c \(a\) FROM stdin;",
        ),
        (
            block("a") + block("b").replace("1\n\\.\n\n\n", "") + block("c"),
            r"the data of 1 of 3 tables is missing, first TABLE DATA public.c \(entry 9\)",
        ),
        (block("a") + block("b") + block("c").replace("\\.\n\n\n", ""), "ends inside the table data"),
        ("", "the data of 3 of 3 tables is missing, first TABLE DATA public.a"),
        (
            block("b") + block("a") + block("c"),
            r"at the first COPY: expected TABLE DATA public.a .*, found COPY public.b",
        ),
        (block("a") + block("b") + block("c") + block("d"), "expected no more data, found COPY public.d"),
    ],
)
def test_an_entry_without_its_own_block_is_detected(script: str, message: str) -> None:
    with pytest.raises(VerificationFailed, match=message):
        read(script, [entry(7, "a"), entry(8, "b"), entry(9, "c")])


def header(kind: str, name: str = "a", begin: str = "") -> str:
    return f"--\n-- {begin}Name: {name}; Type: {kind}; Schema: public; Owner: app\n--\n\n"


ROWS = header("TABLE DATA", begin="Data for ")
VALUE = header("SEQUENCE SET")
REFRESH = header("MATERIALIZED VIEW DATA")
COPY = "COPY public.a (n) FROM stdin;\n\\.\n\n"
SETVAL = "SELECT pg_catalog.setval('public.a', 7, true);\n"


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (VALUE, "SEQUENCE SET"),
        (VALUE + VALUE + SETVAL, "SEQUENCE SET"),
        (VALUE + "REFRESH MATERIALIZED VIEW public.a;\n", "SEQUENCE SET"),
        (VALUE + ROWS + COPY, "SEQUENCE SET"),
        (REFRESH, "MATERIALIZED VIEW DATA"),
        (REFRESH + header("INDEX") + "CREATE INDEX a ON b (c);\n", "MATERIALIZED VIEW DATA"),
        (ROWS + ROWS + COPY, "TABLE DATA"),
        (ROWS + COPY + ROWS, "TABLE DATA"),
    ],
)
def test_a_header_without_its_data_is_detected(script: str, kind: str) -> None:
    with pytest.raises(VerificationFailed, match=f"the data is missing after the header {kind} public.a at byte "):
        read(script, None)


@pytest.mark.parametrize(
    "script",
    [
        ROWS + COPY + VALUE + "SET SESSION AUTHORIZATION app;\n\n" + SETVAL + VALUE + SETVAL,
        REFRESH + "REFRESH MATERIALIZED VIEW public.a;\n" + header("INDEX"),
        ROWS + ROWS,  # all tables are empty, with INSERT
        ROWS + ROWS + "INSERT INTO public.a VALUES (1);\n" + ROWS,
        header("TABLE") + header("MATERIALIZED VIEW"),
    ],
)
def test_a_header_with_its_data_and_others_pass(script: str) -> None:
    read(script, None)


def test_an_empty_table_dumped_as_inserts_is_listed() -> None:
    entries = [entry(7, "a", copies=False), entry(8, "b", copies=False)]
    summary = read("INSERT INTO public.b VALUES (1);\nINSERT INTO public.b VALUES (2);\n", entries)
    assert {(table.name, table.rows, table.comparable) for table in summary.tables} == {
        ("a", 0, "inserts"),
        ("b", 2, "inserts"),
    }


OBJECTS = "".join(
    f"SELECT pg_catalog.lo_open('{oid}', 131072);\nSELECT pg_catalog.lo_close(0);\n\n" for oid in (11, 12)
)


@pytest.mark.parametrize(
    "listed",
    [
        [entry(7, "11", kind="BLOB", copies=False), entry(8, "12", kind="BLOB", copies=False)],
        [entry(7, "11..12", kind="BLOB METADATA", copies=False, definition="11\n12\n")],
    ],
    ids=["before 17", "since 17"],
)
def test_the_number_of_large_objects_is_compared_with_the_table_of_contents(listed: list[TocEntry]) -> None:
    data = entry(9, "BLOBS", kind="BLOBS", copies=False)
    (objects,) = read(OBJECTS, [*listed, data]).large_objects
    assert [oid for oid, _, _ in objects] == [11, 12]
    with pytest.raises(VerificationFailed, match="large objects with data: found 1, expected 2"):
        read(OBJECTS[: len(OBJECTS) // 2], [*listed, data])
    read("", listed)  # definitions only


def test_large_object_data_without_lo_open_is_an_error() -> None:
    with pytest.raises(VerificationFailed, match="without its lo_open"):
        read("SELECT pg_catalog.lowrite(0, '\\x00');\n", None)


CONTENT = bytes(range(256)) + b"a\\b'c"


def escaped(data: bytes) -> str:
    """Return what PQescapeBytea() of 8.4 makes of it without standard_conforming_strings."""
    special = {ord("'"): "''", ord("\\"): "\\" * 4}
    return "".join(special.get(byte, chr(byte) if 32 <= byte < 127 else f"\\\\{byte:03o}") for byte in data)


@pytest.mark.parametrize(
    "script",
    [
        # pg_dump 8.4, and pg_restore 18 of an archive by 8.4
        "SET standard_conforming_strings = off;\nSELECT lo_open(lo_create(16404), 131072);\n"
        f"SELECT lowrite(0, '{escaped(CONTENT)}');\nSELECT lo_close(0);\n\n",
        "SELECT pg_catalog.lo_open(pg_catalog.lo_create('16404'), 131072);\n"
        f"SELECT pg_catalog.lowrite(0, '\\x{CONTENT.hex()}');\nSELECT pg_catalog.lo_close(0);\n\n",
    ],
    ids=["8.4", "18"],
)
def test_large_objects_of_old_versions(script: str) -> None:
    (objects,) = read(script, None).large_objects
    assert list(objects) == [(16404, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()[:32])]


@pytest.mark.parametrize("data", [r"a\\", r"\777", r"\x0", r"\12", r"a\b"])
def test_invalid_data_of_a_large_object(data: str) -> None:
    script = f"SELECT lo_open(lo_create(16404), 131072);\nSELECT lowrite(0, '{data}');\n"
    with pytest.raises(VerificationFailed, match="data of a large object"):
        read(script.replace(r"\\", "\\"), None)


def test_the_encoding_of_each_database() -> None:
    cluster = "--\n-- PostgreSQL database cluster dump\n--\n\nSET client_encoding = 'UTF8';\n\n"
    latin = f"\\connect a\n\n{HEAD}SET client_encoding = 'LATIN1';\n\n{TRAILER}"
    create = f"{HEAD}SET client_encoding = 'UTF8';\n\nCREATE DATABASE b;\n\n"
    utf = f"{create}\\connect b\n\nSET client_encoding = 'UTF8';\n\n{TRAILER}"
    end = TRAILER.replace("database dump", "database cluster dump")
    summary = ArchiveSummary()
    list(ScriptReader(io.BytesIO((cluster + latin + utf + end).encode()), summary).blocks())
    assert summary.encodings == {None: "UTF8", "a": "LATIN1", "b": "UTF8"}


def test_old_dumps_have_the_schema_in_the_search_path() -> None:
    script = HEAD + "SET search_path = old, pg_catalog;\n\nCOPY actor (actor_id) FROM stdin;\n1\n\\.\n\n\n" + TRAILER
    blocks = ScriptReader(io.BytesIO(script.encode()), ArchiveSummary()).blocks()
    assert [block.key for block in blocks] == [(None, "old", "actor")]
