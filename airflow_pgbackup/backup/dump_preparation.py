"""What happens before a dump: the source is checked, the options are fitted to it, and the client is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.column_order import with_column_names
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump_plan import DumpPlan, plan_dump
from airflow_pgbackup.backup.member_count import check_member_count
from airflow_pgbackup.backup.other_server import warn_of_other_server
from airflow_pgbackup.backup.prepare_source import check_source, find_left_out, fit_options
from airflow_pgbackup.backup.rounded_floats import are_floats_rounded
from airflow_pgbackup.backup.source import Source, describe_source
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.wording import parameter


@dataclass(frozen=True)
class PreparedDump:
    """A source that can be dumped, and how.

    :param options: fitted to the source.
    :param left_out: what pg_dumpall will not dump; None for nothing.
    :param max_replay_lag: of a standby, in seconds; None for any.
    """

    source: Source
    options: DumpOptions | DumpAllOptions
    client: Client
    plan: DumpPlan
    left_out: tuple[str, ...] | None
    max_replay_lag: float | None


def prepare_dump(
    tool: str,
    connection: ConnectionParams,
    options: DumpOptions | DumpAllOptions,
    compress: str | int | None,
    *,
    series: Series,
    repository: Repository,
    ids: Sequence[str] | None,
    max_replay_lag: float | None,
    context: RunContext,
) -> PreparedDump:
    """Prepare a dump; nothing is changed. Warnings go to the log.

    :param tool: ``pg_dump`` or ``pg_dumpall``.
    :param compress: as for :func:`airflow_pgbackup.backup.dump.dump_cluster`.
    :param ids: of the backups of the series, if they were listed.
    :param max_replay_lag: of a standby, in seconds; None for that of the settings.
    :raises ConnectError, ConfigurationError, ReplayLagError, OptionError, ClientError: as
        :func:`airflow_pgbackup.backup.dump.dump_database`.
    """
    settings = context.settings
    source = describe_source(connection, cluster=series.database is None)
    max_lag = settings.max_replay_lag or None if max_replay_lag is None else max_replay_lag
    check_source(connection, source, context.log, max_replay_lag=max_lag)
    warn_of_other_server(repository, series, source.for_manifest(connection), context.log, ids=ids)
    left_out: tuple[str, ...] | None = None
    if isinstance(options, DumpAllOptions):
        options, kept = fit_options(options, source.limits, context.log)
        left_out = (*kept, *find_left_out(connection, options, context.log)) or None
    options = with_column_names(options, connection, context.log)
    if are_floats_rounded(options.extra_float_digits):
        digits = parameter("extra_float_digits", options.extra_float_digits)
        context.log(f"warning: {digits} rounds floating-point values; a restore does not bring back the exact ones")
    client = choose_client(source.server_version_num, tools=("pg_dump", tool), client_dirs=settings.client_dirs)
    plan = plan_dump(
        options,
        client,
        compress=compress,
        compress_by=settings.compress_by,
        lock_wait_timeout=settings.lock_wait_timeout,
        connect_to=connection.dbname,
    )
    check_member_count(connection, source, options, plan, encrypted=bool(settings.recipients))
    return PreparedDump(source, options, client, plan, left_out, max_lag)
