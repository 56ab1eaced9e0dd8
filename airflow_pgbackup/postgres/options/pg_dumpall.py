"""Every option of pg_dumpall, versions 15 to 18.

Source: the pg_dumpall manual page and ``pg_dumpall --help`` of each version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from airflow_pgbackup.postgres.options.kinds import (
    DatabaseName,
    FilePath,
    Key,
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
    ToolOptions,
    nothing_left,
)
from airflow_pgbackup.postgres.tools.capabilities import RESTRICT_SINCE

_SCOPES = ("globals_only", "roles_only", "tablespaces_only")


@dataclass(frozen=True, kw_only=True)
class DumpAllOptions(ToolOptions):
    """Options of pg_dumpall. https://www.postgresql.org/docs/current/app-pg-dumpall.html

    There is no ``create``: pg_dumpall always writes CREATE DATABASE, except for ``postgres`` and ``template1``.
    """

    tool: ClassVar[str] = "pg_dumpall"

    verbose: bool = switch("--verbose", "name each object in the log")
    lock_wait_timeout: int | str | None = row(
        Timeout("--lock-wait-timeout", "give up after waiting so long for a lock; milliseconds, or '2min'")
    )
    data_only: bool = switch("--data-only", "no definitions, no roles, no tablespaces")
    clean: bool = switch("--clean", "drop databases, roles and tablespaces before recreating them")
    encoding: str | None = text("--encoding", "character set of the dump")
    globals_only: bool = switch("--globals-only", "roles and tablespaces, no databases")
    no_owner: bool = switch("--no-owner", "do not restore who owns what")
    roles_only: bool = switch("--roles-only", "roles, nothing else")
    schema_only: bool = switch("--schema-only", "definitions, no data")
    superuser: str | None = text("--superuser", "who disables triggers at restore")
    tablespaces_only: bool = switch("--tablespaces-only", "tablespaces, nothing else")
    no_privileges: bool = switch("--no-privileges", "no GRANT and REVOKE")
    column_inserts: bool = switch("--column-inserts", "data as INSERT with column names")
    disable_dollar_quoting: bool = switch("--disable-dollar-quoting", "quote function bodies in the standard's way")
    disable_triggers: bool = switch("--disable-triggers", "disable triggers while data is restored")
    exclude_databases: Sequence[str] = many("--exclude-database", "not these databases")
    extra_float_digits: int | None = number("--extra-float-digits", "precision of floats", low=-15, high=3)
    filters: Sequence[str | os.PathLike[str]] = row(
        FilePath("--filter", "files on the worker that say which databases to exclude", ((17, 0),), repeat=True)
    )
    if_exists: bool = switch("--if-exists", "drop objects only where they exist; with clean")
    inserts: bool = switch("--inserts", "data as INSERT")
    load_via_partition_root: bool = switch("--load-via-partition-root", "restore partitions through their root table")
    no_comments: bool = switch("--no-comments", "no comments")
    no_data: bool = switch("--no-data", "no data", since=18)
    no_policies: bool = switch("--no-policies", "no row security policies", since=18)
    no_publications: bool = switch("--no-publications", "no publications")
    no_role_passwords: bool = switch("--no-role-passwords", "no role passwords; does not read pg_authid")
    no_schema: bool = switch("--no-schema", "no definitions, no roles, no tablespaces", since=18)
    no_security_labels: bool = switch("--no-security-labels", "no security labels")
    no_subscriptions: bool = switch("--no-subscriptions", "no subscriptions")
    no_sync: bool = switch("--no-sync", "do not wait for files to reach the disk")
    no_table_access_method: bool = switch("--no-table-access-method", "no table access methods")
    no_tablespaces: bool = switch("--no-tablespaces", "no tablespaces, everything into the default one")
    no_toast_compression: bool = switch("--no-toast-compression", "no TOAST compression methods")
    no_unlogged_table_data: bool = switch("--no-unlogged-table-data", "not the rows of unlogged tables")
    on_conflict_do_nothing: bool = switch("--on-conflict-do-nothing", "add ON CONFLICT DO NOTHING; with INSERT")
    quote_all_identifiers: bool = switch("--quote-all-identifiers", "quote every name")
    restrict_key: str | None = row(Key("--restrict-key", "psql's \\restrict key", RESTRICT_SINCE, secret=True))
    rows_per_insert: int | None = number("--rows-per-insert", "data as INSERT of so many rows")
    sequence_data: bool = switch("--sequence-data", "the values of sequences, even without other data", since=18)
    statistics: bool | None = pair("--statistics", "--no-statistics", "planner statistics", since=18)
    statistics_only: bool = switch("--statistics-only", "planner statistics and nothing else", since=18)
    use_set_session_authorization: bool = switch(
        "--use-set-session-authorization", "set owners by SET SESSION AUTHORIZATION"
    )
    database: str | None = row(DatabaseName("--database", "where the roles are read; None: postgres, else template1"))
    role: str | None = text("--role", "SET ROLE before dumping")

    conflicts: ClassVar[Sequence[tuple[str, str]]] = (
        *ONLY_CONFLICTS,
        ("globals_only", "roles_only"),
        ("globals_only", "tablespaces_only"),
        ("roles_only", "tablespaces_only"),
        *((scope, "exclude_databases") for scope in _SCOPES),
    )
    requires: ClassVar[Mapping[str, Sequence[str]]] = {
        "if_exists": ("clean",),
        "on_conflict_do_nothing": ("inserts", "column_inserts", "rows_per_insert"),
    }

    def _contradictions(self, given: set[str]) -> Iterator[tuple[str, str]]:
        # pg_dumpall accepts these, and exits with 0 and an empty dump.
        for scope in given.intersection(_SCOPES):
            for rest in given.intersection(("data_only", "statistics_only", "no_schema")):
                yield f"{scope} and {rest} leave nothing to dump", f"Leave {rest} out: {scope} dumps definitions only."
        if {"tablespaces_only", "no_tablespaces"} <= given:
            yield "tablespaces_only and no_tablespaces leave nothing to dump", "Leave one of them out."
        yield from nothing_left(given)
