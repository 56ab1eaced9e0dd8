"""PgRestoreOperator: restore a backup into a database."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.operators._base import PgBackupOperator, is_true, repository_of, with_lists
from airflow_pgbackup.operators._choose_backup import chosen_backup
from airflow_pgbackup.operators._map_label import as_label, series_label

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.options import RestoreOptions

# Options of pg_restore that the restore sets itself, or that do not apply to it.
NOT_OFFERED = frozenset({"create", "exit_on_error", "restrict_key", "no_data_for_failed_tables"})


class PgRestoreOperator(PgBackupOperator):
    """Restore a backup of any format, from any repository, into a database of any name.

    The bytes are compared with the manifest first. Then the restore runs in one transaction, or under a temporary name
    that is renamed when complete, so the target never holds half a restore, even when the task fails or is killed. The
    task returns what :func:`airflow_pgbackup.backup.restore.restore` does: duration, bytes, rows, objects, warnings,
    and the ``reference`` of the backup.

    :param backup: a reference: what a dump, verify or upload task returned, ``backup=verify.output``. Without one,
        ``repository`` and ``series`` choose the backup.
    :param repository: the repository to choose a backup from, ``s3://bucket/prefix`` or ``file:///directory``.
    :param series: its series, ``prod/dvdrental``; ``prod/@cluster`` for a pg_dumpall backup, ``prod/@roles`` for one of
        roles only.
    :param backup_id: its id or the unique beginning of one, a date (``2026-11-20``: the newest of that day, UTC), or
        ``latest``, the newest that is verified at ``minimum_level``. The log names newer backups that are not verified
        or failed. ``latest-verified`` is the same, whatever ``minimum_level`` is.
    :param minimum_level: for ``latest``: ``integrity``, ``archive`` or ``restore``; None chooses the newest that has
        not failed.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param identity_conn_id: of an encrypted backup: a connection whose password is the secret key of a recipient; by
        default ``[pgbackup] identity_conn_id``.
    :param postgres_conn_id: the server to restore into; the connection's database is the target.
    :param database: the target database, instead of the connection's own.
    :param mode: ``into_empty``: the database exists and holds no user objects. ``create``: it does not exist.
        ``replace``: a new database takes the place of the existing one, by renames in one transaction.
        ``into_existing``: restore beside what the database holds, in one transaction.
    :param into_schema: with ``into_existing`` and ``tables``: a new schema for them, beside the live tables; with their
        indexes, without foreign keys, triggers and privileges. The result has the statements that copy the rows back.
    :param keep_old: with ``replace``: keep the old database under a dated name; False drops it after the swap.
    :param terminate_sessions: end the sessions in the database that is replaced; False fails if there are any.
    :param maintenance_database: the database to connect to while databases are created and renamed; None tries
        ``postgres``, then ``template1``.
    :param allow_older_server: restore a dump of a newer major version of PostgreSQL, which may fail.
    :param globals_backup: the reference of a cluster backup, whose roles and tablespaces are restored first; those that
        exist already are reported and not changed.
    :param globals_aws_conn_id: for its repository.
    :param analyze: run ANALYZE afterwards, for the planner's statistics.
    :param plan_only: a dry run: read and check everything, log and return what would be done, and change nothing.
    :param deadline: a limit for the restore as a whole, in seconds or as a timedelta; None means no limit.

    The other parameters are pg_restore's options; see
    :class:`~airflow_pgbackup.postgres.options.pg_restore.RestoreOptions`. A plain dump is restored completely.
    """

    template_fields = (
        "backup", "repository", "series", "backup_id", "minimum_level", "aws_conn_id", "identity_conn_id",
        "postgres_conn_id", "database", "mode", "into_schema", "keep_old", "terminate_sessions",
        "maintenance_database", "allow_older_server", "globals_backup", "globals_aws_conn_id", "analyze", "plan_only",
        "indexes", "use_list", "schemas", "exclude_schemas", "functions", "superuser", "tables", "triggers",
        "filters", "sections", "role", "extra_args",
    )  # fmt: skip

    # Lists and mappings, which Airflow's page shows as JSON.
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        (
            "backup", "globals_backup", "indexes", "schemas", "exclude_schemas", "functions", "tables", "triggers",
            "filters", "sections", "extra_args",
        ),
        "json",
    )  # fmt: skip

    def __init__(
        self,
        *,
        backup: Mapping[str, object] | XComArg | None = None,
        repository: str | None = None,
        series: str | None = None,
        backup_id: str = "latest",
        minimum_level: str | None = "archive",
        aws_conn_id: str | None = "aws_default",
        identity_conn_id: str | None = None,
        postgres_conn_id: str = "postgres_default",
        database: str | None = None,
        mode: str = "into_empty",
        into_schema: str | None = None,
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
        self.backup = backup
        self.repository = repository
        self.series = series
        self.backup_id = backup_id
        self.minimum_level = minimum_level
        self.aws_conn_id = aws_conn_id
        self.identity_conn_id = identity_conn_id
        self.postgres_conn_id = postgres_conn_id
        self.database = database
        self.mode = mode
        self.into_schema = into_schema
        self.keep_old = keep_old
        self.terminate_sessions = terminate_sessions
        self.maintenance_database = maintenance_database
        self.allow_older_server = allow_older_server
        self.globals_backup = globals_backup
        self.globals_aws_conn_id = globals_aws_conn_id
        self.analyze = analyze
        self.plan_only = plan_only
        self.deadline = deadline
        self.verbose = verbose
        self.data_only = data_only
        self.clean = clean
        self.indexes = indexes
        self.jobs = jobs
        self.use_list = use_list
        self.schemas = schemas
        self.exclude_schemas = exclude_schemas
        self.no_owner = no_owner
        self.functions = functions
        self.schema_only = schema_only
        self.superuser = superuser
        self.tables = tables
        self.triggers = triggers
        self.no_privileges = no_privileges
        self.single_transaction = single_transaction
        self.disable_triggers = disable_triggers
        self.enable_row_security = enable_row_security
        self.filters = filters
        self.if_exists = if_exists
        self.no_comments = no_comments
        self.no_data = no_data
        self.no_policies = no_policies
        self.no_publications = no_publications
        self.no_schema = no_schema
        self.no_security_labels = no_security_labels
        self.no_subscriptions = no_subscriptions
        self.no_table_access_method = no_table_access_method
        self.no_tablespaces = no_tablespaces
        self.sections = sections
        self.statistics = statistics
        self.statistics_only = statistics_only
        self.strict_names = strict_names
        self.transaction_size = transaction_size
        self.use_set_session_authorization = use_set_session_authorization
        self.role = role
        self.extra_args = extra_args

    @property
    def map_label(self) -> str:
        series = series_label(self.series or self.backup)
        return as_label(f"{series} into {self.database}" if self.database else series)

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.restore import GlobalsBackup, restore
        from airflow_pgbackup.backup.restore.target import RestoreTarget
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook
        from airflow_pgbackup.hooks.repository import open_repository

        options = self._options()
        repository, reference = chosen_backup(self, run.cancel)
        self._link_to(repository, reference)
        self._note(read=reference)
        globals_from = None
        if self.globals_backup is not None:
            uri = repository_of(self.globals_backup)
            globals_from = GlobalsBackup(
                self.globals_backup,  # type: ignore[arg-type]  # rendered: the XComArg is a reference now
                open_repository(uri, self.globals_aws_conn_id, cancel=run.cancel),
            )
        return restore(
            reference=reference,
            repository=repository,
            target=RestoreTarget(
                connection=self._connected(
                    PgBackupHook(self.postgres_conn_id, self.database).get_conninfo(), reads=False
                ),
                mode=self.mode,
                into_schema=self.into_schema,
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

    def _options(self) -> RestoreOptions:
        """Return pg_restore's options, from the attributes of the same names."""
        from airflow_pgbackup.postgres.options import RestoreOptions

        names = [name for name in (*RestoreOptions.table(), "extra_args") if name not in NOT_OFFERED]
        options = RestoreOptions(**with_lists({name: getattr(self, name) for name in names}))
        options.validate()  # invalid options are refused before a server is asked
        return options
