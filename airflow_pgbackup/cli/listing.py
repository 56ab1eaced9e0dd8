"""Records for people: one line each, also when piped; folded on a terminal that is too narrow for that.

Names and ids are never cut, and no line is broken inside a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.text import Text

from airflow_pgbackup.terminal import styled
from airflow_pgbackup.text import printable

_GAP = "  "
_INDENT = "    "
_LEAST = 24
"""Characters that the last column must have to be wrapped in its place."""

Cell = str | Text


@dataclass
class Listing:
    """Records with a header.

    :param header: one name for each column.
    :param names: how many of the first columns name the record; they begin it when it is folded.
    :param right: numbers of the columns that are aligned to the right.
    :param labeled: numbers of the columns whose value says nothing without its name, which then precedes it where the
        record is folded: ``rows 3``.
    """

    header: Sequence[str]
    names: int
    right: Sequence[int] = ()
    labeled: Sequence[int] = ()
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        """Add a record."""
        self.rows.append(cells)

    def plain(self) -> list[str]:
        """Return the lines without styles, of any length: no terminal shows them, and rich takes its time."""
        rows = [[cell if isinstance(cell, str) else cell.plain for cell in row] for row in self.rows]
        return columns([self.header, *rows], self.right)

    def lines(self, width: int) -> Iterator[Text]:
        """Yield the lines. :param width: of the terminal in characters."""
        header = [styled(name, "bold") for name in self.header]
        rows = [[styled(cell, "") if isinstance(cell, str) else cell for cell in row] for row in self.rows]
        widths = [max(cell.cell_len for cell in column) for column in zip(header, *rows, strict=True)]
        before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
        if before + widths[-1] <= width:
            room = widths[-1]
        elif width - before >= max(_LEAST, *(_longest_word(row[-1]) for row in rows)):
            room = width - before
        else:
            for row in rows:
                yield from self._folded(row, width)
            return
        for row in (header, *rows):
            first, *more = _wrapped(row[-1], room)
            cells = [self._aligned(number, cell, widths[number]) for number, cell in enumerate(row[:-1])]
            line = _joined(_GAP, [*cells, first])
            line.rstrip()
            yield line
            for rest in more:
                yield _joined("", [styled(" " * before, ""), rest])

    def _aligned(self, number: int, cell: Text, width: int) -> Text:
        padding = styled(" " * (width - cell.cell_len), "")
        return _joined("", [padding, cell] if number in self.right else [cell, padding])

    def _folded(self, row: Sequence[Text], width: int) -> Iterator[Text]:
        names: list[Text] = []
        for cell in filter(None, row[: self.names]):
            if names and names[-1].cell_len + len(_GAP) + cell.cell_len <= width:
                names[-1] = _joined(_GAP, [names[-1], cell])
            else:
                names.append(cell)
        yield from names
        cells = [(number, cell) for number, cell in enumerate(row) if number >= self.names and cell]
        rest = _joined(
            ", ",
            [_joined(" ", [styled(self.header[n], ""), cell]) if n in self.labeled else cell for n, cell in cells],
        )
        for line in _wrapped(rest, width - len(_INDENT)):
            yield _joined("", [styled(_INDENT, ""), line])


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return the rows as aligned lines of any length: one record is one line, also when piped."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        cells = [
            " " * (width - cell_len(cell)) + cell if number in right else cell + " " * (width - cell_len(cell))
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _joined(gap: str, parts: Iterable[Text]) -> Text:
    return styled(gap, "").join(parts)


def _longest_word(text: Text) -> int:
    return max((word.cell_len for word in text.split(" ")), default=0)


def _wrapped(text: Text, width: int) -> list[Text]:
    """Return the text in lines of at most `width`, if no word is longer."""
    if text.cell_len <= width:
        return [text]
    lines: list[Text] = []
    for word in text.split(" "):
        if lines and lines[-1].cell_len + 1 + word.cell_len <= width:
            lines[-1] = _joined(" ", [lines[-1], word])
        else:
            lines.append(word)
    return lines
