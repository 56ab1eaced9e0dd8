"""Read an artifact to its last byte: prove that it is complete, and count and hash the rows of every table.

PostgreSQL's own pg_restore decodes archives, with ``--section=data``. Its output has only entries with data, so no
function body or comment can be mistaken for a COPY. The whole archive is read: the definitions are in the table of
contents, which is parsed to its end first, and nothing follows the last data block of a custom archive. Plain dumps are
read by the same lexer, which tells statements from strings, comments and function bodies. Truncations that pg_restore
does not notice are checked for before it runs; see :mod:`airflow_pgbackup.postgres.archive`. A custom or tar archive of
an unknown version is left to pg_restore alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Sequence
from pathlib import Path

from airflow_pgbackup.byte_streams import CountingReader, PieceReader, PrefixedReader, Readable
from airflow_pgbackup.errors import ArchiveVersionError, ConfigurationError
from airflow_pgbackup.postgres.archive.archive_file import read_archive_toc
from airflow_pgbackup.postgres.archive.checked_blocks import check_blocks, checked_blocks
from airflow_pgbackup.postgres.archive.custom_decoder import copy_blocks, decodable
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.directory_format import check_directory
from airflow_pgbackup.postgres.archive.pg_restore_output import PgRestoreOutput
from airflow_pgbackup.postgres.archive.row_digests import RowHasher, RowSet, TableDigester
from airflow_pgbackup.postgres.archive.script_reader import CopyBlock, ScriptReader
from airflow_pgbackup.postgres.archive.summary import (
    ArchiveSummary,
    LargeObjects,
    SequenceValue,
    TableDigest,
    TableKey,
)
from airflow_pgbackup.postgres.archive.toc import VERSION_SIZE, Toc, concerns_data, read_toc, unknown_version
from airflow_pgbackup.postgres.tools.client_choice import ReaderRequirements, check_can_read
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.deadline import Deadline
from airflow_pgbackup.postgres.tools.process import Cancel, ToolProcess
from airflow_pgbackup.postgres.tools.shared_libraries import library_path

__all__ = [
    "ArchiveSummary",
    "ArchiveReader",
    "CopyBlock",
    "LargeObjects",
    "RowSet",
    "SequenceValue",
    "TableDigest",
]

_WHAT = "the archive"


class ArchiveReader:
    """One pass over an artifact, to its last byte: :meth:`digest`, :meth:`row_sets` or :meth:`blocks`.

    :param source: a file, or the directory of a directory archive; a stream for the formats ``custom`` and ``plain``.
    :param format: ``custom``, ``directory``, ``tar``, or ``plain`` (which includes pg_dumpall's output).
    :param client: its pg_restore decodes archives; not used for plain dumps.
    :param deadline: seconds, for the complete pass.
    :param compression: of a plain dump: ``gzip`` or ``zstd``.
    :param cancel: stops reading when set.
    :param on_line: called with each line that pg_restore writes to stderr.
    :param progress: called with the bytes of SQL so far.
    :param toc: the table of contents of this file, where it was parsed before.
    :param in_process: decode a custom archive without pg_restore where possible, see :mod:`.custom_decoder`.
    :param within: takes the directory of a program and the files that it reads, and returns the command that runs it in
        a sandbox.
    :ivar summary: complete when the pass has ended.

    All three methods raise:

    :raises VerificationFailed: the artifact is truncated or damaged: what was found, and where.
    :raises NotProven: the artifact exceeds a limit of this reader, which does not prove it damaged.
    :raises ClientError: this client cannot read it: it is too old, or lacks the compression.
    :raises DeadlineExceeded, Canceled, ToolKilled: reading was stopped, which says nothing about the artifact.
    """

    def __init__(
        self,
        source: str | Path | Readable,
        *,
        format: str,
        client: Client,
        deadline: float,
        compression: str | None = None,
        cancel: Cancel | None = None,
        on_line: Callable[[str], None] | None = None,
        progress: Callable[[int], None] | None = None,
        toc: Toc | None = None,
        in_process: bool = False,
        within: Callable[..., Sequence[str]] = lambda bin_dir, *reads: (),
    ) -> None:
        self.summary = ArchiveSummary()
        self._source: Path | Readable = Path(source).absolute() if isinstance(source, (str, Path)) else source
        self._format = format
        self._client = client
        self._compression = compression
        self._deadline = Deadline(deadline, cancel, work="reading the archive")
        self._on_line = on_line
        self._progress = progress
        self._known_toc = toc
        self._in_process = in_process
        self._within = within

    def digest(self) -> ArchiveSummary:
        """Return the contents of the artifact, with the rows, bytes and SHA-256 of every table."""
        found: dict[TableKey, tuple[tuple[str, ...], TableDigester, int]] = {}  # without blocks, which hold readers
        with contextlib.closing(self.blocks()) as blocks:
            for block in blocks:
                columns, digester, count = found.get(block.key) or (block.columns, TableDigester(), 0)
                for data in block.chunks():
                    digester.update(data)
                found[block.key] = (columns, digester, count + 1)
        tables = [
            TableDigest(schema, name, columns, d.rows, d.bytes, d.sha256, count, "copy", database)
            for (database, schema, name), (columns, d, count) in found.items()
        ]
        self.summary.tables = tables + self.summary.tables
        return self.summary

    def row_sets(self, tables: Collection[TableKey], counted: Collection[TableKey] = ()) -> dict[TableKey, RowSet]:
        """Return the rows of some tables as sets, which can be compared whatever the order of the rows.

        Use it only for tables whose digests differ: it handles about a million rows a second.

        :param tables: by :attr:`.TableDigest.key`.
        :param counted: those of `tables` for which it also counts how often each row occurs.
        """
        hashers = {key: RowHasher(count=key in counted) for key in tables}
        with contextlib.closing(self.blocks()) as blocks:
            for block in blocks:
                if hasher := hashers.get(block.key):
                    hasher.begin_block(block.columns)
                    for data in block.chunks():
                        hasher.update(data)
        return {key: hasher.finish() for key, hasher in hashers.items()}

    def blocks(self) -> Generator[CopyBlock, None, None]:
        """Yield COPY blocks in the order of the archive. Close the generator unless it is read to its end.

        If the caller does not read a block's data, it is skipped. Reading the chunks of a block raises the same errors.
        """
        with contextlib.ExitStack() as stack:
            if self._in_process and self._format == "custom" and isinstance(self._source, Path):
                file = stack.enter_context(self._source.open("rb"))
                if not self._known_toc and not unknown_version(file.read(VERSION_SIZE), _WHAT):
                    self._known_toc = self._read_toc(self._source)
                if self._known_toc and decodable(self._known_toc):
                    self._note(self._known_toc)
                    file.seek(self._known_toc.size)
                    yield from copy_blocks(file, self._known_toc, self.summary, self._deadline)
                    return
            toc, script = self._open(stack)
            counted = CountingReader(script, self._count)
            if toc:
                self._note(toc)
            yield from ScriptReader(counted, self.summary, toc.entries if toc else None).blocks()

    def _note(self, toc: Toc) -> None:
        summary = self.summary
        summary.server_version, summary.dump_version = toc.server_version, toc.dump_version
        views = (entry for entry in toc.entries if entry.kind == "MATERIALIZED VIEW DATA")
        summary.refreshed = {(None, entry.schema or "", entry.name) for entry in views}

    def _count(self, size: int) -> None:
        self._deadline.check()
        if self._progress:
            self._progress(size)

    def _open(self, stack: contextlib.ExitStack) -> tuple[Toc | None, Readable]:
        if self._format == "plain":
            return None, self._open_plain(stack)
        if self._format not in ("custom", "directory", "tar"):
            raise ConfigurationError(f"invalid format {self._format!r}", hint="Choose custom, directory, tar or plain.")
        if isinstance(self._source, Path):
            try:
                toc = self._known_toc or self._read_toc(self._source)
            except ArchiveVersionError as error:
                return None, self._pg_restore_alone(stack, error, None)
            if self._format == "directory":
                check_directory(self._source, toc.entries, self._deadline.check)
            elif self._format == "custom":
                with self._source.open("rb") as file:
                    check_blocks(file, toc, self._deadline.check)
            return toc, self._pg_restore(stack, toc, None)
        if self._format != "custom":
            raise ConfigurationError(f"{self._format} format cannot be read from a stream", hint="Pass its path.")
        first = b""
        while len(first) < VERSION_SIZE and (data := self._source.read(VERSION_SIZE - len(first))):
            first += data
        source = PrefixedReader(first, self._source)
        if unknown := unknown_version(first, _WHAT):
            return None, self._pg_restore_alone(stack, unknown, source)
        toc, head = self._toc(source)
        checked = checked_blocks(PrefixedReader(head, source), toc)
        return toc, self._pg_restore(stack, toc, PieceReader(checked))

    def _pg_restore_alone(
        self, stack: contextlib.ExitStack, error: ArchiveVersionError, stdin: Readable | None
    ) -> Readable:
        """Leave an archive of an unknown version to pg_restore: no table of contents says what its output must have.

        pg_restore opens the members of a directory by the names in its ``toc.dat``, which nobody could check.
        """
        if self._format == "directory":
            raise error
        if self._on_line:
            self._on_line(f"warning: {error.message}: only pg_restore {self._client.version_text} reads it")
        return PgRestoreOutput(self._run_pg_restore(stack, stdin), client=self._client)

    def _open_plain(self, stack: contextlib.ExitStack) -> Readable:
        source = self._source
        if isinstance(source, Path):
            source = stack.enter_context(source.open("rb"))
        if self._compression in (None, "none"):
            return source
        return Decompressed(source, str(self._compression), "the dump", on_step=self._deadline.check)

    def _toc(self, source: Readable) -> tuple[Toc, bytes]:
        counted = CountingReader(source, lambda size: self._deadline.check())
        return read_toc(counted, what=_WHAT, keep=concerns_data)

    def _read_toc(self, path: Path) -> Toc:
        return read_archive_toc(path, self._format, self._deadline.check, keep=concerns_data)

    def _pg_restore(self, stack: contextlib.ExitStack, toc: Toc, stdin: Readable | None) -> Readable:
        self._check_client(toc)
        return PgRestoreOutput(self._run_pg_restore(stack, stdin), client=self._client)

    def _run_pg_restore(self, stack: contextlib.ExitStack, stdin: Readable | None) -> ToolProcess:
        argv = [str(self._client.tool("pg_restore")), "--section=data", f"--format={self._format}", "--file=-"]
        reads = [self._source] if isinstance(self._source, Path) else []
        if stdin is None:
            argv.append(str(self._source))
        process = ToolProcess(
            argv,
            env={"LC_ALL": "C", "TZ": "UTC", **library_path()},
            cancel=self._deadline.cancel,
            deadline=self._deadline.remaining(),
            on_line=self._on_line,
            stdin=stdin,
            within=self._within(self._client.bin_dir, *reads),
        )
        return stack.enter_context(process)

    def _check_client(self, toc: Toc) -> None:
        compression = None if toc.compression == "none" else toc.compression
        check_can_read(self._client, ReaderRequirements(toc.dump_version, toc.needs_client, compression))
