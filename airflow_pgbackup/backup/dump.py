"""dump: run pg_dump or pg_dumpall into a repository, manifest last.

A single-file artifact goes straight from the tool's standard output into the repository: no local file, and its
digest is of the bytes that the tool wrote. A directory artifact is written to a scratch folder beside the
repository (a temporary one, for S3) and moved in whole; into S3, what pg_dump says is done leaves before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow_pgbackup.backup.attempt import Attempt, attempt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump_plan import DumpPlan, plan_dump
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.progress import Progress, human_bytes, human_seconds
from airflow_pgbackup.backup.reference import SEED, find_committed, is_of, reference_of, seed_digest
from airflow_pgbackup.backup.restore_command import restore_command
from airflow_pgbackup.backup.source import Source, describe_source
from airflow_pgbackup.backup.source_rows import hold_source
from airflow_pgbackup.backup.streams import Meter, compressed, compressed_inside
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import Canceled, ConfigurationError, VerificationFailed
from airflow_pgbackup.postgres.archive.directory_format import check_directory, member_of
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import Cancel, ToolProcess
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Incoming
from airflow_pgbackup.repository.manifest import Artifact, ClientInfo, FileDigest, Manifest, directory_sha256


def dump_database(
    *,
    connection: ConnectionParams,
    server: str,
    repository: Repository,
    options: DumpOptions,
    artifact_template: str = layout.DEFAULT_ARTIFACT,
    count_rows: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Dump one database with pg_dump and commit it as a backup.

    :param connection: names the database; its user needs what pg_dump needs.
    :param server: the first part of the series, for people; operators give the connection id.
    :param count_rows: count every table of the source in the dump's own snapshot, meanwhile, for verifications to hold
        the archive against; and list the tables that the options leave out. Reads the tables once more.
    :param context: its deadline limits pg_dump's run, instead of the settings' ``dump_deadline``. A second call with
        the same seed finds what the first one committed and returns that; without a seed each call makes a backup.
    :return: a reference, see :mod:`airflow_pgbackup.backup.reference`.
    :raises OptionError: contradictory options, or one that the client here is too old for.
    :raises ConnectError: PostgreSQL unreachable, or it refused us.
    :raises ClientError: no pg_dump here that can read that server.
    :raises RepositoryError: not initialized, not writable.
    :raises ToolError: pg_dump failed, or ended well with an output that is not whole. Nothing is left visible.
    """
    job = _Job("pg_dump", server, repository, artifact_template, context or RunContext())
    return job.run(connection, options, count_rows=count_rows)


def dump_cluster(
    *,
    connection: ConnectionParams,
    server: str,
    repository: Repository,
    options: DumpAllOptions,
    compress: str | int | None = None,
    artifact_template: str = layout.DEFAULT_ARTIFACT,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Dump a whole cluster, or its global objects, with pg_dumpall. As :func:`dump_database` but:

    :param compress: ``zstd[:level]``, ``gzip[:level]`` or None, done by us: pg_dumpall has no such option.
    """
    # libpq's own default would be the user's name.
    connection = connection if connection.dbname else connection.with_database(options.database or "postgres")
    job = _Job("pg_dumpall", server, repository, artifact_template, context or RunContext())
    return job.run(connection, options, compress)


@dataclass
class _Job:
    tool: str
    server: str
    repository: Repository
    template: str
    context: RunContext

    def run(
        self,
        connection: ConnectionParams,
        options: DumpOptions | DumpAllOptions,
        compress: str | int | None = None,
        *,
        count_rows: bool = False,
    ) -> dict[str, object]:
        options.validate()
        context, settings, seed = self.context, self.context.settings, self.context.seed
        sweep_leftovers(context)
        uuid = self.repository.uuid
        series = self._series(connection)
        if seed is not None and (found := find_committed(self.repository, series, seed)):
            context.log(f"backup {found.backup.id} was committed by an earlier try of this task: nothing to do")
            return reference_of(self.repository, found)
        started = datetime.now(timezone.utc)
        source = describe_source(connection, cluster=series.database is None)
        client = choose_client(
            source.server_version_num, tools=("pg_dump", self.tool), client_dirs=settings.client_dirs
        )
        plan = plan_dump(
            options,
            client,
            compress=compress,
            compress_by=settings.compress_by,
            lock_wait_timeout=settings.lock_wait_timeout,
            connect_to=connection.dbname,
        )
        name = layout.artifact_name(
            self.template,
            database=series.database,
            server=self.server,
            started_at=started,
            format=plan.format,
            compression=plan.around,
        )
        self.repository.probe()
        context.log(
            f"{self.tool} {client.version_text} of {client.bin_dir} dumps {connection.label}: server "
            f"{source.server_version}, {human_bytes(source.size_bytes)} on disk; format {plan.format}, "
            f"compression {plan.compression_text}"
        )
        id = layout.backup_id(started, seed)
        source_rows = left_out = None
        with attempt(self.repository, series, id, context.log) as mine:
            if count_rows and isinstance(options, DumpOptions):
                with hold_source(connection, options, context=context) as held:
                    plan = replace(plan, argv=(*plan.argv, f"--snapshot={held.snapshot}"))
                    artifact = self._write(plan, client, connection, source, mine, name)
                    source_rows, left_out = held.rows(), held.left_out
            else:
                artifact = self._write(plan, client, connection, source, mine, name)
            finished = datetime.now(timezone.utc)
            manifest = Manifest(
                repository=uuid,
                series=series,
                id=id,
                kind="cluster" if series.database is None else "database",
                started_at=started,
                finished_at=finished,
                duration_seconds=round((finished - started).total_seconds(), 3),
                artifact=artifact,
                source=source.for_manifest(connection),
                client=ClientInfo(self.tool, client.version_text, str(client.tool(self.tool))),
                options=options.describe(),
                origin={**context.origin, **({SEED: seed_digest(seed)} if seed else {})},
                restore_command=restore_command(
                    artifact=name,
                    format=plan.format,
                    compression=plan.around,
                    database=series.database,
                    create=plan.create,
                ),
                source_rows=source_rows,
                left_out=left_out,
            )
            context.cancel.check()
            found = mine.commit(manifest, lambda other: seed is not None and is_of(other, seed))
        if not mine.has_made(found):
            return reference_of(self.repository, found)
        context.log(
            f"backup {series}/{id} in {self.repository.uri}: {name}, {human_bytes(artifact.size)} in "
            f"{human_seconds(manifest.duration_seconds)}; restores with: {manifest.restore_command}"
        )
        return reference_of(self.repository, found)

    def _series(self, connection: ConnectionParams) -> layout.Series:
        if self.tool == "pg_dumpall":
            return layout.Series(self.server, None)
        # libpq's own default is the user's name; a backup should not depend on who asks.
        if not connection.dbname:
            raise ConfigurationError(
                f"no database is named for {connection.label}",
                hint="set the connection's schema (its database), or the operator's database=",
            )
        return layout.Series(self.server, connection.dbname)

    def _write(
        self,
        plan: DumpPlan,
        client: Client,
        connection: ConnectionParams,
        source: Source,
        mine: Attempt,
        name: str,
    ) -> Artifact:
        context = self.context
        progress = Progress(context.log, f"dumping {source.database if self.tool == 'pg_dump' else 'the cluster'}")
        progress.tables_total = None if plan.selective else source.tables
        argv = [str(client.tool(self.tool)), *plan.argv]
        options: dict[str, Any] = {
            "env": client_environment(connection),
            "cancel": context.cancel,
            "deadline": context.deadline or context.settings.dump_deadline,
        }
        if plan.format != "directory":
            on_line = plan.listener(context.log, progress)
            with ToolProcess(argv, on_line=on_line, **options) as process:
                # Parts are planned for what will come: no indexes, and compressed half the size or less.
                expected = source.size_bytes // (1 if plan.compression.method == "none" else 2)
                files = self._stream(plan, process.stdout, mine, name, expected, progress)
        else:
            with self.repository.scratch(mine.key(name), temp_dir=context.settings.temp_dir) as scratch:
                argv += [f"--file={scratch / name}", "--no-sync"]  # the repository syncs the files where they stay
                files = self._directory(argv, scratch / name, mine, plan, progress, **options)
        return Artifact(
            name=name,
            format=plan.format,
            compression=plan.compression,
            size=sum(file.size for file in files),
            sha256=directory_sha256(files) if plan.format == "directory" else files[0].sha256,
            files=files,
            attempt=mine.name,
        )

    def _stream(
        self, plan: DumpPlan, stdout: Readable, mine: Attempt, name: str, size_hint: int, progress: Progress
    ) -> tuple[FileDigest, ...]:
        checked = _Checked(stdout, lambda: plan.check_ends(raw))
        raw = stored = Meter(checked, on_bytes=progress.advance, digest=not plan.ours)
        if plan.ours:
            compress = compressed_inside if plan.format == "custom" else compressed
            stored = Meter(compress(raw, str(plan.compression.method), plan.compression.level))
        mine.written.append(mine.key(name))
        try:
            self.repository.write(mine.key(name), stored, size_hint=size_hint, cancel=self.context.cancel)
        except VerificationFailed as error:
            raise plan.not_whole(raw, error.message) from error
        return (FileDigest(name, stored.size, stored.sha256),)

    def _directory(
        self, argv: list[str], folder: Path, mine: Attempt, plan: DumpPlan, progress: Progress, **options: Any
    ) -> tuple[FileDigest, ...]:
        stop, failures = Cancel(), list[BaseException]()

        def give_up(error: BaseException) -> None:
            failures.append(error)
            stop.set()

        forget = self.context.cancel.on_set(stop.set)
        try:
            key = mine.key(folder.name)
            with self.repository.incoming(key, folder, cancel=self.context.cancel, on_failure=give_up) as incoming:

                def on_item(dump_id: int) -> None:
                    if member := member_of(folder, f"{dump_id}.dat"):
                        incoming.offer(member.name)

                on_line = plan.listener(self.context.log, progress, on_item)
                try:
                    with ToolProcess(argv, stdout="devnull", on_line=on_line, **{**options, "cancel": stop}) as process:
                        process.wait()
                    return self._move_in(folder, mine, incoming, stop)
                except Canceled:
                    if failures:
                        raise failures[0] from None
                    raise
        finally:
            forget()

    def _move_in(self, folder: Path, mine: Attempt, incoming: Incoming, stop: Cancel) -> tuple[FileDigest, ...]:
        # pg_dump wrote these files itself: a disk that filled up in a last page is found here, not by its exit status.
        with (folder / "toc.dat").open("rb") as toc:
            entries = read_toc(toc, what="toc.dat")[0].entries
        check_directory(folder, entries, stop.check)
        stored = incoming.finish({})
        mine.written += [entry.key for entry in stored]
        beginning = f"{mine.key(folder.name)}/"
        return tuple(FileDigest(entry.key.removeprefix(beginning), entry.size, entry.sha256) for entry in stored)


class _Checked:
    """``source``, whose end is only the end when ``check`` says so: what it raises is a read error to the writer."""

    def __init__(self, source: Readable, check: Callable[[], None]) -> None:
        self._source = source
        self._check = check

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        if not data and size != 0:
            self._check()
        return data
