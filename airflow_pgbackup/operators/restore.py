"""PgRestoreOperator: bring a backup back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.operators._base import PgBackupOperator, is_true, repository_of
from airflow_pgbackup.text import printing

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.options import RestoreOptions
    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository

# Of pg_restore's options those that a restore here decides itself, or that make no sense in it.
NOT_OFFERED = frozenset({"create", "exit_on_error", "restrict_key", "no_data_for_failed_tables"})


class PgRestoreOperator(PgBackupOperator):
    """Restore a backup of whatever format, from whatever repository, into a database of whatever name.

    The bytes are held against the manifest first. Then all of it happens in one transaction, or in a new database
    that gets its name when it is whole, so nothing half-done ever stands under that name, also when the task fails
    or is killed. The task returns what :func:`airflow_pgbackup.backup.restore.restore` does: duration, bytes, rows,
    objects, warnings, and the ``reference`` of the backup.

    :param backup: a reference: what a dump, verify or upload task returned, ``backup=verify.output``. Without one,
        ``repository`` and ``series`` say where to look.
    :param repository: where to look for a backup, ``s3://bucket/prefix`` or ``file:///folder``.
    :param series: of which server and database, ``prod/dvdrental``; ``prod/@cluster`` for one by pg_dumpall.
    :param backup_id: which one of the series; ``latest`` is the newest that is verified at ``minimum_level``. A newer
        one that is not, or that failed, is named in the log.
    :param minimum_level: for ``latest``: ``integrity``, ``archive`` or ``restore``; None takes the newest that has not
        failed.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param postgres_conn_id: the server to restore into; the connection's database is the target.
    :param database: the target, instead of the connection's own.
    :param mode: ``into_empty``: the database is there, and users have nothing in it. ``create``: it is not there yet.
        ``replace``: a new one takes its place, by renames in one transaction. ``into_existing``: beside what is there,
        in one transaction.
    :param keep_old: with ``replace``: keep what was there under a dated name; False drops it after the swap.
    :param terminate_sessions: end the sessions in the database that is replaced; False refuses where there are any.
    :param maintenance_database: where to be while databases are made and renamed; None tries ``postgres``, then
        ``template1``.
    :param allow_older_server: restore a dump of a newer major version of PostgreSQL, which need not work.
    :param globals_backup: the reference of a cluster backup, whose roles and tablespaces are restored before; those
        that exist stay as they are, and are reported.
    :param globals_aws_conn_id: for its repository.
    :param analyze: gather the planner's statistics afterwards.
    :param plan_only: a dry run: read and check all, log and return what would be done, and change nothing.
    :param deadline: seconds, or a timedelta, for all of it; None is no limit.

    The other parameters are pg_restore's options, see
    :class:`~airflow_pgbackup.postgres.options.pg_restore.RestoreOptions`; a plain dump is restored whole.
    """

    template_fields = (
        "backup", "repository", "series", "backup_id", "minimum_level", "aws_conn_id", "postgres_conn_id", "database",
        "mode", "keep_old", "terminate_sessions", "maintenance_database", "allow_older_server", "globals_backup",
        "globals_aws_conn_id", "analyze", "plan_only", "indexes", "use_list", "schemas", "exclude_schemas", "functions",
        "superuser", "tables", "triggers", "filters", "sections", "role", "extra_args",
    )  # fmt: skip

    backup: Mapping[str, object] | None
    repository: str | None
    series: str | None
    backup_id: str
    minimum_level: str | None
    aws_conn_id: str | None
    postgres_conn_id: str
    database: str | None
    mode: str
    keep_old: bool | str
    terminate_sessions: bool | str
    maintenance_database: str | None
    allow_older_server: bool | str
    globals_backup: Mapping[str, object] | None
    globals_aws_conn_id: str | None
    analyze: bool | str
    plan_only: bool | str

    def __init__(
        self,
        *,
        backup: Mapping[str, object] | XComArg | None = None,
        repository: str | None = None,
        series: str | None = None,
        backup_id: str = "latest",
        minimum_level: str | None = "archive",
        aws_conn_id: str | None = "aws_default",
        postgres_conn_id: str = "postgres_default",
        database: str | None = None,
        mode: str = "into_empty",
        keep_old: bool | str = True,
        terminate_sessions: bool | str = True,
        maintenance_database: str | None = None,
        allow_older_server: bool | str = False,
        globals_backup: Mapping[str, object] | XComArg | None = None,
        globals_aws_conn_id: str | None = "aws_default",
        analyze: bool | str = True,
        plan_only: bool | str = False,
        deadline: float | timedelta | None = None,
        # pg_restore's options, in the order of its --help
        verbose: bool = False,
        data_only: bool = False,
        clean: bool = False,
        indexes: Sequence[str] = (),
        jobs: int | None = None,
        use_list: str | os.PathLike[str] | None = None,
        schemas: Sequence[str] = (),
        exclude_schemas: Sequence[str] = (),
        no_owner: bool = False,
        functions: Sequence[str] = (),
        schema_only: bool = False,
        superuser: str | None = None,
        tables: Sequence[str] = (),
        triggers: Sequence[str] = (),
        no_privileges: bool = False,
        single_transaction: bool = False,
        disable_triggers: bool = False,
        enable_row_security: bool = False,
        filters: Sequence[str | os.PathLike[str]] = (),
        if_exists: bool = False,
        no_comments: bool = False,
        no_data: bool = False,
        no_policies: bool = False,
        no_publications: bool = False,
        no_schema: bool = False,
        no_security_labels: bool = False,
        no_subscriptions: bool = False,
        no_table_access_method: bool = False,
        no_tablespaces: bool = False,
        sections: Sequence[str] = (),
        statistics: bool | None = None,
        statistics_only: bool = False,
        strict_names: bool = False,
        transaction_size: int | None = None,
        use_set_session_authorization: bool = False,
        role: str | None = None,
        extra_args: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._keep(locals())

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.restore import GlobalsBackup, restore
        from airflow_pgbackup.backup.restore.target import RestoreTarget
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook
        from airflow_pgbackup.hooks.repository import open_repository

        options = self._options()
        repository, reference = self._backup(run.cancel)
        globals_from = None
        if self.globals_backup is not None:
            uri = repository_of(self.globals_backup)
            globals_from = GlobalsBackup(
                self.globals_backup, open_repository(uri, self.globals_aws_conn_id, cancel=run.cancel)
            )
        return restore(
            reference=reference,
            repository=repository,
            target=RestoreTarget(
                connection=PgBackupHook(self.postgres_conn_id, self.database).get_conninfo(),
                mode=self.mode,
                keep_old=is_true("keep_old", self.keep_old),
                terminate_sessions=is_true("terminate_sessions", self.terminate_sessions),
                maintenance_database=self.maintenance_database,
                allow_older_server=is_true("allow_older_server", self.allow_older_server),
            ),
            options=options,
            globals_from=globals_from,
            analyze=is_true("analyze", self.analyze),
            dry_run=is_true("plan_only", self.plan_only),
            context=run,
        )

    def _backup(self, cancel: Cancel) -> tuple[Repository, Mapping[str, object]]:
        from airflow_pgbackup.backup.choose_backup import choose_backup
        from airflow_pgbackup.hooks.repository import open_repository

        if self.backup is not None:
            return open_repository(repository_of(self.backup), self.aws_conn_id, cancel=cancel), self.backup
        if not self.repository or not self.series:
            raise ConfigurationError(
                "no backup is named", hint="pass backup=, as verify.output; or repository= and series="
            )
        repository = open_repository(self.repository, self.aws_conn_id, cancel=cancel)
        return repository, choose_backup(
            repository,
            self.series,
            self.backup_id,
            minimum_level=self.minimum_level,
            log=printing(self.log.warning),
        )

    def _options(self) -> RestoreOptions:
        """The options from the attributes of the same names."""
        from airflow_pgbackup.postgres.options import RestoreOptions

        names = [name for name in (*RestoreOptions.table(), "extra_args") if name not in NOT_OFFERED]
        given = {name: getattr(self, name) for name in names}
        # What a mapped task returned arrives as a lazy sequence; the options know lists.
        lazy = {
            n: list(v) for n, v in given.items() if isinstance(v, Sequence) and not isinstance(v, str | list | tuple)
        }
        options = RestoreOptions(**{**given, **lazy})
        options.validate()  # what makes no sense is refused before a server is asked
        return options
