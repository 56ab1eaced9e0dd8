"""Which tables, and the rows of which tables, a dump with given options contains: pg_dump's rules, by query.

Source: ``expand_table_name_patterns`` and ``selectDumpableTable`` in ``src/bin/pg_dump/pg_dump.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.findings import first_named
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.sql.patterns import pattern_regexes
from airflow_pgbackup.quantities import counted

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_SCHEMAS: LiteralString = """
select oid from pg_catalog.pg_namespace where nspname operator(pg_catalog.~) %s collate pg_catalog.default
"""
# A pattern without a schema matches the tables that are visible in the search path, as in psql.
_TABLES: LiteralString = """
with recursive found(oid) as (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind = any (array['r', 'S', 'v', 'm', 'f', 'p']::"char"[])
       and c.relname operator(pg_catalog.~) %s collate pg_catalog.default
       and case when %s::text is null then c.oid = any (%s::pg_catalog.oid[])
                else n.nspname operator(pg_catalog.~) %s collate pg_catalog.default end
    union
    select i.inhrelid from pg_catalog.pg_inherits i join found on i.inhparent = found.oid where %s
)
select oid from found
"""
# A sequence owned by a column is dumped with its table; that of an identity column only with it.
_OWNED: LiteralString = """
select d.objid, d.refobjid, d.deptype = 'i' from pg_catalog.pg_depend d join pg_catalog.pg_class c on c.oid = d.objid
 where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refclassid = d.classid
   and c.relkind = 'S' and d.deptype in ('a', 'i')
"""
_EXTENSIONS: LiteralString = """
select oid from pg_catalog.pg_extension where extname operator(pg_catalog.~) %s collate pg_catalog.default
"""


@dataclass(frozen=True)
class Selection:
    """The contents of a dump. Tables and schemas are OIDs; None stands for all.

    :param no_rows: tables without their rows.
    :param owners: maps a sequence to the table that owns it, and whether it is an identity column's.
    :param rows: the dump contains rows.
    :param large_objects: the dump contains large objects.
    """

    schemas: frozenset[int] | None
    no_schemas: frozenset[int]
    tables: frozenset[int] | None
    no_tables: frozenset[int]
    no_rows: frozenset[int]
    owners: dict[int, tuple[int, bool]]
    rows: bool
    large_objects: bool

    def takes(self, table: int, schema: int) -> bool:
        """Return whether the dump has the definition of a table, so that pg_dump locks it."""
        owner, identity = self.owners.get(table, (None, False))
        if owner is not None and self._takes(owner, schema):
            return True
        return not identity and self._takes(table, schema)

    def takes_rows(self, table: int, schema: int) -> bool:
        """Return whether the dump has the rows of a table."""
        return self.rows and self.takes(table, schema) and table not in self.no_rows

    def _takes(self, table: int, schema: int) -> bool:
        if table in self.no_tables:
            return False
        if self.tables is not None:
            return table in self.tables
        return (self.schemas is None or schema in self.schemas) and schema not in self.no_schemas


def select(db: InspectedDatabase, options: DumpOptions | DumpAllOptions) -> Selection:
    """Return what a dump with these options contains. Patterns that match nothing are findings."""
    rows = _takes_rows(options)
    owners = {sequence: (table, identity) for sequence, table, identity in db.rows(_OWNED)}
    if isinstance(options, DumpAllOptions):
        return Selection(None, frozenset(), None, frozenset(), frozenset(), owners, rows, rows)
    look = _Patterns(db)
    tables = look.tables("tables", options.tables) | look.tables("tables_and_children", options.tables_and_children)
    schemas = look.schemas("schemas", options.schemas)
    look.extensions("extensions", options.extensions)
    narrowed = any((options.tables, options.tables_and_children, options.schemas, options.extensions))
    large_objects = options.large_objects
    if large_objects is None:
        large_objects = rows and not narrowed
    if options.filters:
        db.warning(
            "filters",
            f"{db.where}: check does not read filter files, so it covers more than the dump",
            "Ignore findings about objects that your filter files exclude.",
        )
    return Selection(
        schemas=schemas if options.schemas else None,
        no_schemas=look.schemas("exclude_schemas", options.exclude_schemas),
        tables=tables if options.tables or options.tables_and_children else None,
        no_tables=look.tables("exclude_tables", options.exclude_tables)
        | look.tables("exclude_tables_and_children", options.exclude_tables_and_children),
        no_rows=look.tables("exclude_table_data", options.exclude_table_data)
        | look.tables("exclude_table_data_and_children", options.exclude_table_data_and_children),
        owners=owners,
        rows=rows,
        large_objects=large_objects,
    )


def _takes_rows(options: DumpOptions | DumpAllOptions) -> bool:
    sections = options.sections if isinstance(options, DumpOptions) else ()
    return not (options.schema_only or options.no_data or options.statistics_only) and (
        not sections or "data" in sections
    )


@dataclass
class _Patterns:
    """Expands the patterns of options."""

    db: InspectedDatabase

    @cached_property
    def visible(self) -> list[int]:
        return self.db.visible_relations()

    def schemas(self, option: str, patterns: Sequence[str]) -> frozenset[int]:
        return self._expand(option, patterns, lambda parts: self.db.rows(_SCHEMAS, parts[-1]))

    def extensions(self, option: str, patterns: Sequence[str]) -> frozenset[int]:
        return self._expand(option, patterns, lambda parts: self.db.rows(_EXTENSIONS, parts[-1]))

    def tables(self, option: str, patterns: Sequence[str]) -> frozenset[int]:
        def ask(parts: list[str]) -> list[tuple[int]]:
            schema = parts[-2] if len(parts) > 1 else None
            visible = [] if schema is not None else self.visible
            return self.db.rows(_TABLES, parts[-1], schema, visible, schema, option.endswith("_and_children"))

        return self._expand(option, patterns, ask)

    def _expand(
        self, option: str, patterns: Sequence[str], ask: Callable[[list[str]], list[tuple[int]]]
    ) -> frozenset[int]:
        found: set[int] = set()
        unmatched = []
        for pattern in patterns:
            oids = {oid for (oid,) in ask(pattern_regexes(pattern))}
            found |= oids
            if not oids:
                unmatched.append(pattern)
        if unmatched:
            # pg_dump itself reports only the case that no pattern of an option matches, unless --strict-names is set.
            excluding = option.startswith("exclude_")
            (self.db.warning if excluding else self.db.error)(
                "pattern",
                f"{self.db.where}: {counted(len(unmatched), 'pattern')} of {option} "
                f"{'match' if len(unmatched) > 1 else 'matches'} nothing: "
                + first_named([repr(one) for one in unmatched]),
                "Quote names that are not lower case, and name the schema of tables outside the user's search_path.",
                unmatched,
            )
        return frozenset(found)
