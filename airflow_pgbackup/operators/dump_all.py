"""PgDumpAllOperator: dump a cluster into a repository with pg_dumpall.

Every option of pg_dumpall is an explicit keyword argument; see :mod:`.dump` and
:class:`~airflow_pgbackup.postgres.options.DumpAllOptions`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.operators._base import is_true
from airflow_pgbackup.operators._dump import COMMON_FIELDS, DumpOperator
from airflow_pgbackup.operators._map_label import as_label
from airflow_pgbackup.repository.layout import SCOPES

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext


class PgDumpAllOperator(DumpOperator):
    """Dump all databases of a cluster, or only its global objects, into a repository with pg_dumpall.

    The series is ``<server>/@cluster``; with ``globals_only`` it is ``<server>/@globals``, with ``roles_only``
    ``<server>/@roles``, with ``tablespaces_only`` ``<server>/@tablespaces``. The format is always plain. The parameters
    are those of :class:`~airflow_pgbackup.operators.dump.PgDumpOperator`, with these differences:

    :param database: the database to connect to for roles and tablespaces. pg_dumpall dumps every database.
    :param compress: ``zstd`` or ``gzip``, with a level as in ``zstd:9``, or None. pg_dumpall has no such option:
        airflow-pgbackup compresses its output on the way into the repository.
    :param passwords_if_allowed: if ``role`` may not read the roles' passwords, dump as the connection's user; if that
        user may not either, omit them. The log says so, and the dump does not fail.

    The other parameters are pg_dumpall's options; see :class:`~airflow_pgbackup.postgres.options.DumpAllOptions`.
    There is no ``create``: pg_dumpall always writes CREATE DATABASE.
    """

    template_fields = (
        *COMMON_FIELDS,
        "passwords_if_allowed",
        "compress", "lock_wait_timeout", "encoding", "superuser", "exclude_databases", "filters", "role",
        "extra_args",
    )  # fmt: skip

    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("labels", "recipients", "exclude_databases", "filters", "extra_args"), "json"
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
        passwords_if_allowed: bool | str = False,
        max_bytes_per_second: float | str | None = None,
        recipients: Sequence[str] | None = None,
        verify: str | None = None,
        compress: int | str | None = None,
        # pg_dumpall's options, in the order of its --help
        verbose: bool = False,
        lock_wait_timeout: int | str | None = None,
        data_only: bool = False,
        clean: bool = False,
        encoding: str | None = None,
        globals_only: bool = False,
        no_owner: bool = False,
        roles_only: bool = False,
        schema_only: bool = False,
        superuser: str | None = None,
        tablespaces_only: bool = False,
        no_privileges: bool = False,
        column_inserts: bool = False,
        disable_dollar_quoting: bool = False,
        disable_triggers: bool = False,
        exclude_databases: Sequence[str] = (),
        extra_float_digits: int | None = None,
        filters: Sequence[str | os.PathLike[str]] = (),
        if_exists: bool = False,
        inserts: bool = False,
        load_via_partition_root: bool = False,
        no_comments: bool = False,
        no_data: bool = False,
        no_policies: bool = False,
        no_publications: bool = False,
        no_role_passwords: bool = False,
        no_schema: bool = False,
        no_security_labels: bool = False,
        no_subscriptions: bool = False,
        no_sync: bool = False,
        no_table_access_method: bool = False,
        no_tablespaces: bool = False,
        no_toast_compression: bool = False,
        no_unlogged_table_data: bool = False,
        on_conflict_do_nothing: bool = False,
        quote_all_identifiers: bool = False,
        restrict_key: str | None = None,
        rows_per_insert: int | None = None,
        sequence_data: bool = False,
        statistics: bool | None = None,
        statistics_only: bool = False,
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
        self.passwords_if_allowed = passwords_if_allowed
        self.max_bytes_per_second = max_bytes_per_second
        self.recipients = recipients
        self.verify = verify
        self.compress = compress
        self.verbose = verbose
        self.lock_wait_timeout = lock_wait_timeout
        self.data_only = data_only
        self.clean = clean
        self.encoding = encoding
        self.globals_only = globals_only
        self.no_owner = no_owner
        self.roles_only = roles_only
        self.schema_only = schema_only
        self.superuser = superuser
        self.tablespaces_only = tablespaces_only
        self.no_privileges = no_privileges
        self.column_inserts = column_inserts
        self.disable_dollar_quoting = disable_dollar_quoting
        self.disable_triggers = disable_triggers
        self.exclude_databases = exclude_databases
        self.extra_float_digits = extra_float_digits
        self.filters = filters
        self.if_exists = if_exists
        self.inserts = inserts
        self.load_via_partition_root = load_via_partition_root
        self.no_comments = no_comments
        self.no_data = no_data
        self.no_policies = no_policies
        self.no_publications = no_publications
        self.no_role_passwords = no_role_passwords
        self.no_schema = no_schema
        self.no_security_labels = no_security_labels
        self.no_subscriptions = no_subscriptions
        self.no_sync = no_sync
        self.no_table_access_method = no_table_access_method
        self.no_tablespaces = no_tablespaces
        self.no_toast_compression = no_toast_compression
        self.no_unlogged_table_data = no_unlogged_table_data
        self.on_conflict_do_nothing = on_conflict_do_nothing
        self.quote_all_identifiers = quote_all_identifiers
        self.restrict_key = restrict_key
        self.rows_per_insert = rows_per_insert
        self.sequence_data = sequence_data
        self.statistics = statistics
        self.statistics_only = statistics_only
        self.use_set_session_authorization = use_set_session_authorization
        self.role = role
        self.extra_args = extra_args

    @property
    def map_label(self) -> str:
        scope = next((one for one in SCOPES if getattr(self, f"{one}_only")), "cluster")
        return as_label(self.server or self.postgres_conn_id, f"@{scope}")

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.dump import dump_cluster
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook
        from airflow_pgbackup.postgres.options import DumpAllOptions

        options = self._options(DumpAllOptions)
        return self._make_backup(
            dump_cluster,
            connection=self._connected(PgBackupHook(self.postgres_conn_id, self.database).get_conninfo(), reads=True),
            options=options,
            compress=self.compress,
            passwords_if_allowed=is_true("passwords_if_allowed", self.passwords_if_allowed),
            **self._common(run),
        )
