"""The output of pg_dump or pg_dumpall while it is written to a repository.

A single-file artifact streams from the tool's standard output into the repository: no local file, and its digest is of
the bytes that the tool wrote. A directory artifact is written to a scratch directory beside the repository (a
temporary one, for S3) and moved in as one; for S3, each member is uploaded as soon as pg_dump has finished it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from airflow_pgbackup.backup.attempt import Attempt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.counters import DirectorySize
from airflow_pgbackup.backup.dump_plan import DumpPlan
from airflow_pgbackup.backup.lock_watch import LockWatch
from airflow_pgbackup.backup.member_encryption import MemberEncryption
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.reading_along import ReadingAlong
from airflow_pgbackup.backup.source import Source
from airflow_pgbackup.backup.streams import Meter, compressed, compressed_inside
from airflow_pgbackup.backup.throttle import Throttled
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.encryption.streams import encrypted
from airflow_pgbackup.errors import ArchiveVersionError, Canceled, NotProven, ToolError, VerificationFailed
from airflow_pgbackup.postgres.archive.directory_format import check_directory, member_of
from airflow_pgbackup.postgres.archive.tar_format import TOC
from airflow_pgbackup.postgres.archive.toc import parse_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import Cancel, ToolProcess
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.entry import Incoming
from airflow_pgbackup.repository.manifest import ENCRYPTED, Artifact, Encryption, FileDigest, directory_sha256

_Files = tuple[tuple[FileDigest, ...], tuple[FileDigest, ...]]
"""The files as they are stored, and as they are without encryption."""

_RATIO = 3
"""Of text to its gzip or zstd, about: ``benchmarks/bench_compression.py``."""


@dataclass(frozen=True)
class DumpOutput:
    """A planned run of the tool, and where its output goes.

    :param name: of the artifact.
    :param rate: of the tool's output, bytes per second; None for no limit.
    :param recipients: to which the artifact is encrypted; None for no encryption.
    :param reading: decodes the dump while it is written; None if nothing does.
    """

    tool: str
    client: Client
    connection: ConnectionParams
    source: Source
    plan: DumpPlan
    name: str
    repository: Repository
    context: RunContext
    rate: float | None = None
    recipients: Recipients | None = None
    reading: ReadingAlong | None = None

    def with_snapshot(self, snapshot: str) -> DumpOutput:
        """Return the same run in an exported snapshot."""
        return replace(self, plan=replace(self.plan, argv=(*self.plan.argv, f"--snapshot={snapshot}")))

    def write(self, mine: Attempt) -> Artifact:
        """Run the tool and write the artifact of an attempt.

        :raises ToolError: the tool failed, or its output is incomplete.
        :raises RepositoryError: the repository cannot be written to.
        """
        plan, settings = self.plan, self.context.settings
        what = self.source.database if self.tool == "pg_dump" else "the cluster"
        argv = [str(self.client.tool(self.tool)), *plan.argv]
        options: dict[str, Any] = {
            "env": client_environment(self.connection),
            "cancel": self.context.cancel,
            "deadline": self.context.deadline or settings.dump_deadline,
        }
        totals = self._totals()
        if plan.format != "directory":
            with self.context.step(f"dumping {what}", **totals) as step:
                on_line = plan.listener(self.context.log, step)
                with self._locks_watched(step), ToolProcess(argv, on_line=on_line, **options) as process:
                    # Parts are planned for the expected size: no indexes, and compressed half the size or less.
                    expected = self.source.size_bytes // (1 if plan.compression.method == "none" else 2)
                    files, plain = self._stream(process.stdout, mine, expected, step)
        else:
            with self._scratch(mine) as (directory, stored):
                argv += [f"--file={directory}", "--no-sync"]  # the repository syncs the files where they stay
                step = self.context.step(f"dumping {what}", measure=DirectorySize(directory), **totals)
                with step, self._locks_watched(step):
                    files, plain = self._directory(argv, directory, stored, mine, step, **options)
        return Artifact(
            name=self.name,
            format=plan.format,
            compression=plan.compression,
            size=sum(file.size for file in files),
            sha256=directory_sha256(files) if plan.format == "directory" else files[0].sha256,
            files=files,
            attempt=mine.name,
            encryption=Encryption("age", self.recipients.texts, plain) if self.recipients else None,
        )

    @contextmanager
    def _scratch(self, mine: Attempt) -> Iterator[tuple[Path, Path]]:
        """Make room for a directory dump: where pg_dump writes it, and where it is stored from, which are the same
        unless it is encrypted. What is not encrypted never reaches the repository's disk then."""
        temp_dir = self.context.settings.temp_dir
        with self.repository.scratch(mine.key(self.name), temp_dir=temp_dir) as scratch:
            stored = scratch / self.name
            if self.recipients is None:
                yield stored, stored
                return
            with PrivateDirectory(temp_dir or None) as private:
                stored.mkdir(mode=0o700)
                yield private / self.name.removesuffix(ENCRYPTED), stored

    @contextmanager
    def _locks_watched(self, step: Step) -> Iterator[None]:
        """Log who holds the lock that the dump waits for, and name that session in the error of a timeout."""

        def still_locking() -> bool:
            # pg_dump has all its locks before it writes. pg_dumpall runs it for one database after the other.
            return self.tool == "pg_dumpall" or not (step.bytes or step.tables)

        with LockWatch(self.connection, self.context, still_locking) as watch:
            try:
                yield
            except ToolError as error:
                if watch.holder and any("canceling statement due to" in line for line in error.stderr):
                    error.hint = f"{error.hint or ''} The dump waited for a lock{watch.holder}.".strip()
                raise

    def _totals(self) -> dict[str, Any]:
        """Return the expected totals of the output. The size is that of the rows on the server's disk plus a margin,
        because a step shows no percentage beyond its estimate."""
        source = self.source
        if self.plan.selective:
            return {}
        compressed_by_tool = self.plan.compression.method != "none" and not self.plan.ours
        rows = source.size_bytes if source.rows_bytes is None else source.rows_bytes
        return {
            "bytes_total": (rows // _RATIO if compressed_by_tool else rows + rows // 10),
            "estimated": True,
            "tables_total": source.tables,
        }

    def _stream(self, stdout: Readable, mine: Attempt, size_hint: int, progress: Step) -> _Files:
        plan, key = self.plan, mine.key(self.name)
        if self.rate:
            stdout = Throttled(stdout, self.rate, self.context.cancel)
        raw = _ToolOutput(stdout, plan, on_bytes=progress.advance)
        stored: Meter = raw
        if plan.ours:
            compress = compressed_inside if plan.format == "custom" else compressed
            stored = Meter(compress(raw, str(plan.compression.method), plan.compression.level))
        mine.written.append(key)
        try:
            with self._read_along(stored) as read, self._encrypted(stored, read) as (source, sent):
                self.repository.write(key, source, size_hint=size_hint, cancel=self.context.cancel)
        except VerificationFailed as error:
            raise plan.incomplete(raw, error.message, ended=raw.ended) from error
        plain = FileDigest(self.name.removesuffix(ENCRYPTED), stored.size, stored.sha256)
        return (FileDigest(self.name, sent.size, sent.sha256),), (plain,)

    def _read_along(self, stored: Meter) -> AbstractContextManager[Readable]:
        return nullcontext(stored) if self.reading is None else self.reading.stream(stored)

    @contextmanager
    def _encrypted(self, stored: Meter, source: Readable) -> Iterator[tuple[Readable, Meter]]:
        """Yield the stream to store, encrypted if requested, and the meter of its bytes."""
        if self.recipients is None:
            yield source, stored
            return
        with encrypted(source, self.recipients) as stream:
            sent = Meter(stream)
            yield sent, sent

    def _directory(
        self, argv: list[str], directory: Path, stored: Path, mine: Attempt, progress: Step, **options: Any
    ) -> _Files:
        stop, failures = Cancel(), list[BaseException]()

        def give_up(error: BaseException) -> None:
            failures.append(error)
            stop.set()

        cancel = self.context.cancel
        unregister = cancel.on_set(stop.set)
        try:
            with ExitStack() as stack:
                incoming = stack.enter_context(
                    self.repository.incoming(mine.key(self.name), stored, cancel=cancel, on_failure=give_up)
                )
                members = None
                if self.recipients is not None:
                    members = stack.enter_context(
                        MemberEncryption(
                            directory,
                            stored,
                            self.recipients,
                            cancel=stop,
                            on_done=incoming.offer,
                            on_failure=give_up,
                        )
                    )
                finished = members.begin if members else incoming.offer

                def on_item(dump_id: int) -> None:
                    if member := member_of(directory, f"{dump_id}.dat"):
                        finished(member.name)

                on_line = self.plan.listener(self.context.log, progress, on_item)
                try:
                    with ToolProcess(argv, stdout="devnull", on_line=on_line, **{**options, "cancel": stop}) as process:
                        process.wait()
                    self._check_directory(directory, stop)
                    self._read_directory(directory, stop)
                    plain = members.finish() if members else ()
                    return self._move_in(mine, incoming), plain
                except Canceled:
                    if failures:
                        raise failures[0] from None
                    raise
        finally:
            unregister()

    def _check_directory(self, directory: Path, stop: Cancel) -> None:
        # pg_dump wrote these files itself. If the disk filled up in a last page, only this check finds it: pg_dump ends
        # with exit status 0.
        try:
            with (directory / TOC).open("rb") as toc:
                entries = parse_toc(toc, what=TOC, keep=attrgetter("file"), limited=False).entries
            check_directory(directory, entries, stop.check)
        except (ArchiveVersionError, NotProven) as error:  # a limit of our readers must not end a dump
            self.context.log(f"warning: {error.message}: only {self.tool} {self.client.version_text} has checked it")

    def _read_directory(self, directory: Path, stop: Cancel) -> None:
        if self.reading is not None:
            try:
                self.reading.directory(directory, stop)
                stop.check()
            except VerificationFailed as error:
                raise ToolError(
                    f"{self.tool} ended with exit status 0, but its archive cannot be read: {error.message}",
                    tool=self.tool,
                    exit_code=0,
                    hint="Nothing was kept; run the dump again.",
                ) from error

    def _move_in(self, mine: Attempt, incoming: Incoming) -> tuple[FileDigest, ...]:
        stored = incoming.finish({})
        mine.written += [entry.key for entry in stored]
        prefix = f"{mine.key(self.name)}/"
        found = (FileDigest(entry.key.removeprefix(prefix), entry.size, entry.sha256) for entry in stored)
        return tuple(sorted(found, key=lambda file: file.path))


class _ToolOutput(Meter):
    """The tool's standard output. An incomplete dump is a read error at its end: the writer never sees a clean end.

    :ivar ended: the tool has ended.
    """

    def __init__(self, stdout: Readable, plan: DumpPlan, *, on_bytes: Callable[[int], None]) -> None:
        super().__init__(stdout, on_bytes=on_bytes, digest=not plan.ours)
        self._plan = plan
        self.ended = False

    def read(self, size: int = -1, /) -> bytes:
        data = super().read(size)
        if not data and size != 0:
            self.ended = True
            self._plan.check_ends(self)
        return data
