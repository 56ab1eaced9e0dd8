"""PgDumpOperator: run pg_dump into a repository. Its sibling for clusters is :mod:`.dump_all`.

Every option of pg_dump is an explicit keyword argument, so that editors and type checkers know it. Names, types and
defaults are those of :class:`~airflow_pgbackup.postgres.options.DumpOptions`, which documents each; a test compares the
two lists.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.operators._base import is_true
from airflow_pgbackup.operators._dump import COMMON_FIELDS, DumpOperator
from airflow_pgbackup.operators._map_label import as_label
from airflow_pgbackup.operators.dump_all import PgDumpAllOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext

__all__ = ["PgDumpAllOperator", "PgDumpOperator"]


class PgDumpOperator(DumpOperator):
    """Dump one database with pg_dump into a repository. The task returns the reference of the backup.

    A retry returns the backup that an earlier attempt committed, instead of dumping again.

    :param repository: ``file:///directory`` or ``s3://bucket/prefix``. Verify and upload read it, so their workers must
        reach it.
    :param postgres_conn_id: a connection of type ``postgres``; see
        :class:`~airflow_pgbackup.hooks.pgbackup.PgBackupHook`.
    :param database: the database to dump, instead of the connection's own.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param server: the first part of the series name, by default the connection id. Keep it stable, or a new series
        begins.
    :param artifact_template: the artifact's name without its extension; it may contain ``{database}``, ``{server}``,
        ``{date}`` and ``{time}`` (UTC).
    :param labels: names for the backup, ``["pre-migration"]``, which prune's ``keep_labels`` keeps: letters, digits,
        ``.``, ``_`` and ``-``.
    :param deadline: how long pg_dump may run, in seconds or as a timedelta; by default ``[pgbackup] dump_deadline``.
    :param init_repository: create the repository if it does not exist. For its first use only: while it is set, an
        unmounted volume becomes a new repository instead of an error.
    :param max_replay_lag: in seconds or as a timedelta: a standby that is further behind its primary is not dumped. By
        default ``[pgbackup] max_replay_lag``, which is unlimited unless set.
    :param repository_uuid: the UUID that the repository must have, as PgDiscoverOperator found it. A worker that sees
        another one, such as its own disk, fails before it dumps.
    :param max_bytes_per_second: of pg_dump's output, before this package compresses it: the server sends no faster. By
        default ``[pgbackup] max_bytes_per_second``, which is unlimited unless set. Not for format directory.
    :param recipients: encrypt the artifact to these public keys of age, ``["age1…"]`` or SSH keys; by default
        ``[pgbackup] recipients``, and an empty list encrypts nothing. See the guide *Encryption*.
    :param verify: ``archive`` also decodes the dump while it is written, so the backup is verified at that level
        without reading it back from the store. The task also emits the event of the verified asset. A dump that cannot
        be decoded fails and leaves no backup. Format tar is verified afterwards.
    :param count_rows: count every table of the source in the dump's own snapshot while pg_dump reads it, so that each
        verification compares the archive with its source; the manifest lists what the options leave out. It reads the
        tables twice.

    The other parameters are pg_dump's options; see :class:`~airflow_pgbackup.postgres.options.DumpOptions`.
    """

    template_fields = (
        *COMMON_FIELDS,
        "count_rows",
        "format", "compress", "lock_wait_timeout", "extensions", "encoding", "schemas", "exclude_schemas",
        "superuser", "tables", "exclude_tables", "exclude_extensions", "exclude_tables_and_children",
        "exclude_table_data", "exclude_table_data_and_children", "filters", "include_foreign_data", "sections",
        "snapshot", "tables_and_children", "role", "extra_args",
    )  # fmt: skip

    # Lists, which Airflow's page shows as JSON.
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        (
            "labels",
            "recipients",
            "extensions",
            "schemas",
            "exclude_schemas",
            "tables",
            "exclude_tables",
            "exclude_extensions",
            "exclude_tables_and_children",
            "exclude_table_data",
            "exclude_table_data_and_children",
            "filters",
            "include_foreign_data",
            "sections",
            "tables_and_children",
            "extra_args",
        ),
        "json",
    )

    def __init__(
        self,
        *,
        repository: str,
        postgres_conn_id: str = "postgres_default",
        database: str | None = None,
        aws_conn_id: str | None = "aws_default",
        server: str | None = None,
        artifact_template: str = "{database}_{date}_{time}",
        labels: Sequence[str] = (),
        deadline: float | timedelta | None = None,
        init_repository: bool | str = False,
        max_replay_lag: float | str | timedelta | None = None,
        repository_uuid: str | None = None,
        max_bytes_per_second: float | str | None = None,
        recipients: Sequence[str] | None = None,
        verify: str | None = None,
        count_rows: bool | str = False,
        # pg_dump's options, in the order of its --help
        format: str = "custom",
        jobs: int | None = None,
        verbose: bool = False,
        compress: int | str | None = None,
        lock_wait_timeout: int | str | None = None,
        no_sync: bool = False,
        sync_method: str | None = None,
        data_only: bool = False,
        large_objects: bool | None = None,
        clean: bool = False,
        create: bool = False,
        extensions: Sequence[str] = (),
        encoding: str | None = None,
        schemas: Sequence[str] = (),
        exclude_schemas: Sequence[str] = (),
        no_owner: bool = False,
        schema_only: bool = False,
        superuser: str | None = None,
        tables: Sequence[str] = (),
        exclude_tables: Sequence[str] = (),
        no_privileges: bool = False,
        column_inserts: bool = False,
        disable_dollar_quoting: bool = False,
        disable_triggers: bool = False,
        enable_row_security: bool = False,
        exclude_extensions: Sequence[str] = (),
        exclude_tables_and_children: Sequence[str] = (),
        exclude_table_data: Sequence[str] = (),
        exclude_table_data_and_children: Sequence[str] = (),
        extra_float_digits: int | None = None,
        filters: Sequence[str | os.PathLike[str]] = (),
        if_exists: bool = False,
        include_foreign_data: Sequence[str] = (),
        inserts: bool = False,
        load_via_partition_root: bool = False,
        no_comments: bool = False,
        no_data: bool = False,
        no_policies: bool = False,
        no_publications: bool = False,
        no_schema: bool = False,
        no_security_labels: bool = False,
        no_subscriptions: bool = False,
        no_table_access_method: bool = False,
        no_tablespaces: bool = False,
        no_toast_compression: bool = False,
        no_unlogged_table_data: bool = False,
        on_conflict_do_nothing: bool = False,
        quote_all_identifiers: bool = False,
        restrict_key: str | None = None,
        rows_per_insert: int | None = None,
        sections: Sequence[str] = (),
        sequence_data: bool = False,
        serializable_deferrable: bool = False,
        snapshot: str | None = None,
        statistics: bool | None = None,
        statistics_only: bool = False,
        strict_names: bool = False,
        tables_and_children: Sequence[str] = (),
        use_set_session_authorization: bool = False,
        role: str | None = None,
        extra_args: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.outlets = self._with_outlets(self.outlets, verify)
        self.repository = repository
        self.postgres_conn_id = postgres_conn_id
        self.database = database
        self.aws_conn_id = aws_conn_id
        self.server = server
        self.artifact_template = artifact_template
        self.labels = labels
        self.deadline = deadline
        self.init_repository = init_repository
        self.max_replay_lag = max_replay_lag
        self.repository_uuid = repository_uuid
        self.max_bytes_per_second = max_bytes_per_second
        self.recipients = recipients
        self.verify = verify
        self.count_rows = count_rows
        self.format = format
        self.jobs = jobs
        self.verbose = verbose
        self.compress = compress
        self.lock_wait_timeout = lock_wait_timeout
        self.no_sync = no_sync
        self.sync_method = sync_method
        self.data_only = data_only
        self.large_objects = large_objects
        self.clean = clean
        self.create = create
        self.extensions = extensions
        self.encoding = encoding
        self.schemas = schemas
        self.exclude_schemas = exclude_schemas
        self.no_owner = no_owner
        self.schema_only = schema_only
        self.superuser = superuser
        self.tables = tables
        self.exclude_tables = exclude_tables
        self.no_privileges = no_privileges
        self.column_inserts = column_inserts
        self.disable_dollar_quoting = disable_dollar_quoting
        self.disable_triggers = disable_triggers
        self.enable_row_security = enable_row_security
        self.exclude_extensions = exclude_extensions
        self.exclude_tables_and_children = exclude_tables_and_children
        self.exclude_table_data = exclude_table_data
        self.exclude_table_data_and_children = exclude_table_data_and_children
        self.extra_float_digits = extra_float_digits
        self.filters = filters
        self.if_exists = if_exists
        self.include_foreign_data = include_foreign_data
        self.inserts = inserts
        self.load_via_partition_root = load_via_partition_root
        self.no_comments = no_comments
        self.no_data = no_data
        self.no_policies = no_policies
        self.no_publications = no_publications
        self.no_schema = no_schema
        self.no_security_labels = no_security_labels
        self.no_subscriptions = no_subscriptions
        self.no_table_access_method = no_table_access_method
        self.no_tablespaces = no_tablespaces
        self.no_toast_compression = no_toast_compression
        self.no_unlogged_table_data = no_unlogged_table_data
        self.on_conflict_do_nothing = on_conflict_do_nothing
        self.quote_all_identifiers = quote_all_identifiers
        self.restrict_key = restrict_key
        self.rows_per_insert = rows_per_insert
        self.sections = sections
        self.sequence_data = sequence_data
        self.serializable_deferrable = serializable_deferrable
        self.snapshot = snapshot
        self.statistics = statistics
        self.statistics_only = statistics_only
        self.strict_names = strict_names
        self.tables_and_children = tables_and_children
        self.use_set_session_authorization = use_set_session_authorization
        self.role = role
        self.extra_args = extra_args

    @property
    def map_label(self) -> str:
        return as_label(self.server or self.postgres_conn_id, self.database)

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.dump import dump_database
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook
        from airflow_pgbackup.postgres.options import DumpOptions

        options = self._options(DumpOptions)
        connection = self._connected(PgBackupHook(self.postgres_conn_id, self.database).get_conninfo(), reads=True)
        return self._make_backup(
            dump_database,
            options=options,
            connection=connection,
            count_rows=is_true("count_rows", self.count_rows),
            **self._common(run),
        )
