"""The counted rows of a source and those of an archive: what is a difference, and what cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_pgbackup.backup.source_comparison import compare_with_source
from airflow_pgbackup.repository.manifest import RowCount
from airflow_pgbackup.repository.verification import TableResult

LOST = "table public.film: row count mismatch: expected 2 as in the source, found no data of the table"
LEFT_OUT = "1 not in the archive: filters, extra_args or the encoding may be why"


@pytest.mark.parametrize(
    ("source", "archived", "options", "differences", "text"),
    [
        ({"film": 2}, [("film", 2)], {}, [], "1 table with the source's rows"),
        (
            {"film": 1000},
            [("film", 999)],
            {},
            ["table public.film: row count mismatch: expected 1,000 as in the source, found 999"],
            "1 table with the source's rows",
        ),
        ({"film": 2}, [], {}, [LOST], "1 table with the source's rows"),
        ({"film": 2}, [], {"schemas": ["public"]}, [LOST], "1 table with the source's rows"),
        # Dumped as INSERT, an empty table leaves nothing in a plain dump.
        ({"film": 0}, [], {}, [], "1 table with the source's rows"),
        # Several blocks through the root of a partitioned table.
        ({"film": 3}, [("film", 1), ("film", 2)], {}, [], "1 table with the source's rows"),
        # Rows of an extension or of a foreign server are not counted in the source.
        ({"film": 2}, [("film", 2), ("config", 9)], {}, [], "1 table with the source's rows"),
        ({"film": 2, "a": 1}, [("a", 1)], {"filters": ["f"]}, [], f"1 table with the source's rows; {LEFT_OUT}"),
        ({"film": 2}, [], {"extra_args": ["--new"]}, [], f"0 tables with the source's rows; {LEFT_OUT}"),
        ({"film": 2, "a": 1}, [("a", 1)], {"filters": []}, [LOST], "2 tables with the source's rows"),
        # A name that was decoded with another codec.
        ({"größe": 2}, [("gr\udcf6\udcdfe", 2)], {}, [], f"0 tables with the source's rows; {LEFT_OUT}"),
        ({"größe": 2, "film": 2}, [("größe", 2)], {}, [LOST], "2 tables with the source's rows"),
        (
            {"größe": 2},
            [],
            {},
            ["table public.größe: row count mismatch: expected 2 as in the source, found no data of the table"],
            "1 table with the source's rows",
        ),
    ],
)
def test_what_is_compared(
    source: dict[str, int], archived: list[tuple[str, int]], options: dict[str, Any], differences: list[str], text: str
) -> None:
    counts = [RowCount("public", name, rows) for name, rows in source.items()]
    tables = [TableResult(schema="public", name=name, rows=rows, sha256=None, result="pass") for name, rows in archived]
    found = compare_with_source(counts, tables, options)
    assert list(found.differences) == differences
    assert str(found) == text
