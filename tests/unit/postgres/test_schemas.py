"""Which schemas a dump uses and does not create."""

from __future__ import annotations

import io

import pytest

from airflow_pgbackup.postgres.definitions.script_scan import scan_script

SCRIPT = """--
-- PostgreSQL database dump
--

-- Dumped from database version 18.0

{body}
--
-- PostgreSQL database dump complete
--

"""


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ("-- Name: y; Type: TABLE; Schema: x; Owner: o\n--\nCREATE TABLE x.y (n integer);", {"x"}),
        ("-- Name: y; Type: TABLE; Schema: public; Owner: o\n--\nCREATE TABLE public.y (n integer);", set()),
        (
            "-- Name: x; Type: SCHEMA; Schema: -; Owner: o\n--\nCREATE SCHEMA x;\n"
            "-- Name: y; Type: TABLE; Schema: x; Owner: o\n--\nCREATE TABLE x.y (n integer);",
            set(),
        ),
        ('-- Name: y; Type: TABLE; Schema: a "b; Owner: o\n--\nCREATE TABLE "a\n""b".y (n integer);', {'a\n"b'}),
        ('-- Name: y; Type: TABLE; Schema: a b; Owner: o\n--\nCREATE TABLE "a b".y (n integer);', {"a b"}),
        ("-- Name: y; Type: TABLE; Schema: a b; Owner: o\n--", {"a b"}),
        ("-- Data for Name: y; Type: TABLE DATA; Schema: x; Owner: o\n--\nCOPY x.y (n) FROM stdin;\n\\.\n", {"x"}),
        ('CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA "Ext";', {"Ext"}),
        ("CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog;", set()),
        # A name may look like a comment.
        ("-- Name: y; Type: TABLE; Schema: no; Type: TABLE; Schema: x; Owner: o\n--", {"x"}),
    ],
)
def test_schemas_that_a_script_lacks(body: str, missing: set[str]) -> None:
    (section,) = scan_script(io.BytesIO(SCRIPT.format(body=body).encode())).sections
    assert section.schemas.missing() == missing
