"""Every option of pg_dump, versions 15 to 18.

Source: the pg_dump manual page and ``pg_dump --help`` of each version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from airflow_pgbackup.postgres.options.compression import Compression
from airflow_pgbackup.postgres.options.kinds import (
    Choice,
    FilePath,
    Key,
    Option,
    Timeout,
    many,
    number,
    pair,
    row,
    switch,
    text,
)
from airflow_pgbackup.postgres.options.tool import (
    ONLY_CONFLICTS,
    SECTIONS,
    ToolOptions,
    nothing_left,
)
from airflow_pgbackup.postgres.tools.capabilities import RESTRICT_SINCE, Version
from airflow_pgbackup.postgres.tools.clients import Client


@dataclass(frozen=True)
class Compress(Option):
    """``--compress``: its spelling depends on the client, see :mod:`.compression`."""

    def check_one(self, name: str, value: object) -> None:
        Compression.parse(value)  # type: ignore[arg-type]  # parse() refuses other types

    def render(self, value: Any, client: Client | Version) -> list[str]:
        return [] if value is None else [f"{self.flag}={Compression.parse(value).argument(client)}"]


@dataclass(frozen=True, kw_only=True)
class DumpOptions(ToolOptions):
    """Options of pg_dump. https://www.postgresql.org/docs/current/app-pgdump.html

    ``clean``, ``create``, ``if_exists``, ``no_owner`` and similar options are for the restore: with an archive format,
    pg_restore has most of them. Patterns are those of psql's ``\\d``.
    """

    tool: ClassVar[str] = "pg_dump"

    format: str = row(
        Choice("--format", "format of the artifact", required=True, choices=("custom", "directory", "tar", "plain")),
        "custom",
    )
    jobs: int | None = number("--jobs", "tables dumped at once; directory format only")
    verbose: bool = switch("--verbose", "name each object in the log")
    compress: int | str | None = row(Compress("--compress", "gzip level 0 to 9, or method[:detail] (16 or newer)"))
    lock_wait_timeout: int | str | None = row(
        Timeout("--lock-wait-timeout", "give up after waiting so long for a lock; milliseconds, or '2min'")
    )
    no_sync: bool = switch("--no-sync", "do not wait for files to reach the disk")
    sync_method: str | None = row(
        Choice("--sync-method", "how files are made to reach the disk", ((17, 0),), choices=("fsync", "syncfs"))
    )
    data_only: bool = switch("--data-only", "no definitions")
    large_objects: bool | None = pair(
        "--large-objects",
        "--no-large-objects",
        "large objects; None: with everything, but not with selected schemas or tables",
        renamed=("--blobs", "--no-blobs", 16),
    )
    clean: bool = switch("--clean", "drop objects before recreating them")
    create: bool = switch("--create", "create the database itself, with its settings and privileges")
    extensions: Sequence[str] = many("--extension", "only these extensions")
    encoding: str | None = text("--encoding", "character set of the dump")
    schemas: Sequence[str] = many("--schema", "only these schemas")
    exclude_schemas: Sequence[str] = many("--exclude-schema", "not these schemas")
    no_owner: bool = switch("--no-owner", "do not restore who owns what")
    schema_only: bool = switch("--schema-only", "definitions, no data")
    superuser: str | None = text("--superuser", "who disables triggers at restore")
    tables: Sequence[str] = many("--table", "only these tables, views, sequences")
    exclude_tables: Sequence[str] = many("--exclude-table", "not these tables")
    no_privileges: bool = switch("--no-privileges", "no GRANT and REVOKE")
    column_inserts: bool = switch("--column-inserts", "data as INSERT with column names")
    disable_dollar_quoting: bool = switch("--disable-dollar-quoting", "quote function bodies in the standard's way")
    disable_triggers: bool = switch("--disable-triggers", "disable triggers while data is restored")
    enable_row_security: bool = switch("--enable-row-security", "dump only the rows this user may see")
    exclude_extensions: Sequence[str] = many("--exclude-extension", "not these extensions", since=17)
    exclude_tables_and_children: Sequence[str] = many(
        "--exclude-table-and-children", "not these tables, nor their children and partitions", since=16
    )
    exclude_table_data: Sequence[str] = many("--exclude-table-data", "not the rows of these tables")
    exclude_table_data_and_children: Sequence[str] = many(
        "--exclude-table-data-and-children", "not the rows of these tables, their children and partitions", since=16
    )
    extra_float_digits: int | None = number("--extra-float-digits", "precision of floats", low=-15, high=3)
    filters: Sequence[str | os.PathLike[str]] = row(
        FilePath("--filter", "files on the worker that say what to include and exclude", ((17, 0),), repeat=True)
    )
    if_exists: bool = switch("--if-exists", "drop objects only where they exist; with clean")
    include_foreign_data: Sequence[str] = many("--include-foreign-data", "rows of foreign tables on these servers")
    inserts: bool = switch("--inserts", "data as INSERT")
    load_via_partition_root: bool = switch("--load-via-partition-root", "restore partitions through their root table")
    no_comments: bool = switch("--no-comments", "no comments")
    no_data: bool = switch("--no-data", "no data", since=18)
    no_policies: bool = switch("--no-policies", "no row security policies", since=18)
    no_publications: bool = switch("--no-publications", "no publications")
    no_schema: bool = switch("--no-schema", "no definitions", since=18)
    no_security_labels: bool = switch("--no-security-labels", "no security labels")
    no_subscriptions: bool = switch("--no-subscriptions", "no subscriptions")
    no_table_access_method: bool = switch("--no-table-access-method", "no table access methods")
    no_tablespaces: bool = switch("--no-tablespaces", "everything into the default tablespace")
    no_toast_compression: bool = switch("--no-toast-compression", "no TOAST compression methods")
    no_unlogged_table_data: bool = switch("--no-unlogged-table-data", "not the rows of unlogged tables")
    on_conflict_do_nothing: bool = switch("--on-conflict-do-nothing", "add ON CONFLICT DO NOTHING; with INSERT")
    quote_all_identifiers: bool = switch("--quote-all-identifiers", "quote every name")
    restrict_key: str | None = row(
        Key("--restrict-key", "psql's \\restrict key; plain format only", RESTRICT_SINCE, secret=True)
    )
    rows_per_insert: int | None = number("--rows-per-insert", "data as INSERT of so many rows")
    sections: Sequence[str] = row(Choice("--section", "only these sections", repeat=True, choices=SECTIONS))
    sequence_data: bool = switch("--sequence-data", "the values of sequences, even without other data", since=18)
    serializable_deferrable: bool = switch("--serializable-deferrable", "wait for a moment free of anomalies")
    snapshot: str | None = text("--snapshot", "the name of an exported snapshot")
    statistics: bool | None = pair("--statistics", "--no-statistics", "planner statistics", since=18)
    statistics_only: bool = switch("--statistics-only", "planner statistics and nothing else", since=18)
    strict_names: bool = switch("--strict-names", "fail where a pattern matches nothing")
    tables_and_children: Sequence[str] = many(
        "--table-and-children", "only these tables, their children and partitions", since=16
    )
    use_set_session_authorization: bool = switch(
        "--use-set-session-authorization", "set owners by SET SESSION AUTHORIZATION"
    )
    role: str | None = text("--role", "SET ROLE before dumping")

    conflicts: ClassVar[Sequence[tuple[str, str]]] = (
        *ONLY_CONFLICTS,
        ("schema_only", "include_foreign_data"),
        ("jobs", "include_foreign_data"),
    )
    requires: ClassVar[Mapping[str, Sequence[str]]] = {
        "if_exists": ("clean",),
        "on_conflict_do_nothing": ("inserts", "column_inserts", "rows_per_insert"),
    }

    def _contradictions(self, given: set[str]) -> Iterator[tuple[str, str]]:
        if "jobs" in given and self.format != "directory":
            yield f"jobs={self.jobs} and format={self.format!r} cannot be combined", "Use format='directory' with jobs."
        if self.format == "tar" and self.compress is not None and Compression.parse(self.compress).method != "none":
            yield f"compress={self.compress!r} and format='tar' cannot be combined", "Use format='custom' to compress."
        if "restrict_key" in given and self.format != "plain":
            yield (
                f"restrict_key and format={self.format!r} cannot be combined",
                "Leave it out: only plain format has it.",
            )
        yield from nothing_left(given, self.sections)
        if {"snapshot", "serializable_deferrable"} <= given:
            yield (
                "snapshot and serializable_deferrable cannot be combined",
                "Leave one of them out: the server imports no snapshot into a deferrable transaction.",
            )
