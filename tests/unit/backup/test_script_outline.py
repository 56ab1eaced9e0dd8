"""What the lines of a script say, however it is cut into pieces."""

from __future__ import annotations

import pytest

from airflow_pgbackup.backup.adopt.script_outline import ScriptOutline

HEAD = b"--\n-- PostgreSQL database dump\n--\n\n"
END = b"--\n-- PostgreSQL database dump complete\n--\n\n"


def header(kind: str, name: str = "t", data: str = "") -> bytes:
    return f"--\n-- {data}Name: {name}; Type: {kind}; Schema: public; Owner: a\n--\n\n".encode()


TABLE = header("TABLE") + b"CREATE TABLE public.t (a text)\nPARTITION BY RANGE (a);\n\n" + header("TABLE", "u")
DATA = header("TABLE DATA", "u", "Data for ")
COPY = DATA + b"COPY public.u (a) FROM stdin;\n" + b"\\N\n" * 60 + END + HEAD + b"\\.\n\n\n"
INSERTS = DATA + b"INSERT INTO public.u VALUES ('x');\n" * 200 + b"\n"


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("data", [COPY, INSERTS], ids=["copy", "inserts"])
def test_objects_are_counted_and_rows_are_not_read(data: bytes, line_end: bytes, size: int) -> None:
    script = (HEAD + TABLE + data + header("INDEX") + b"CREATE INDEX i;\n" + data + END).replace(b"\n", line_end)
    outline = ScriptOutline(cluster=False)
    for start in range(0, len(script), size):
        outline.add(script[start : start + size])
    assert +outline.kinds == {"TABLE": 1, "PARTITIONED TABLE": 1, "TABLE DATA": 2, "INDEX": 1}
    assert not outline.several
    outline.add(HEAD)
    outline.add(b"SET a;\n")
    assert outline.several


def test_a_line_of_a_function_makes_no_table_partitioned() -> None:
    outline = ScriptOutline(cluster=False)
    outline.add(HEAD + TABLE + header("FUNCTION", "f") + b"SELECT row_number() OVER (\nPARTITION BY a);\n\n" * 2)
    assert +outline.kinds == {"TABLE": 1, "PARTITIONED TABLE": 1}


def test_names_of_kinds_are_not_collected() -> None:
    outline = ScriptOutline(cluster=False)
    outline.add(HEAD + b"".join(header(f"KIND {number}") for number in range(1000)) + TABLE)
    assert set(outline.kinds) == {"TABLE", "PARTITIONED TABLE"}


def test_the_databases_of_a_cluster_are_not_several_dumps() -> None:
    cluster = b"--\n-- PostgreSQL database cluster dump\n--\n\n--\n-- Roles\n--\n\n\\connect a\n\n"
    outline = ScriptOutline(cluster=True)
    outline.add(cluster + (HEAD + COPY + END) * 2 + END.replace(b"database", b"database cluster"))
    assert (outline.several, outline.parts, outline.kinds["TABLE DATA"]) == (False, {"roles", "databases"}, 2)
    outline.add(HEAD)
    assert outline.several


def test_a_line_of_many_mebibytes_is_not_held() -> None:
    outline = ScriptOutline(cluster=False)
    outline.add(HEAD + DATA + b"COPY public.u (a) FROM stdin;\n")
    for _ in range(50):
        outline.add(b"x" * (1 << 20))
    assert len(outline._rest) < 1 << 16
    outline.add(b"\n\\.\n\n" + END + HEAD)
    assert outline.several
