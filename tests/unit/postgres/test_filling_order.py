"""Whether tables must be filled in the order of the archive."""

from __future__ import annotations

import pytest

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.definitions.filling_order import depends_on_order

CHECKED = "CREATE TABLE public.t (\n    a text,\n    CONSTRAINT c CHECK (public.f(a))\n);"
READS = "LANGUAGE sql\n    AS $_$select exists (select from public.country where code = $1)$_$;"
COMPUTES = "LANGUAGE sql IMMUTABLE\n    AS $_$select extract(year from $1) > 0$_$;"


def entry(kind: str, name: str, definition: str) -> TocEntry:
    return TocEntry(1, 0, 0, kind, "public", name, "app", definition)


def function(text: str, name: str = "f(text)") -> TocEntry:
    return entry("FUNCTION", name, f"CREATE FUNCTION public.{name} RETURNS boolean\n    {text}")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([entry("TABLE", "t", CHECKED), function(READS)], True),
        ([entry("TABLE", "t", CHECKED), function(COMPUTES)], False),
        ([entry("TABLE", "t", "CREATE TABLE public.t (\n a text DEFAULT public.f('x')\n);"), function(READS)], False),
        ([entry("TABLE", "t", CHECKED.replace("f(", '"F f"(')), function(READS, '"F f"(text)')], True),
        ([entry("DOMAIN", "d", "CREATE DOMAIN public.d AS text\n\tCONSTRAINT c CHECK (public.f(VALUE));"),
          function(READS)], True),
        ([entry("TABLE", "t", "CREATE TABLE public.t (\n    b text GENERATED ALWAYS AS (public.f(a)) STORED\n);"),
          function(READS)], True),
        ([entry("TABLE", "t", CHECKED), function("LANGUAGE sql\n    AS $_$select public.g($1)$_$;"),
          function("LANGUAGE plpgsql\n    AS 'begin return exists (select from t where a = ''x''); end';", "g(text)")],
         True),
        ([entry("TABLE", "t", CHECKED), function("LANGUAGE sql\n    BEGIN ATOMIC\n SELECT a FROM public.u;\nEND;")],
         True),
        ([entry("TABLE", "t", CHECKED), function("LANGUAGE plpgsql\n    AS $$begin execute x; end$$;")], True),
        ([entry("TABLE", "t", CHECKED), function("LANGUAGE plpython3u\n    AS $$return True$$;")], True),
        ([entry("TABLE", "t", CHECKED), function("LANGUAGE c\n    AS '$libdir/x', 'f';")], False),
        ([entry("TABLE", "t", CHECKED.replace("public.f(a)", "a OPERATOR(public.=) a")), function(READS),
          entry("OPERATOR", "=", "CREATE OPERATOR public.= (\n    FUNCTION = public.f,\n    RIGHTARG = text\n);")],
         True),
        ([entry("CHECK CONSTRAINT", "t c", "ALTER TABLE public.t ADD CONSTRAINT c CHECK (public.f(a)) NOT VALID;"),
          function(READS)], False),
        ([entry("TABLE", "t", CHECKED)], False),
    ],
)  # fmt: skip
def test_functions_that_read_tables(entries: list[TocEntry], expected: bool) -> None:
    assert depends_on_order(entries) is expected
