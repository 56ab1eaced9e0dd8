"""Choose the entries of an archive that are needed to restore a few tables beside the live ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from airflow_pgbackup.errors import ConfigurationError, OptionError
from airflow_pgbackup.postgres.archive.toc import SETTING_KINDS, TocEntry
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.sql.anybytes import is_utf8
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.wording import parameter, parameters

# Options that select the tables, and those that a restore into a new schema always uses.
_ACCEPTED = frozenset(
    {"tables", "schemas", "role", "verbose", "no_owner", "no_privileges", "no_tablespaces", "strict_names"}
)

# Entries that belong to a table, and depend on its entry or on another one that belongs to it.
_PARTS = frozenset(
    {
        "SEQUENCE", "SEQUENCE OWNED BY", "SEQUENCE SET", "DEFAULT", "CONSTRAINT", "CHECK CONSTRAINT", "INDEX",
        "INDEX ATTACH", "TABLE ATTACH", "COMMENT",
    }
)  # fmt: skip


def check_beside(schema: str, options: RestoreOptions, manifest: Manifest) -> None:
    """Check that tables can be restored into a new schema with these options.

    :raises ConfigurationError: they cannot.
    """
    if manifest.kind == "cluster":
        raise ConfigurationError(
            f"{parameter('into_schema')} cannot be used with the backup of a cluster",
            hint="Choose the backup of one database.",
        )
    if not (is_utf8(schema) and 0 < len(schema.encode()) <= 63) or "\0" in schema or schema.startswith("pg_"):
        raise ConfigurationError(
            f"invalid name of a new schema: {schema!r}",
            hint="Give 1 to 63 bytes of UTF-8 that do not begin with pg_, which PostgreSQL reserves.",
        )
    if not options.tables:
        raise OptionError(f"{parameter('into_schema')} needs {parameter('tables')}", hint="Name the tables to restore.")
    if others := sorted(options.describe().keys() - _ACCEPTED):
        raise OptionError(
            f"{parameter(others[0])} cannot be combined with {parameter('into_schema')}",
            hint=f"Only {parameters('tables', 'schemas', 'role')} can be given.",
        )


def own_schema(schema: str) -> ConfigurationError:
    return ConfigurationError(
        f'the backup has a schema "{schema}" of its own, which the tables pass through',
        hint="Choose another name for the new schema.",
    )


def select_tables(entries: Sequence[TocEntry], tables: Sequence[str], schemas: Collection[str]) -> list[TocEntry]:
    """Return the entries that restore these tables with their partitions, indexes, constraints, sequences and rows, and
    what they depend on, in the archive's order.

    Foreign keys, triggers, rules, policies, extended statistics and privileges are left out. Functions may call others
    that the archive does not record as a dependency, so if there is one, all functions and extensions are restored.

    :raises OptionError: a table is not in the archive, or is in more than one schema.
    """
    by_id = {entry.dump_id: entry for entry in entries}
    chosen = _chosen(entries, tables, schemas)
    kept = set(chosen)
    names = {(by_id[number].schema, by_id[number].name) for number in chosen}
    kept |= {e.dump_id for e in entries if e.kind == "TABLE DATA" and (e.schema, e.name) in names}
    belonging = set(chosen)
    while True:
        more = {
            entry.dump_id
            for entry in entries
            if entry.kind in _PARTS
            and entry.dump_id not in belonging
            and belonging.intersection(entry.depends_on)
            # A chosen partition, or its index, is not attached to its parent, unless that is chosen too.
            and (not entry.kind.endswith(" ATTACH") or _ends(entry, by_id) <= belonging)
        }
        if not more:
            break
        belonging |= more
    kept = _closure(kept | belonging, by_id)
    if any(by_id[number].kind == "FUNCTION" for number in kept):
        kept = _closure(kept | {e.dump_id for e in entries if e.kind in ("FUNCTION", "EXTENSION")}, by_id)
    return [entry for entry in entries if entry.dump_id in kept or entry.kind in SETTING_KINDS]


def _chosen(entries: Sequence[TocEntry], tables: Sequence[str], schemas: Collection[str]) -> set[int]:
    """Return the dump IDs of the tables and of all their partitions."""
    by_id = {entry.dump_id: entry for entry in entries}
    chosen: set[int] = set()
    for name in tables:
        found = [e for e in entries if e.kind == "TABLE" and e.name == name and (not schemas or e.schema in schemas)]
        require_one(name, [f"{entry.schema}" for entry in found])
        chosen.add(found[0].dump_id)
    attached = [entry for entry in entries if entry.kind == "TABLE ATTACH"]
    while True:
        more = set()
        for entry in attached:
            ends = _ends(entry, by_id)
            child = {n for n in ends if (by_id[n].schema, by_id[n].name) == (entry.schema, entry.name)}
            if (ends - child) & chosen:
                more |= {n for n in child - chosen if by_id[n].kind == "TABLE"}
        if not more:
            return chosen
        chosen |= more


def foreign_partitions(entries: Sequence[TocEntry], selected: Sequence[TocEntry]) -> list[str]:
    """Return the foreign tables that are partitions of the selected tables, which are left out."""
    by_id = {entry.dump_id: entry for entry in entries}
    tables = {entry.dump_id for entry in selected if entry.kind == "TABLE"}
    attached = [_ends(entry, by_id) for entry in entries if entry.kind == "TABLE ATTACH"]
    foreign = {n for ends in attached if ends & tables for n in ends if by_id[n].kind == "FOREIGN TABLE"}
    return sorted(f"{by_id[number].schema}.{by_id[number].name}" for number in foreign)


def left_out_partition(table: str) -> str:
    return f"foreign table {table} is left out, a partition of a restored table: its rows are on another server"


def require_one(table: str, schemas: Sequence[str]) -> None:
    """Check that a table is in exactly one schema.

    :raises OptionError: it is not.
    """
    if not schemas:
        raise OptionError(
            f'the backup has no table "{table}"',
            hint="Give the name without its schema, exactly as it is written. A view or foreign table cannot be given.",
        )
    if len(schemas) > 1:
        raise OptionError(
            f'table "{table}" is in schemas {", ".join(sorted(schemas))}',
            hint=f"Choose one of them with {parameter('schemas')}.",
        )


def _ends(entry: TocEntry, by_id: dict[int, TocEntry]) -> set[int]:
    """Return the tables, or the indexes, that a TABLE ATTACH or INDEX ATTACH ties together."""
    kinds = ("TABLE", "FOREIGN TABLE") if entry.kind == "TABLE ATTACH" else ("INDEX", "CONSTRAINT")
    return {number for number in entry.depends_on if number in by_id and by_id[number].kind in kinds}


def _closure(numbers: set[int], by_id: dict[int, TocEntry]) -> set[int]:
    """Return the entries and all that they depend on."""
    found: set[int] = set()
    left = list(numbers)
    while left:
        number = left.pop()
        if number in by_id and number not in found:
            found.add(number)
            left += by_id[number].depends_on
    return found
