"""PgDumpOperator and PgDumpAllOperator: run pg_dump or pg_dumpall into a repository.

Every option of the two programs is an explicit keyword argument, so that editors and type checkers know it. Names,
types and defaults are those of :class:`~airflow_pgbackup.postgres.options.DumpOptions` and ``DumpAllOptions``, which
say what each is for; a test holds the two lists together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_pgbackup.operators._base import PgBackupOperator, is_true

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.options.tool import ToolOptions
    from airflow_pgbackup.repository.base import Repository

    Options = TypeVar("Options", bound=ToolOptions)


_COMMON_FIELDS = (
    "postgres_conn_id",
    "database",
    "repository",
    "aws_conn_id",
    "server",
    "artifact_template",
    "init_repository",
)


class _DumpOperator(PgBackupOperator):
    """What the two dump operators have in common."""

    postgres_conn_id: str
    database: str | None
    repository: str
    aws_conn_id: str | None
    server: str | None
    artifact_template: str
    init_repository: bool | str
    compress: int | str | None

    def _repository(self) -> Repository:
        from airflow_pgbackup.hooks.repository import open_repository

        repository = open_repository(self.repository, self.aws_conn_id, cancel=self._cancel)
        if is_true("init_repository", self.init_repository):
            repository.init()
        return repository

    def _options(self, kind: type[Options]) -> Options:
        """The options from the attributes of the same names."""
        given = {name: getattr(self, name) for name in (*kind.table(), "extra_args")}
        # What a mapped task returned arrives as a lazy sequence; the options know lists.
        lists = {name: list(value) for name, value in given.items() if _is_lazy_list(value)}
        options = kind(**{**given, **lists})
        options.validate()  # what makes no sense is refused before a server is asked or a repository made
        return options

    def _common(self, run: RunContext) -> dict[str, Any]:
        """The arguments that ``dump_database`` and ``dump_cluster`` share."""
        return {
            "server": self.server or self.postgres_conn_id,
            "repository": self._repository(),
            "artifact_template": self.artifact_template,
            "context": run,
        }


class PgDumpOperator(_DumpOperator):
    """Dump one database with pg_dump into a repository. The task returns the reference of the backup.

    A retry finds what an earlier try committed, and returns that instead of dumping again.

    :param repository: ``file:///folder`` or ``s3://bucket/prefix``; verify and upload read it, so it must be one that
        their workers see.
    :param postgres_conn_id: a connection of type ``postgres``; see
        :class:`~airflow_pgbackup.hooks.pgbackup.PgBackupHook`.
    :param database: instead of the connection's own.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param server: the server's name in the repository, by default the connection id. Backups of one database are one
        series as long as it stays the same.
    :param artifact_template: the artifact's name without its extension; ``{database}``, ``{server}``, ``{date}`` and
        ``{time}`` (UTC) are known.
    :param deadline: seconds, or a timedelta, that pg_dump may run; by default what ``[pgbackup] dump_deadline`` says.
    :param init_repository: make the repository if there is none yet. For its first use: left on, an unmounted volume
        is taken for a new repository instead of being an error.
    :param count_rows: count every table of the source in the dump's own snapshot, while pg_dump reads it, so that each
        verification proves source = archive; the manifest lists what the options leave out. Reads the tables twice.

    The other parameters are pg_dump's options, see :class:`~airflow_pgbackup.postgres.options.DumpOptions`.
    """

    template_fields = (
        *_COMMON_FIELDS,
        "format", "compress", "lock_wait_timeout", "extensions", "encoding", "schemas", "exclude_schemas",
        "superuser", "tables", "exclude_tables", "exclude_extensions", "exclude_tables_and_children",
        "exclude_table_data", "exclude_table_data_and_children", "filters", "include_foreign_data", "sections",
        "snapshot", "tables_and_children", "role", "extra_args",
    )  # fmt: skip

    def __init__(
        self,
        *,
        repository: str,
        postgres_conn_id: str = "postgres_default",
        database: str | None = None,
        aws_conn_id: str | None = "aws_default",
        server: str | None = None,
        artifact_template: str = "{database}_{date}_{time}",
        deadline: float | timedelta | None = None,
        init_repository: bool | str = False,
        count_rows: bool = False,
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
        self._keep(locals())

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.dump import dump_database
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook
        from airflow_pgbackup.postgres.options import DumpOptions

        return dump_database(
            options=self._options(DumpOptions),
            connection=PgBackupHook(self.postgres_conn_id, self.database).get_conninfo(),
            **self._common(run),
        )


class PgDumpAllOperator(_DumpOperator):
    """Dump a whole cluster, or what all its databases share, with pg_dumpall into a repository.

    As :class:`PgDumpOperator`, but always in plain format, and:

    :param database: the one to connect to for roles and tablespaces; every database is dumped all the same.
    :param compress: ``zstd``, ``gzip``, either with a level as in ``zstd:9``, or None. pg_dumpall has no such option:
        its output is compressed on its way into the repository.

    The other parameters are pg_dumpall's options, see :class:`~airflow_pgbackup.postgres.options.DumpAllOptions`.
    ``create`` is none of them: pg_dumpall always writes CREATE DATABASE.
    """

    template_fields = (
        *_COMMON_FIELDS,
        "compress", "lock_wait_timeout", "encoding", "superuser", "exclude_databases", "filters", "role",
        "extra_args",
    )  # fmt: skip

    def __init__(
        self,
        *,
        repository: str,
        postgres_conn_id: str = "postgres_default",
        database: str | None = None,
        aws_conn_id: str | None = "aws_default",
        server: str | None = None,
        artifact_template: str = "{database}_{date}_{time}",
        deadline: float | timedelta | None = None,
        init_repository: bool | str = False,
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
        self._keep(locals())

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.dump import dump_cluster
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook
        from airflow_pgbackup.postgres.options import DumpAllOptions

        options = self._options(DumpAllOptions)
        return dump_cluster(
            connection=PgBackupHook(self.postgres_conn_id, self.database).get_conninfo(),
            options=options,
            compress=self.compress,
            **self._common(run),
        )


def _is_lazy_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | list | tuple)
