"""A problem of a mapping: where it is, and what it is, as one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from airflow_pgbackup.errors import FleetError, MappingError
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import printable

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the mapping."""

_MOST_NAMES = 30
_MOST_PROBLEMS = 100
_LONGEST = 2000
"""Characters of the description of one problem: 30 known names take fewer."""


@dataclass(frozen=True)
class Problem:
    """One problem.

    :param path: where it is.
    :param text: what is wrong and what to do, without the values found there.
    :param line: the line, if the path has none or another one.
    """

    path: Path
    text: str
    line: int = 0


@dataclass(frozen=True)
class Origin:
    """Where a mapping comes from.

    :param name: the file's name; empty for a Python mapping.
    :param lines: the line of each path, from 1; empty for a Python mapping.
    :param raises: the class of its errors.
    """

    name: str = ""
    lines: Mapping[Path, int] = field(default_factory=dict)
    raises: type[MappingError] = FleetError

    def error(self, problems: Iterable[Problem]) -> MappingError:
        """Return one error for all problems, in the order of their lines; it describes the first 100 of them."""
        ordered = sorted(problems, key=self._line)
        lines = [self._describe(problem) for problem in ordered[:_MOST_PROBLEMS]]
        if more := ordered[_MOST_PROBLEMS:]:
            lines.append(f"and {counted(len(more), 'more problem')}")
        return self.raises(lines)

    def _line(self, problem: Problem) -> int:
        path = problem.path
        while path and path not in self.lines:
            path = path[:-1]
        return problem.line or self.lines.get(path, 0)

    def _describe(self, problem: Problem) -> str:
        line = self._line(problem)
        parts = (f"{self.name}:{line}" if line else self.name, _dotted(problem.path), problem.text)
        text = printable(": ".join(part for part in parts if part))
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _dotted(path: Path) -> str:
    """Return ``servers.crm.databases[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean 'schedule'?``, or the names that are known if none is similar and they are few."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=1) or [each for each in known if name and each.startswith(name)]
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known) or 'none'}" if len(known) <= _MOST_NAMES else ""
