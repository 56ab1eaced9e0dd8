"""The options of the dump of a copy, whose definitions are compared with those of the original dump."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_pgbackup.errors import NotProven, OptionError
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.sql.patterns import pattern_regexes
from airflow_pgbackup.repository.manifest import Manifest

# Options of the original dump that concern its rows, its file or its time, not its definitions.
_NOT_REPEATED = frozenset(
    {
        "compress",
        "create",
        "data_only",
        "filters",
        "format",
        "include_foreign_data",
        "jobs",
        "lock_wait_timeout",
        "restrict_key",
        "schema_only",
        "sections",
        "sequence_data",
        "serializable_deferrable",
        "snapshot",
        "statistics",
        "strict_names",
        "verbose",
        "no_data",
        "rows_per_insert",
        "inserts",
        "column_inserts",
        "on_conflict_do_nothing",
        "exclude_table_data",
        "exclude_table_data_and_children",
        "role",
        "database",
        "enable_row_security",
    }
)


def repeated_options(manifest: Manifest, *, create: bool) -> DumpOptions | DumpAllOptions:
    """Return the options for the dump of the copy: those of the original dump, without rows."""
    try:
        given = _with_schemas({n: v for n, v in manifest.options.items() if n not in _NOT_REPEATED})
        if manifest.series.database is None:
            cluster = DumpAllOptions(**given)
            scoped = any((cluster.globals_only, cluster.roles_only, cluster.tablespaces_only))
            return cluster if scoped else replace(cluster, schema_only=True)
        if manifest.artifact.format == "plain":
            options = DumpOptions(**{**given, "format": "plain", "create": create})
        else:
            options = DumpOptions(
                **{**given, "format": "custom", "compress": "none", "clean": False, "if_exists": False}
            )
        # schema_only would exclude the owners and privileges of large objects.
        bare = manifest.options.get("schema_only") or manifest.options.get("no_data")
        return replace(options, schema_only=True) if bare else replace(options, exclude_table_data=["*.*"])
    except (TypeError, OptionError) as error:
        raise NotProven(
            f"the dump was made with options that this release does not know: {error}",
            hint="Upgrade airflow-pgbackup.",
        ) from None


def _with_schemas(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without patterns that depend on the search_path, which the manifest does not contain.

    A pattern of tables without a schema means those that are visible in the search_path of the role or the database.
    The copy has none that the dump leaves out, so a pattern to exclude is not needed, and one to include may mean all
    schemas, except those of every database.
    """
    found = dict(options)
    for name in ("exclude_tables", "exclude_tables_and_children"):
        if name in found:
            found[name] = [pattern for pattern in found[name] if _has_schema(pattern)]
    for name in ("tables", "tables_and_children"):
        if not all(map(_has_schema, patterns := found.get(name, ()))):
            found[name] = [pattern if _has_schema(pattern) else f"*.{pattern}" for pattern in patterns]
            found["exclude_tables"] = [*found.get("exclude_tables", ()), "pg_catalog.*", "information_schema.*"]
    return found


def _has_schema(pattern: str) -> bool:
    return len(pattern_regexes(pattern)) > 1
