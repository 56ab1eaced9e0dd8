"""check: find everything that would prevent or compromise a backup, in one pass.

It dumps nothing and changes nothing, except that it writes a small file to the repository and deletes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_pgbackup.backup.check.database import check_database
from airflow_pgbackup.backup.check.grants import check_grants
from airflow_pgbackup.backup.check.keys import check_keys
from airflow_pgbackup.backup.check.repository import check_coverage, check_repository, check_space, server_databases
from airflow_pgbackup.backup.check.restorability import check_restorability, check_server_restorability
from airflow_pgbackup.backup.check.server import (
    check_client,
    check_pooler,
    check_server,
    dumped_databases,
    rehearsal_extensions,
)
from airflow_pgbackup.backup.check.transport import check_transport
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.inspection import inspect_database
from airflow_pgbackup.backup.databases.selection import select
from airflow_pgbackup.backup.findings import Finding, Findings
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.prepare_source import fit_options
from airflow_pgbackup.backup.source import Source, describe_source
from airflow_pgbackup.errors import ConfigurationError, ConnectError, PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.pooler import DIRECT_HINT, MixedSessions
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.sql.anybytes import is_utf8
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import scope_of
from airflow_pgbackup.wording import database

__all__ = ["Finding", "check"]

_HINT = "See the server's log for the reason."


def check(
    *,
    connection: ConnectionParams,
    server: str,
    repository: Repository | None = None,
    options: DumpOptions | DumpAllOptions | None = None,
    scan_rows: bool = False,
    context: RunContext | None = None,
) -> list[Finding]:
    """Return everything that would prevent or compromise a backup.

    A check that cannot be made is a finding too: the only exception raised is
    :class:`~airflow_pgbackup.errors.Canceled`.

    :param connection: the connection of the dump.
    :param server: the first part of the series, as for the dump.
    :param repository: the destination of the dump; None checks the server only.
    :param options: the options of the dump; by default those of a complete database. ``DumpAllOptions`` checks every
        database.
    :param scan_rows: also read every table and search for rows that a restore would reject, see :mod:`.rows`. This
        takes as long as a few dumps, and causes as much load.
    :return: the findings, errors first; see :class:`~airflow_pgbackup.backup.findings.Finding`.
    """
    context = context or RunContext()
    sweep_leftovers(context)
    checks = _Check(connection, server, repository, options or DumpOptions(), context, scan_rows)
    checks.run()
    return checks.findings.sorted()


class _Check:
    def __init__(
        self,
        connection: ConnectionParams,
        server: str,
        repository: Repository | None,
        options: DumpOptions | DumpAllOptions,
        context: RunContext,
        scan_rows: bool,
    ) -> None:
        self.scan_rows = scan_rows
        self.connection = connection
        self.server = server
        self.repository = repository
        self.options = options
        self.context = context
        self.settings = context.settings
        self.cancel = context.cancel
        self.say = context.log
        self.findings = Findings()
        self.cluster = isinstance(options, DumpAllOptions)

    def run(self) -> None:
        self._options()
        check_keys(self.context, self.findings)
        backups = None
        if self.repository is not None:
            self.say(f"checking repository {self.repository.uri}")
            backups = check_repository(self.repository, self.server, self.findings, self.say)
        source = self._source()
        if source is not None:
            try:
                self._server(source, backups)
            except ConnectError as error:
                self.findings.add_error("connect", error, _HINT)
        if self.repository is not None and backups is not None and (self.cluster or self.connection.dbname):
            scope = scope_of(self.options.describe())
            series = Series(self.server, None, scope) if self.cluster else Series(self.server, self.connection.dbname)
            size = source.size_bytes if source else None
            check_space(self.repository, series, backups, size, self.options, self.settings, self.findings)

    def _options(self) -> None:
        try:
            self.options.validate()
        except ConfigurationError as error:
            self.findings.add_error("options", error, "See the page of the dump in the documentation.")
            self.options = DumpAllOptions() if self.cluster else DumpOptions()
        if not self.cluster and not self.connection.dbname:
            self.findings.error(
                "database",
                f"no database given for {self.connection.label}",
                f"Set {database()}.",
            )

    def _source(self) -> Source | None:
        self.say(f"connecting to {self.connection.label}")
        try:
            return describe_source(self.connection, cluster=self.cluster)
        except MixedSessions as error:
            self.findings.add_error("pooler_transactions", error, DIRECT_HINT)
            return None
        except PgBackupError as error:
            self.findings.add_error("connect", error, _HINT)
            return None

    def _server(self, source: Source, backups: list[Backup] | None) -> None:
        client = check_client(self.connection, source, self.options, self.settings, self.findings, self.cancel)
        check_transport(self.connection, self.findings)
        check_pooler(self.connection, self.findings)
        major = client.major if client else source.server_version_num // 10000
        installed = rehearsal_extensions(major, self.settings, self.findings)
        with inspect_database(self.connection, self.findings, cancel=self.cancel) as db:
            if isinstance(self.options, DumpAllOptions):
                self.options, _ = fit_options(self.options, source.limits, self.say)
            check_server(db, self.connection, self.options, source)
            check_server_restorability(db, self.connection)
            databases = [self.connection.dbname]
            if isinstance(self.options, DumpAllOptions):
                databases = dumped_databases(db, self.options)
            existing = [name for name in server_databases(db) if name not in source.limits.service_databases]
        if self.repository is not None and backups is not None:
            check_coverage(existing, self.connection, self.repository, backups, databases, self.findings)
        for name in filter(is_utf8, databases):  # we pass names to libpq as UTF-8; the others are findings already
            self.say(f"checking database {name}")
            try:
                self._database(self.connection.with_database(name), source, installed)
            except ConnectError as error:
                self.findings.add_error("connect", error, _HINT, database=name)

    def _database(self, connection: ConnectionParams, source: Source, installed: Mapping[str, str] | None) -> None:
        with inspect_database(connection, self.findings, role=self.options.role, cancel=self.cancel) as db:
            selection = select(db, self.options)
            check_grants(db, selection, self.options)
            check_database(db, selection, self.options, self.settings, installed)
            managed = source.limits.service is not None
            check_restorability(db, selection, self.options, installed, managed=managed, scan_rows=self.scan_rows)
