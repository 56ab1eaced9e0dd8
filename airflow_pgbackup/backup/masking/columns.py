"""The tables and columns of a database, as rules see them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

SCHEMA = "pgbackup_masking"
"""Ours, in the copy, while it is loaded."""

_REFERENCE_DATA = frozenset(
    {
        *("postgis", "postgis_topology", "postgis_tiger_geocoder"),
        *("address_standardizer_data_us", "timescaledb"),
    }
)
"""Extensions whose tables hold reference systems, dictionaries, or what belongs to the extension itself."""

_TYPES = """
    WITH RECURSIVE base AS (
        SELECT oid, oid AS root, typnotnull AS required, typtypmod AS typmod FROM pg_type
        UNION ALL
        SELECT b.oid, t.typbasetype, b.required OR u.typnotnull,
            CASE WHEN b.typmod >= 0 THEN b.typmod ELSE u.typtypmod END
        FROM base b JOIN pg_type t ON t.oid = b.root JOIN pg_type u ON u.oid = t.typbasetype
        WHERE t.typtype = 'd' AND t.typbasetype <> 0
    )
    SELECT b.oid, b.required, b.typmod, t.typname, t.typtype, t.typcategory, e.typname, e.typtype
    FROM base b JOIN pg_type t ON t.oid = b.root LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
    WHERE t.typtype <> 'd' AND b.oid IN (SELECT atttypid FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped)
"""
_TABLES = """
    SELECT c.oid, n.nspname, c.relname, c.relkind,
        (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
            AND d.refclassid = 'pg_extension'::regclass),
        EXISTS (SELECT FROM pg_extension e WHERE c.oid = ANY (e.extconfig)),
        coalesce((SELECT array_agg(inhparent) FROM pg_inherits WHERE inhrelid = c.oid), '{}'),
        coalesce((SELECT p.partattrs::int2[] FROM pg_partitioned_table p WHERE p.partrelid = c.oid), '{}')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', %s)
        AND c.relpersistence <> 't'
    ORDER BY n.nspname, c.relname
"""
_COLUMNS = """
    SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod),
        a.attnotnull, a.attgenerated, a.attidentity
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
    ORDER BY a.attrelid, a.attnum
"""


@dataclass(frozen=True)
class Column:
    """A column.

    :param type: as ``format_type`` writes it, with the schema where it is needed.
    :param base: the name of the type below domains; of an array that of its elements: ``varchar``, ``int4``.
    :param length: of ``varchar(n)`` and ``char(n)``, else 0.
    :param digits: before the point of ``numeric(p, s)``, negative if it has room for none; else 0.
    :param generated: the server computes it.
    :param partition_key: it decides to which partition a row belongs.
    """

    schema: str
    table: str
    name: str
    type: str
    base: str
    length: int = 0
    digits: int = 0
    array: bool = False
    enum: bool = False
    not_null: bool = False
    generated: bool = False
    identity: bool = False
    partition_key: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.schema, self.table, self.name)

    def __str__(self) -> str:
        """Return ``public.customer.email``, as a rule for it is written."""
        return column_text(*self.key)


@dataclass(frozen=True)
class Table:
    """A table.

    :param partitioned: it has no rows of its own.
    :param exempt: it belongs to an extension, and a dump contains no rows of it or only rows that are not about people,
        so wildcards do not match it.
    :param parents: oids of the tables that it inherits from, or whose partition it is.
    """

    oid: int
    schema: str
    name: str
    partitioned: bool
    exempt: bool
    parents: tuple[int, ...]
    columns: tuple[Column, ...] = field(repr=False, default=())

    def __str__(self) -> str:
        return f"{name_text(self.schema)}.{name_text(self.name)}"


def name_text(name: str) -> str:
    """Return a name as a pattern writes it: in double quotes unless it is plain."""
    plain = name.isascii() and name.replace("_", "a").isalnum() and name == name.lower()
    return name if plain and name else '"' + name.replace('"', '""') + '"'


def column_text(schema: str, table: str, column: str) -> str:
    """Return ``public.customer.email``."""
    return ".".join(map(name_text, (schema, table, column)))


def read_tables(
    connection: psycopg.Connection[Any], dumped: Collection[tuple[str, str]] | None = None
) -> dict[int, Table]:
    """Return the tables of a database by oid: those of extensions too, foreign ones not, as a dump has no rows of them.

    :param connection: in autocommit mode.
    :param dumped: the tables of which the archive has rows; None: those of which a dump of the database would have.
    """

    def exempt(schema: str, name: str, extension: str | None, configuration: bool) -> bool:
        has_rows = configuration if dumped is None else (schema, name) in dumped
        return extension is not None and (extension in _REFERENCE_DATA or not has_rows)

    with connection.transaction():
        connection.execute("SET LOCAL search_path = ''")
        types = {row[0]: row[1:] for row in connection.execute(_TYPES)}
        tables = connection.execute(_TABLES, [SCHEMA]).fetchall()
        columns: dict[int, list[tuple[Any, ...]]] = {}
        for relation, *column in connection.execute(_COLUMNS):
            columns.setdefault(relation, []).append(tuple(column))
    partition_keys = _partition_keys(tables, columns)
    return {
        oid: Table(
            oid,
            schema,
            name,
            partitioned=kind == "p",
            exempt=exempt(schema, name, extension, configuration),
            parents=tuple(map(int, parents)),
            columns=tuple(
                _column(schema, name, each, types, each[1] in partition_keys.get(oid, ()))
                for each in columns.get(oid, ())
            ),
        )
        for oid, schema, name, kind, extension, configuration, parents, _ in tables
    }


def _partition_keys(tables: list[tuple[Any, ...]], columns: dict[int, list[tuple[Any, ...]]]) -> dict[int, set[str]]:
    """Return the names of partition key columns by table, also by partition."""
    found: dict[int, set[str]] = {}
    for oid, *_, attributes in tables:
        names = {name for number, name, *_ in columns.get(oid, ()) if number in attributes}
        if names:
            found[oid] = names
    children: dict[int, list[int]] = {}
    for oid, *_, parents, _ in tables:
        for parent in parents:
            children.setdefault(int(parent), []).append(oid)
    waiting = list(found)
    while waiting:
        parent = waiting.pop()
        for child in children.get(parent, ()):
            if not found[parent] <= found.get(child, set()):
                found[child] = found.get(child, set()) | found[parent]
                waiting.append(child)
    return found


def _column(
    schema: str, table: str, row: tuple[Any, ...], types: dict[int, tuple[Any, ...]], partition_key: bool
) -> Column:
    _, name, type_oid, typmod, text, not_null, generated, identity = row
    required, domain_typmod, base, kind, category, element, element_kind = types.get(
        type_oid, (False, -1, "", "b", "U", None, None)
    )
    typmod = typmod if typmod >= 0 else domain_typmod
    array = category == "A" and element is not None
    base, kind = (element, element_kind) if array else (base, kind)
    digits = 0
    if base == "numeric" and typmod >= 4:  # numeric_typmod_scale() in src/backend/utils/adt/numeric.c
        scale = ((typmod - 4 & 0x7FF) ^ 1024) - 1024
        digits = (typmod - 4 >> 16 & 0xFFFF) - scale or -1
    return Column(
        schema,
        table,
        name,
        text,
        base,
        length=typmod - 4 if base in ("varchar", "bpchar") and typmod >= 4 else 0,
        digits=digits,
        array=array,
        enum=kind == "e",
        not_null=not_null or required,
        generated=generated not in ("", b""),
        identity=identity not in ("", b""),
        partition_key=partition_key,
    )
