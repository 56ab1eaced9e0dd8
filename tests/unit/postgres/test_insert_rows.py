"""Rows dumped as INSERT statements: what pg_dump writes passes, anything else is refused."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.sql.insert_rows import check_inserts

HEAD = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET statement_timeout = 0;\nSET x = 'on';\n\n"
TABLE = "--\n-- Data for Name: film; Type: TABLE DATA; Schema: public; Owner: app\n--\n\n"
END = "\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n"
ROW = "INSERT INTO public.film VALUES (1);\n"


class Pieces(io.BytesIO):
    """Returns at most so many bytes for each read, as a pipe does."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._most)


def check(data: str | bytes, *, standard_strings: bool = True, most: int = 1 << 16) -> None:
    data = data.encode() if isinstance(data, str) else data
    check_inserts(Pieces((HEAD + TABLE).encode() + data + END.encode(), most), standard_strings=standard_strings)


ACCEPTED = [
    "",
    ROW * 3,
    "INSERT INTO public.film VALUES (1, -2.50, 1e+20, 'NaN', NULL, DEFAULT, true, B'0101', 'it''s; COMMIT;', '\\');\n",
    'INSERT INTO "My ""schema"""."Film\n;" (id, "a""b", c_1) OVERRIDING SYSTEM VALUE VALUES (1, \'\', \'a\nb\');\n',
    "INSERT INTO public.film DEFAULT VALUES;\nINSERT INTO public.film DEFAULT VALUES;\n",
    "INSERT INTO public.film VALUES\n\t(1, 'a'),\n\t(2, ''''),\n\t(3, '\r\n-- x');\n",
    "INSERT INTO public.film VALUES\n\t(1) ON CONFLICT DO NOTHING;\n",
    "INSERT INTO film VALUES (1) ON CONFLICT DO NOTHING;\n",
    ROW + "\n\nSET search_path = public, \"a;b\", pg_catalog;\n\n" + TABLE + ROW,
    "INSERT INTO public.film VALUES ('" + "x" * 700_000 + "''" + "y" * 700_000 + "');\n" + ROW,
    f"INSERT INTO public.film VALUES ({', '.join(['1'] * 1600)});\n",
]  # fmt: skip


@pytest.mark.parametrize("data", ACCEPTED)
def test_what_pg_dump_writes_is_accepted(data: str) -> None:
    check(data)
    check(data, most=max(7, len(data) // 50))


def test_no_table_has_data() -> None:
    check_inserts(io.BytesIO((HEAD + END).encode()), standard_strings=True)
    check_inserts(io.BytesIO(b""), standard_strings=True)


@pytest.mark.parametrize(
    "data",
    [
        "INSERT INTO public.film VALUES ('plain', 'a\\\\b''c\\'; COMMIT; --', B'1', 1);\n",
        "INSERT INTO public.film VALUES\n\t('" + "\\\\" * 300_000 + "'),\n\t('\\'');\n",
    ],
)
def test_escapes_are_read_where_the_archive_has_them(data: str) -> None:
    check(data, standard_strings=False)
    check(data, standard_strings=False, most=max(7, len(data) // 50))
    with pytest.raises(VerificationFailed):
        check(data)


REFUSED = [
    "COMMIT;\n",
    "commit;",
    "COMMIT",
    "SELECT 1;\n",
    "SET standard_conforming_strings = off;\n",
    "SET search_path = public; COMMIT;\n",
    "-- a\rCOMMIT;\n",
    "/* a */ COMMIT;\n",
    "INSERT INTO public.film VALUES (1); COMMIT;\n",
    "INSERT INTO public.film VALUES (1)",
    "INSERT INTO public.film VALUES (1;\n",
    "INSERT INTO public.film VALUES ('a",
    "INSERT INTO public.film VALUES (set_config('standard_conforming_strings', 'off', false));\n",
    "INSERT INTO public.film VALUES (E'\\''); COMMIT; --');\n",
    "INSERT INTO public.film VALUES (1 --\r); COMMIT; --\n);\n",
    "INSERT INTO public.film VALUES ('a'\n'b');\n",
    "INSERT INTO public.film VALUES (E'a');\n",
    "INSERT INTO public.film VALUES (U&'a');\n",
    "INSERT INTO public.film VALUES ($$a$$);\n",
    "INSERT INTO public.film VALUES (1) RETURNING f();\n",
    "INSERT INTO public.film SELECT 1;\n",
    "COPY public.film (id) FROM stdin;\nCOMMIT;\n\\.\n",
    "1\tCOMMIT;\n",
    "\\restrict a\nCOMMIT;\n",
    "INSERT INTO public.film VALUES\n\t(1);COMMIT;\n",
    "INSERT INTO public.film VALUES\n\t(1),\n\t(2)",
    "INSERT INTO public.film VALUES (" + "x" * 3_000_000,
]


@pytest.mark.parametrize("data", REFUSED)
@pytest.mark.parametrize("before", ["", ROW])
@pytest.mark.parametrize("standard_strings", [True, False])
def test_anything_else_is_refused(data: str, before: str, standard_strings: bool) -> None:
    with pytest.raises(VerificationFailed, match=r"data of film; Type: TABLE DATA; .* something other") as raised:
        check(before + data, standard_strings=standard_strings)
    assert raised.value.hint


def test_without_any_table() -> None:
    with pytest.raises(VerificationFailed, match=r"^the archive contains something other than INSERT statements near"):
        check_inserts(io.BytesIO(b"x" * (2 << 20)), standard_strings=True)


def test_a_long_value_takes_little_memory() -> None:
    class Long(io.RawIOBase):
        left = 200

        def read(self, size: int = -1, /) -> bytes:
            self.left -= 1
            if self.left == 199:
                return (HEAD + TABLE + "INSERT INTO public.film VALUES ('").encode()
            return b"x" * (1 << 18) if self.left > 0 else b"');\n" if self.left == 0 else b""

    tracemalloc.start()
    check_inserts(Long(), standard_strings=True)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
