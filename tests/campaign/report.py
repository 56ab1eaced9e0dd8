"""Write the results of the campaign into docs/reliability.md: ``python -m tests.campaign.report [RESULTS]``.

The tables of a part stand between ``<!-- campaign: PART -->`` and ``<!-- campaign: end -->``. Parts without a result
stay as they are. What was injected stands before them, what was found and fixed after them, written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BLOCK = re.compile(r"(<!-- campaign: (\w+) -->\n).*?(<!-- campaign: end -->)", re.DOTALL)


def main() -> None:
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".campaign"

    def block(match: re.Match[str]) -> str:
        result = results / f"{match[2]}.json"
        if not result.exists():
            print(f"no result: {match[2]}")
            return match[0]
        return match[1] + summary(json.loads(result.read_text())) + match[3]

    PAGE.write_text(BLOCK.sub(block, PAGE.read_text()))


def summary(found: dict[str, Any]) -> str:
    """Return a part's result as Markdown."""
    parameters = ", ".join(f"{name} {cell(value)}" for name, value in found.get("parameters", {}).items())
    outcomes = "; ".join(f"{count:,} {name}" for name, count in found.get("outcomes", {}).items())
    counts = [f"{found.get('cases', 0):,} cases", outcomes, f"{len(found.get('violations', []))} violations"]
    lines = [
        f"On {found['date'][:10]}, {found['seconds']:,.0f} s ({parameters or 'no parameters'}): "
        f"{', '.join(filter(None, counts))}.",
        "",
    ]
    for title, table in found.get("tables", {}).items():
        columns = [cell(column) for column in table["columns"]]
        lines += [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in table["rows"]]
        lines.append("")
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int | float):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    main()
