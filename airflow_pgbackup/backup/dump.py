"""dump: run pg_dump or pg_dumpall into a repository, manifest last.

:mod:`.dump_preparation` checks the source, :mod:`.dump_plan` decides the tool's arguments, :mod:`.dump_output` brings
its output into the repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from airflow_pgbackup.backup.attempt import Attempt, attempt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.replay import await_received
from airflow_pgbackup.backup.databases.role_passwords import may_read_role_passwords
from airflow_pgbackup.backup.databases.source_identity import seed_for, source_identity
from airflow_pgbackup.backup.dump_output import DumpOutput
from airflow_pgbackup.backup.dump_preparation import PreparedDump, prepare_dump
from airflow_pgbackup.backup.earlier_attempt import find_without_server
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.reading_along import ReadingAlong
from airflow_pgbackup.backup.reading_record import record_reading, require_rows
from airflow_pgbackup.backup.reference import SEED, find_committed, is_of, reference_of, seed_digest
from airflow_pgbackup.backup.restore_command import restore_command
from airflow_pgbackup.backup.source_rows import hold_source
from airflow_pgbackup.backup.stopwatch import Stopwatch
from airflow_pgbackup.backup.throttle import rate_of
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.errors import ConfigurationError, ConnectError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.tools.deadline import Deadline
from airflow_pgbackup.quantities import counted, human_bytes, human_seconds
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.labels import check_labels
from airflow_pgbackup.repository.manifest import Artifact, ClientInfo, Manifest, RowCount, scope_of
from airflow_pgbackup.time_spans import seconds_of_lag
from airflow_pgbackup.wording import database

CONFLICT_ATTEMPTS = 3
"""How often a dump from a standby is tried when WAL replay cancels it."""


def dump_database(
    *,
    connection: ConnectionParams,
    server: str,
    repository: Repository,
    options: DumpOptions,
    artifact_template: str = layout.DEFAULT_ARTIFACT,
    labels: Sequence[str] = (),
    count_rows: bool = False,
    max_replay_lag: float | None = None,
    max_bytes_per_second: float | None = None,
    read_along: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Dump one database with pg_dump and commit it as a backup.

    :param connection: names the database; its user needs the privileges that pg_dump needs.
    :param server: the first part of the series; operators pass the connection id.
    :param labels: names for this backup, ``pre-migration``; retention can keep them.
    :param count_rows: also count every table of the source, in the dump's own snapshot, so that verifications compare
        the archive with its source; and list the tables that the options leave out. It reads the tables twice.
    :param max_replay_lag: of a standby, in seconds; by default that of the settings. One that is further behind its
        primary is not dumped.
    :param max_bytes_per_second: of pg_dump's output, before airflow-pgbackup compresses it; by default that of the
        settings. The server sends no faster. Not for format directory.
    :param read_along: decode the dump while it is written, and record it as a verification at level ``archive``. A dump
        that cannot be decoded is an error, and no backup. Where it could not be found out, as with format tar, the
        reference has no level, and the log says why.
    :param context: its deadline limits pg_dump's run, instead of the settings' ``dump_deadline``. A second call with
        the same seed and server finds what the first one committed and returns that; without a seed each call makes a
        backup.
    :return: a reference, see :mod:`airflow_pgbackup.backup.reference`.
    :raises OptionError: options that cannot be combined, or one that the client here is too old for.
    :raises ConfigurationError: a connection pooler would mix the dump's session with others.
    :raises ConnectError: PostgreSQL is unreachable or refuses the connection, and no earlier attempt of the same
        request is known to have made a backup.
    :raises ReplayLagError: the server is a standby that is too far behind its primary.
    :raises ClientError: no pg_dump here can dump that server.
    :raises RepositoryError: the repository is not initialized or not writable.
    :raises ToolError: pg_dump failed, or its output is incomplete, cannot be decoded (`read_along`) or lacks rows of
        its source. No backup is visible.
    :raises BackupNotFound: with `read_along`: the backup was removed before its verification was written.
    """
    context = context or RunContext()
    given = _Parameters(seconds_of_lag(max_replay_lag), max_bytes_per_second, read_along)
    dump = _Dump("pg_dump", server, repository, artifact_template, check_labels(labels), context, given)
    return dump.run(connection, options, count_rows=count_rows)


def dump_cluster(
    *,
    connection: ConnectionParams,
    server: str,
    repository: Repository,
    options: DumpAllOptions,
    compress: str | int | None = None,
    artifact_template: str = layout.DEFAULT_ARTIFACT,
    labels: Sequence[str] = (),
    passwords_if_allowed: bool = False,
    max_replay_lag: float | None = None,
    max_bytes_per_second: float | None = None,
    read_along: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Dump all databases of a cluster, or its global objects, with pg_dumpall. As :func:`dump_database`, but:

    A dump of globals, of roles or of tablespaces only is of another series than that of the whole cluster. What
    pg_dumpall leaves out, and on a managed service what its users may not read, is logged and listed in the manifest's
    ``left_out``.

    :param compress: ``zstd[:level]``, ``gzip[:level]`` or None. pg_dumpall has no such option: airflow-pgbackup
        compresses its output.
    :param passwords_if_allowed: instead of failing where the server does not let ``role`` read them, dump as the user
        of the connection, or with ``no_role_passwords`` if that user may not read them either. The log says so.
    """
    context = context or RunContext()
    # libpq's own default would be the user's name.
    connection = connection if connection.dbname else connection.with_database(options.database or "postgres")
    given = _Parameters(seconds_of_lag(max_replay_lag), max_bytes_per_second, read_along)
    dump = _Dump("pg_dumpall", server, repository, artifact_template, check_labels(labels), context, given)
    return dump.run(connection, options, compress, passwords_if_allowed=passwords_if_allowed)


def _is_conflict(error: ToolError | ConnectError) -> bool:
    """Return whether a standby canceled the dump, whose WAL replay may not wait any longer.

    "The canceled query should be retried", says the manual, "Hot Standby", "Handling Query Conflicts".
    """
    lines = [error.message, *(error.stderr if isinstance(error, ToolError) else ())]
    return any("conflict with recovery" in line for line in lines)


@dataclass(frozen=True)
class _Parameters:
    """What the caller gave besides the tool's options; None takes the settings'."""

    replay_lag: float | None
    bytes_per_second: float | None
    read_along: bool


@dataclass(frozen=True)
class _Written:
    """An artifact, and what its source had in the snapshot of the dump; None if that was not asked."""

    artifact: Artifact
    source_rows: tuple[RowCount, ...] | None
    left_out: tuple[str, ...] | None


def _write(output: DumpOutput, mine: Attempt, prepared: PreparedDump, *, count_rows: bool) -> _Written:
    """Run the tool; with `count_rows` count the tables of the source beside it, in the same snapshot.

    :raises ToolError: the tool failed, or its output lacks rows.
    """
    if not (count_rows and isinstance(prepared.options, DumpOptions)):
        return _Written(output.write(mine), None, prepared.left_out)
    with hold_source(
        output.connection,
        prepared.options,
        client=prepared.client.version,
        max_replay_lag=prepared.max_replay_lag,
        context=output.context,
    ) as held:
        artifact = output.with_snapshot(held.snapshot).write(mine)
        rows, left_out = held.rows(), held.left_out
    if output.reading is not None and output.reading.summary is not None:
        require_rows(rows, output.reading.summary, prepared.options)
    return _Written(artifact, rows, left_out)


@dataclass
class _Dump:
    tool: str
    server: str
    repository: Repository
    template: str
    labels: tuple[str, ...]
    context: RunContext
    given: _Parameters
    without_passwords: bool = False  # which the user may not read

    def run(
        self,
        connection: ConnectionParams,
        options: DumpOptions | DumpAllOptions,
        compress: str | int | None = None,
        *,
        count_rows: bool = False,
        passwords_if_allowed: bool = False,
    ) -> dict[str, object]:
        options.validate()
        rate_of(self.given.bytes_per_second, self.context.settings, format=getattr(options, "format", "plain"))
        recipients = Recipients.parse(self.context.settings.recipients)
        sweep_leftovers(self.context)
        uuid = self.repository.uuid
        series = self._series(connection, options)
        try:
            context = self.context = self._with_source(connection)
        except ConnectError as error:
            if found := find_without_server(self.repository, series, connection, self.context, error):
                return self._result(found)
            raise
        seed = context.seed
        ids: Sequence[str] | None = None
        if seed is not None:
            ids = self.repository.folders(series.path)
            if found := find_committed(self.repository, series, seed, ids=ids, not_before=context.not_before):
                context.log(f"backup {found.backup.id} was committed by an earlier attempt of this task; nothing to do")
                return self._result(found)
        if passwords_if_allowed and isinstance(options, DumpAllOptions):
            options = self._with_allowed_passwords(connection, options)
        deadline = Deadline(context.deadline or context.settings.dump_deadline, context.cancel, work="the dump")
        for attempts_left in range(CONFLICT_ATTEMPTS - 1, -1, -1):
            self.context = replace(context, deadline=deadline.remaining())
            try:
                return self._dump(
                    connection,
                    options,
                    compress,
                    series=series,
                    uuid=uuid,
                    ids=ids,
                    count_rows=count_rows,
                    recipients=recipients,
                )
            except (ToolError, ConnectError) as error:
                if not (attempts_left and _is_conflict(error)):
                    raise
                left = counted(attempts_left, "more attempt")
                context.log(f"{connection.label}: replay canceled the dump (conflict with recovery); {left}")
                await_received(connection, context.cancel, at_most=min(60, deadline.remaining()))
        raise AssertionError

    def _dump(
        self,
        connection: ConnectionParams,
        options: DumpOptions | DumpAllOptions,
        compress: str | int | None,
        *,
        series: layout.Series,
        uuid: str,
        ids: Sequence[str] | None,
        count_rows: bool,
        recipients: Recipients | None,
    ) -> dict[str, object]:
        context, watch = self.context, Stopwatch()
        prepared = prepare_dump(
            self.tool,
            connection,
            options,
            compress,
            series=series,
            repository=self.repository,
            ids=ids,
            max_replay_lag=self.given.replay_lag,
            context=context,
        )
        name = layout.artifact_name(
            self.template,
            database=series.database,
            server=self.server,
            started_at=watch.started_at,
            format=prepared.plan.format,
            compression=prepared.plan.around,
            scope=series.scope,
            encrypted=recipients is not None,
        )
        self.repository.probe(context.log)
        self._log_start(connection, prepared, recipients)
        id, seed = layout.backup_id(watch.started_at, context.seed), context.seed
        with attempt(self.repository, series, id, context.log) as mine:
            reading = self._reading_along(prepared)
            rate = rate_of(self.given.bytes_per_second, context.settings, format=prepared.plan.format)
            output = DumpOutput(
                self.tool,
                prepared.client,
                connection,
                prepared.source,
                prepared.plan,
                name,
                self.repository,
                context,
                rate,
                recipients,
                reading,
            )
            written = _write(output, mine, prepared, count_rows=count_rows)
            manifest = self._manifest(prepared, written, connection, watch, repository=uuid, series=series, id=id)
            context.cancel.check()
            found = mine.commit(manifest, lambda other: seed is not None and is_of(other, seed))
        if not mine.has_made(found):
            return self._result(found)
        size, seconds = written.artifact.size, manifest.duration_seconds
        context.log(f"made backup {series}/{id}: {human_bytes(size)} in {human_seconds(seconds)}")
        context.log(f"stored {name} in {self.repository.uri}")
        context.log(f"restores with: {manifest.restore_command}")
        if reading is not None:
            found = record_reading(self.repository, found, reading, watch=watch, context=context)
        return self._result(found)

    def _manifest(
        self,
        prepared: PreparedDump,
        written: _Written,
        connection: ConnectionParams,
        watch: Stopwatch,
        *,
        repository: str,
        series: layout.Series,
        id: str,
    ) -> Manifest:
        """Return the manifest of a dump that ends now."""
        context, plan = self.context, prepared.plan
        finished, seconds = watch.stop()
        return Manifest(
            repository=repository,
            series=series,
            id=id,
            kind="cluster" if series.database is None else "database",
            started_at=watch.started_at,
            finished_at=finished,
            duration_seconds=seconds,
            artifact=written.artifact,
            source=prepared.source.for_manifest(connection),
            client=ClientInfo(self.tool, prepared.client.version_text, str(prepared.client.tool(self.tool))),
            options=prepared.options.describe(),
            origin={**context.origin, **({SEED: seed_digest(context.seed)} if context.seed else {})},
            restore_command=restore_command(
                artifact=written.artifact.name,
                format=plan.format,
                compression=plan.around,
                database=series.database,
                create=plan.create,
                kind=series.kind,
                encrypted=written.artifact.encryption is not None,
            ),
            source_rows=written.source_rows,
            left_out=self._left_out(written),
            labels=self.labels,
        )

    def _log_start(self, connection: ConnectionParams, prepared: PreparedDump, recipients: Recipients | None) -> None:
        secret = f", encrypted to {counted(len(recipients.texts), 'recipient')}" if recipients else ""
        self.context.log(
            f"dumping {connection.label} (PostgreSQL {prepared.source.server_version}, "
            f"{human_bytes(prepared.source.size_bytes)}) with {self.tool} {prepared.client.version_text}; "
            f"format {prepared.plan.format}, compression {prepared.plan.compression_text}{secret}; "
            f"client in {prepared.client.bin_dir}"
        )

    def _reading_along(self, prepared: PreparedDump) -> ReadingAlong | None:
        if not self.given.read_along:
            return None
        return ReadingAlong(
            prepared.plan.format,
            prepared.plan.around,
            prepared.plan.inside,
            made_by=prepared.client,
            deadline=self.context.deadline or self.context.settings.dump_deadline,
            context=self.context,
        )

    def _with_source(self, connection: ConnectionParams) -> RunContext:
        """Return the context with a seed that is of this server alone."""
        if self.context.seed is None:
            return self.context
        with connection.open_session() as session:
            return replace(self.context, seed=seed_for(self.context.seed, source_identity(connection, session)))

    def _with_allowed_passwords(self, connection: ConnectionParams, options: DumpAllOptions) -> DumpAllOptions:
        if may_read_role_passwords(connection, options.role):
            return options
        if options.role and may_read_role_passwords(connection):
            self.context.log(
                f"{connection.label}: role {options.role} may not read role passwords; dumping roles as the user"
            )
            return replace(options, role=None)
        self.context.log(f"{connection.label}: this role may not read role passwords; dumping roles without them")
        self.without_passwords = True
        return replace(options, no_role_passwords=True)

    def _left_out(self, written: _Written) -> tuple[str, ...] | None:
        left_out = written.left_out or ()
        if not self.without_passwords or any(line.startswith("role passwords ") for line in left_out):
            return written.left_out
        return (*left_out, "role passwords (this role may not read them)")

    def _result(self, found: Evidence) -> dict[str, object]:
        self.context.on_backup(found.require_manifest())
        return reference_of(self.repository, found)

    def _series(self, connection: ConnectionParams, options: DumpOptions | DumpAllOptions) -> layout.Series:
        if isinstance(options, DumpAllOptions):
            return layout.Series(self.server, None, scope_of(options.describe()))
        # libpq's own default is the user's name; a backup should not depend on who connects.
        if not connection.dbname:
            raise ConfigurationError(
                f"no database given for {connection.label}",
                hint=f"Set {database()}.",
            )
        return layout.Series(self.server, connection.dbname)
