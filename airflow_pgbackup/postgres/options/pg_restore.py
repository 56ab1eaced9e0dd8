"""Every option of pg_restore, versions 15 to 18.

Source: the pg_restore manual page and ``pg_restore --help`` of each version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from airflow_pgbackup.postgres.options.kinds import Choice, FilePath, Key, many, number, pair, row, switch, text
from airflow_pgbackup.postgres.options.tool import (
    ONLY_CONFLICTS,
    SECTIONS,
    ToolOptions,
    nothing_left,
)
from airflow_pgbackup.postgres.tools.capabilities import RESTRICT_SINCE


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(ToolOptions):
    """Options of pg_restore. https://www.postgresql.org/docs/current/app-pgrestore.html

    Names are exact: pg_restore has no patterns. ``functions`` are written as in its list, ``'f(integer)'``.
    """

    tool: ClassVar[str] = "pg_restore"
    not_offered: ClassVar[Mapping[str, str]] = {
        "--format": "pg_restore finds it in the artifact",
        "--list": "it lists, and restores nothing",
    }

    verbose: bool = switch("--verbose", "name each object in the log")
    data_only: bool = switch("--data-only", "no definitions")
    clean: bool = switch("--clean", "drop objects before recreating them")
    create: bool = switch("--create", "create the database itself, with its settings and privileges")
    exit_on_error: bool = switch("--exit-on-error", "stop at the first error")
    indexes: Sequence[str] = many("--index", "only these indexes")
    jobs: int | None = number("--jobs", "connections that restore at once; custom and directory formats")
    use_list: str | os.PathLike[str] | None = row(  # noqa: RUF009  # ruff does not know row() makes a field
        FilePath("--use-list", "a file on the worker with the table of contents: what to restore, in which order")
    )
    schemas: Sequence[str] = many("--schema", "only these schemas")
    exclude_schemas: Sequence[str] = many("--exclude-schema", "not these schemas")
    no_owner: bool = switch("--no-owner", "do not restore who owns what")
    functions: Sequence[str] = many("--function", "only these functions, with their argument types")
    schema_only: bool = switch("--schema-only", "definitions, no data")
    superuser: str | None = text("--superuser", "who disables triggers")
    tables: Sequence[str] = many("--table", "only these tables, views, sequences")
    triggers: Sequence[str] = many("--trigger", "only these triggers")
    no_privileges: bool = switch("--no-privileges", "no GRANT and REVOKE")
    single_transaction: bool = switch("--single-transaction", "all or nothing")
    disable_triggers: bool = switch("--disable-triggers", "disable triggers while data is restored")
    enable_row_security: bool = switch("--enable-row-security", "restore only the rows this user may write")
    filters: Sequence[str | os.PathLike[str]] = row(
        FilePath("--filter", "files on the worker that say what to restore and skip", ((17, 0),), repeat=True)
    )
    if_exists: bool = switch("--if-exists", "drop objects only where they exist; with clean")
    no_comments: bool = switch("--no-comments", "no comments")
    no_data: bool = switch("--no-data", "no data", since=18)
    no_data_for_failed_tables: bool = switch("--no-data-for-failed-tables", "no rows where CREATE TABLE failed")
    no_policies: bool = switch("--no-policies", "no row security policies", since=18)
    no_publications: bool = switch("--no-publications", "no publications")
    no_schema: bool = switch("--no-schema", "no definitions", since=18)
    no_security_labels: bool = switch("--no-security-labels", "no security labels")
    no_subscriptions: bool = switch("--no-subscriptions", "no subscriptions")
    no_table_access_method: bool = switch("--no-table-access-method", "no table access methods")
    no_tablespaces: bool = switch("--no-tablespaces", "everything into the default tablespace")
    restrict_key: str | None = row(
        Key("--restrict-key", "psql's \\restrict key; only where a script is written", RESTRICT_SINCE, secret=True)
    )
    sections: Sequence[str] = row(Choice("--section", "only these sections", repeat=True, choices=SECTIONS))
    statistics: bool | None = pair("--statistics", "--no-statistics", "planner statistics", since=18)
    statistics_only: bool = switch("--statistics-only", "planner statistics and nothing else", since=18)
    strict_names: bool = switch("--strict-names", "fail where a name matches nothing")
    transaction_size: int | None = number("--transaction-size", "commit after so many objects", since=17)
    use_set_session_authorization: bool = switch(
        "--use-set-session-authorization", "set owners by SET SESSION AUTHORIZATION"
    )
    role: str | None = text("--role", "SET ROLE before restoring")

    conflicts: ClassVar[Sequence[tuple[str, str]]] = (
        *ONLY_CONFLICTS,
        ("create", "single_transaction"),
        ("single_transaction", "transaction_size"),
        ("single_transaction", "jobs"),
    )
    requires: ClassVar[Mapping[str, Sequence[str]]] = {"if_exists": ("clean",)}

    def _contradictions(self, given: set[str]) -> Iterator[tuple[str, str]]:
        # pg_restore restores statistics by default.
        yield from nothing_left(given if "no_statistics" in given else given - {"no_schema"}, self.sections)
