"""Compare the rows that were counted in the source of a dump with those in its archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.manifest import RowCount
from airflow_pgbackup.repository.verification import TableResult

# Options whose effect on tables is not known: filter files are not read, and extra_args are of newer clients.
_UNKNOWN = ("filters", "extra_args")


@dataclass(frozen=True)
class SourceComparison:
    """The result of a comparison.

    :param differences: a line for each table whose number of rows in the archive differs.
    :param compared: the number of tables that were compared.
    :param not_compared: the number of tables that the archive may lack because of the dump's options.
    """

    differences: Sequence[str]
    compared: int
    not_compared: int

    def __str__(self) -> str:
        text = f"{counted(self.compared, 'table')} with the source's rows"
        if not self.not_compared:
            return text
        return f"{text}; {self.not_compared} not in the archive: filters, extra_args or the encoding may be why"


def compare_with_source(
    source: Sequence[RowCount], archived: Iterable[TableResult], options: Mapping[str, object]
) -> SourceComparison:
    """Compare the counted tables with those of the archive.

    :param options: of the dump, as in its manifest.
    """
    rows: Counter[tuple[str, str]] = Counter()
    for each in archived:
        if each.database is None:
            rows[each.schema, each.name] += each.rows
    differences: list[str] = []
    not_compared = 0
    tables = {(count.schema, count.name) for count in source}
    unknown = any(options.get(name) for name in _UNKNOWN)
    # The codecs of Python and PostgreSQL can decode the names in a dump differently, but not those in ASCII.
    renamed = any(not _is_ascii(table) for table in rows.keys() - tables)
    for count in source:
        table = (count.schema, count.name)
        if table not in rows and (unknown or (renamed and not _is_ascii(table))):
            not_compared += 1
        elif rows[table] != count.rows:
            found = f"{rows[table]:,}" if table in rows else "no data of the table"
            expected = f"expected {count.rows:,} as in the source, found {found}"
            differences.append(f"table {count.schema}.{count.name}: row count mismatch: {expected}")
    return SourceComparison(differences, len(source) - not_compared, not_compared)


def _is_ascii(table: tuple[str, str]) -> bool:
    return table[0].isascii() and table[1].isascii()
