"""The result of one part of the campaign, as ``make campaign`` collects it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

Table = tuple[Sequence[str], Sequence[Sequence[object]]]
"""The names of the columns, and the rows."""


def part_result(
    part: str,
    *,
    seconds: float,
    parameters: Mapping[str, object],
    cases: int,
    outcomes: Mapping[str, int],
    violations: Sequence[Mapping[str, str]],
    tables: Mapping[str, Table],
    **more: object,
) -> dict[str, Any]:
    """Return the result of a part.

    :param violations: each with ``case``, which says how to repeat it, and ``what``.
    :param tables: by title.
    :param more: what only this part has.
    """
    return {
        "part": part,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds),
        "parameters": dict(parameters),
        "cases": cases,
        "outcomes": dict(outcomes),
        "violations": list(violations),
        "tables": {title: {"columns": columns, "rows": rows} for title, (columns, rows) in tables.items()},
        **more,
    }


def write_result(found: Mapping[str, Any], path: Path | None) -> None:
    """Write a result as JSON, if a file was asked for."""
    if path:
        path.write_text(json.dumps(found, indent=2, default=str, ensure_ascii=False) + "\n", encoding="utf-8")
