"""Globs of paths: ``*``, ``?``, ``[…]``, and ``**`` for any directories."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Glob:
    """A glob. It selects what it matches, and of directories everything below; ``*`` does not match a leading dot.

    :param parts: its path segments.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        self._deep = "**" in parts
        self._steps = [re.compile(_segment(part), re.DOTALL) for part in parts[: _index(parts, "**")]]
        *directories, last = parts
        expression = "".join("(?:[^/]+/)*" if part == "**" else f"{_segment(part)}/" for part in directories)
        self._whole = re.compile(expression + ("(?:[^/]+/)*[^/]+" if last == "**" else _segment(last)), re.DOTALL)

    @classmethod
    def literal(cls, name: str) -> Glob:
        """Return the glob that matches one name."""
        return cls([re.sub(r"([*?\[])", r"[\1]", name)])

    def selects(self, path: str) -> bool:
        """Return whether a path, or a directory above it, matches."""
        segments = path.split("/")
        return any(self._whole.fullmatch("/".join(segments[:count])) for count in range(1, len(segments) + 1))

    def leads_into(self, directory: str) -> bool:
        """Return whether something below a directory may be selected. :param directory: empty for the root."""
        segments = directory.split("/") if directory else []
        fits = all(step.fullmatch(segment) for step, segment in zip(self._steps, segments, strict=False))
        return (fits and (self._deep or len(segments) < len(self._steps))) or self.selects(directory)


def _index(parts: Sequence[str], wanted: str) -> int:
    return parts.index(wanted) if wanted in parts else len(parts)


_GLOB = re.compile(r"(?P<any>\*+)|(?P<one>\?)|\[(?P<not>!?)(?P<set>\]?[^\]]*)\]|(?P<literal>.)", re.DOTALL)


def _segment(part: str) -> str:
    expression = "" if part.startswith(".") else r"(?!\.)"
    for token in _GLOB.finditer(part):
        if token["literal"]:
            expression += re.escape(token["literal"])
        elif token["set"] is not None:
            characters = re.sub(r"([\\\]\[^&~|])", r"\\\1", token["set"])
            expression += f"[{'^' if token['not'] else ''}{characters}]"
        else:
            expression += "[^/]*" if token["any"] else "[^/]"
    return expression
