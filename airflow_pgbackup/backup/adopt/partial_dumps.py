"""Find dumps of a part of a database: as its newest backup, one would let prune delete the complete ones."""

from __future__ import annotations

from collections.abc import Mapping

_OF_TABLES = ("CONSTRAINT", "INDEX")
_HAVE_TABLES = ("TABLE", "PARTITIONED TABLE", "FOREIGN TABLE", "MATERIALIZED VIEW", "EXTENSION")
KINDS = frozenset({*_OF_TABLES, *_HAVE_TABLES, "TABLE DATA", "STATISTICS DATA"})
"""Those that :func:`missing_part` uses."""


def missing_part(kinds: Mapping[str, int]) -> str | None:
    """Return what a dump lacks; None if it may have all of its database.

    pg_dump writes an entry ``TABLE DATA`` for an empty table too, but none for a partitioned or a foreign table. Of a
    table of an extension it writes the data without the definition.

    :param kinds: number of the objects of each kind, see :attr:`.Dump.kinds`.
    """
    tables, data = kinds.get("TABLE", 0), kinds.get("TABLE DATA", 0)
    if tables > 0 and not data:
        of = "its table" if tables == 1 else f"its {tables:,} tables"
        return f"it has no data of {of}, as with --schema-only"
    if not any(kinds.get(kind) for kind in _HAVE_TABLES):
        if data:
            return "it has data without the definitions of the tables, as with --data-only"
        if kinds.get("STATISTICS DATA"):
            return "it has statistics without their tables, as with --statistics-only"
        if any(kinds.get(kind) for kind in _OF_TABLES):
            return "it has indexes or constraints without their tables, as with --section=post-data"
    return None
