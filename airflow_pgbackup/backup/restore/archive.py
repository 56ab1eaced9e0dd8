"""Restore an archive with pg_restore: which entries, with which client, in which way."""

from __future__ import annotations

import dataclasses
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.counters import restore_totals
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.restore.client_programs import ToolMessages, pg_restore, pg_restore_to_psql, psql
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.inserted_rows import (
    check_inserted_rows,
    encoding_of,
    has_standard_strings,
    inserted_rows,
)
from airflow_pgbackup.backup.restore.plan import major_version
from airflow_pgbackup.backup.restore.selected_names import unmatched_names
from airflow_pgbackup.byte_streams import CountingReader, LimitedReader, PieceReader, Readable
from airflow_pgbackup.errors import OptionError, ToolError
from airflow_pgbackup.postgres.archive.archive_file import read_archive_toc
from airflow_pgbackup.postgres.archive.checked_blocks import check_blocks, checked_blocks
from airflow_pgbackup.postgres.archive.toc import SETTING_KINDS, Toc, TocEntry, read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, is_standard_comment, statements
from airflow_pgbackup.postgres.definitions.database_locale import without_tablespace
from airflow_pgbackup.postgres.definitions.event_triggers import fires_event_triggers
from airflow_pgbackup.postgres.definitions.public_schema import PublicSchema
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.definitions.transaction_control import check_entries
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.tools import client_choice
from airflow_pgbackup.postgres.tools.capabilities import runs_scripts_of
from airflow_pgbackup.postgres.tools.client_choice import ReaderRequirements, choose_psql
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from airflow_pgbackup.postgres.tools.process import run_tool
from airflow_pgbackup.postgres.tools.shared_libraries import library_path
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.manifest import Manifest

_EXACT = "Names are case-sensitive and must match exactly; pg_restore --list shows them."
_LIST_SECONDS = 600.0
_CREATE_PUBLIC = re.compile(r'CREATE SCHEMA (?:public|"public");')

Opener = Callable[[], AbstractContextManager[Readable]]
Selection = Callable[[list[TocEntry]], list[TocEntry]]


@dataclass(frozen=True)
class OpenArchive:
    """An archive with its table of contents.

    :param source: the archive's path; or, for a custom archive that is read as a stream, a function that opens it.
    :param format: the archive's format; in the table of contents of a directory archive it is tar.
    :param head: the beginning of a stream, with the complete table of contents.
    """

    source: Path | Opener
    format: str
    toc: Toc
    head: bytes = b""


class ArchiveLoader:
    """Restores a custom, directory or tar archive into databases of one server.

    :param select: returns the entries to restore, of those that the options select.
    :param may_be_empty: the options may select nothing, as when one section of the archive has no entries.
    :param hide_values: keep values that the server quotes out of messages, because they are those of rows.
    :ivar entries: the entries to restore, in order.
    :ivar client: the client whose pg_restore does it.
    :raises ClientError, ConfigurationError: this machine has no suitable client.
    :raises OptionError: options that the client does not know, or that select nothing.
    """

    def __init__(
        self,
        run: RestoreContext,
        archive: OpenArchive,
        options: RestoreOptions,
        server: ServerInfo,
        select: Selection | None = None,
        *,
        may_be_empty: bool = False,
        hide_values: bool = False,
    ) -> None:
        self._run = run
        self._hide_values = hide_values
        self._format = archive.format
        self._source = archive.source
        self._toc = archive.toc
        self._options = options
        self._server = server
        self.client = choose_restorer(archive.toc, server, run.settings.client_dirs)
        if self.by_script:
            self._psql = choose_psql(find_clients(run.settings.client_dirs), server.major)
        self._head = archive.head
        self._listed = select is not None
        self._may_be_empty = may_be_empty
        found = self._selected()
        self.entries = select(found) if select else found

    @property
    def dumped_from(self) -> int:
        """Major version of the dumped server."""
        return major_version(self._toc.server_version)

    @property
    def by_script(self) -> bool:
        """Whether psql runs the SQL of pg_restore: since 17 it begins with a setting that older servers do not know."""
        return not runs_scripts_of(self._server.major, self.client.major)

    @cached_property
    def needs(self) -> Requirements:
        return Requirements.of_entries(
            self.entries,
            owners=not self._options.no_owner,
            privileges=not self._options.no_privileges,
            tablespaces=not self._options.no_tablespaces,
        )

    @property
    def fires_event_triggers(self) -> bool:
        """Whether the restore fires event triggers of the dump."""
        return fires_event_triggers(self.entries)

    @property
    def drops(self) -> bool:
        """Whether the restore drops existing objects before it creates them."""
        return self._options.clean

    @cached_property
    def properties(self) -> DatabaseProperties:
        """Properties of the dumped database that options do not exclude; with no_owner, option role is its owner."""
        found = DatabaseProperties.of_entries(self._toc.entries).without(
            privileges=self._options.no_privileges,
            comments=self._options.no_comments,
            labels=self._options.no_security_labels,
        )
        if self._options.no_tablespaces and found.create:
            found = dataclasses.replace(found, create=without_tablespace(found.create))
        return dataclasses.replace(found, owner=self._options.role) if self._options.no_owner else found

    @cached_property
    def public(self) -> PublicSchema | None:
        """How the archive creates schema public; None if it does not."""
        options = self._options
        for entry in filter(_creates_public, self.entries):
            return PublicSchema(options.role if options.no_owner else entry.owner or options.role)
        return None

    def check_names(self, *, required: bool) -> None:
        """Check that the archive has what the options name; log a warning if not.

        :param required: raise an error instead.
        :raises OptionError: it lacks a name.
        """
        if unmatched := unmatched_names(self._toc.entries, self._options):
            message = f"the backup has no {', '.join(unmatched)}"
            if required:
                raise OptionError(message, hint=_EXACT)
            self._run.warn(message)
        if required and self._options.filters:
            try:
                self._list(dataclasses.replace(self._options, strict_names=True))
            except ToolError as error:
                raise OptionError(f"the backup lacks what the filters name: {error.message}", hint=_EXACT) from None

    def fall_back_to_one_job(self) -> bool:
        """Restore with one job from now on; return False if that was so before."""
        if (self._options.jobs or 1) == 1 or self.by_script:
            return False
        self._options = dataclasses.replace(self._options, jobs=None)
        return True

    def check_single_transaction(self) -> None:
        """Check that the entries to restore can run in a single transaction.

        :raises VerificationFailed: one would end the transaction.
        """
        settings = [entry for entry in self._toc.entries if entry.kind in SETTING_KINDS]  # pg_restore always runs them
        toc = self._toc
        check_entries([*settings, *self.entries], standard_strings=has_standard_strings(toc), encoding=encoding_of(toc))

    def check_rows(self) -> None:
        """Check that rows cannot end a transaction. If they are INSERT statements, this reads them.

        :raises VerificationFailed: the statements contain more than pg_dump writes.
        """
        if not (rows := inserted_rows(self.entries)):
            return
        with (
            self._run.step("reading the rows, which are INSERT statements") as step,
            _use_list(rows, self._run.settings.temp_dir) as listed,
            self._opened(step) as (path, stream),
        ):
            argv = [f"--format={self._format}", f"--use-list={listed}", *path]
            check_inserted_rows(self._run, self.client, argv, self._toc, stdin=stream)

    def lines(self) -> list[str]:
        """Return lines for the log: what is restored, and with which program."""
        kinds = Counter(entry.kind.lower() for entry in self.entries).most_common()
        most = ", ".join(f"{count} {kind}" for kind, count in kinds[:8]) + (", …" if len(kinds) > 8 else "")
        jobs = f", {self._options.jobs} jobs" if (self._options.jobs or 1) > 1 and not self.by_script else ""
        by = f"with pg_restore {self.client}{jobs}"
        if self.by_script:
            by += " and psql, because the server does not know transaction_timeout, which pg_restore sets"
        return [f"{len(self.entries)} of {counted(len(self._toc.entries), 'entry', 'entries')}: {most}", by]

    def load(self, params: ConnectionParams, *, single_transaction: bool, public_exists: bool) -> None:
        """Restore into a database.

        :param public_exists: the database has a schema public, so the archive must not create it.
        :raises ToolError: an entry failed; the restore stops at the first error.
        """
        with self._run.step(f"restoring into {params.dbname}", **restore_totals(self.entries)) as step:
            self._load(step, params, single_transaction, public_exists)

    def _load(self, step: Step, params: ConnectionParams, single_transaction: bool, public_exists: bool) -> None:
        output = ToolMessages(self._run, step, verbose=self._options.verbose, hide_values=self._hide_values)
        options = dataclasses.replace(
            self._options,
            verbose=True,  # reports each table when it begins
            exit_on_error=True,
            single_transaction=single_transaction and not self.by_script,
            jobs=None if self.by_script else self._options.jobs,
        )
        with self._list_file(public_exists) as listed, self._opened(step) as (path, stream):
            options = dataclasses.replace(options, use_list=listed or options.use_list)
            argv = [f"--format={self._format}", *options.argv(self.client), *path]
            if self.by_script:

                def run_script(script: Readable) -> None:
                    psql(
                        self._run,
                        self._psql,
                        params,
                        script,
                        output,
                        server_major=self._server.major,
                        single_transaction=single_transaction,
                    )

                pg_restore_to_psql(
                    self._run,
                    self.client,
                    argv,
                    run_script,
                    output,
                    stdin=stream,
                    single_transaction=single_transaction,
                )
            else:
                major = self._server.major
                pg_restore(self._run, self.client, argv, params, output, server_major=major, stdin=stream)

    @contextmanager
    def _opened(self, step: Step) -> Iterator[tuple[list[str], Readable | None]]:
        """Open the archive: its path as an argument, or a stream for stdin."""
        if isinstance(self._source, Path):
            yield [str(self._source)], None
            return
        with self._source() as stream:
            read = CountingReader(stream, step.advance)
            if any(entry.has_data for entry in self.entries):
                yield [], PieceReader(checked_blocks(read, self._toc))
            else:
                yield [], LimitedReader(read, self._toc.size)

    def _list(self, options: RestoreOptions) -> bytes:
        """Return what options select, as ``pg_restore --list`` writes it: their meaning is pg_restore's."""
        options = dataclasses.replace(options, jobs=None, single_transaction=False, verbose=False)
        argv = [str(self.client.tool("pg_restore")), "--list", f"--format={self._format}", *options.argv(self.client)]
        is_path = isinstance(self._source, Path)
        return run_tool(
            [*argv, str(self._source)] if is_path else argv,
            env={"LC_ALL": "C", "TZ": "UTC", **library_path()},
            cancel=self._run.cancel,
            deadline=_LIST_SECONDS,
            stdin=None if is_path else io.BytesIO(self._head),
            limit=1 << 30,
        )

    def _selected(self) -> list[TocEntry]:
        """Return the entries that the options select."""
        output = self._list(self._options)
        by_id = {entry.dump_id: entry for entry in self._toc.entries}
        numbers = [int(line.partition(b";")[0]) for line in output.splitlines() if line[:1].isdigit()]
        found = [by_id[number] for number in numbers if number in by_id and not is_about_database(by_id[number])]
        restorable = any(not (e.kind in SETTING_KINDS or is_about_database(e)) for e in by_id.values())
        if restorable and not found and not self._may_be_empty:
            raise OptionError(
                f"the options select none of the backup's {counted(len(by_id), 'entry', 'entries')}",
                hint=_EXACT,
            )
        return found

    @contextmanager
    def _list_file(self, public_exists: bool) -> Iterator[str | None]:
        """Write a file for --use-list without the entries whose objects every database has; None if there are none."""
        skipped = {entry.dump_id: entry for entry in self.entries if self._collides(entry, public_exists)}
        if not skipped and not self._listed:
            yield None
            return
        for entry in skipped.values():
            self._run.log(f"skipping {entry.label}, as it already exists")
        kept = (entry for entry in self.entries if entry.dump_id not in skipped)
        with _use_list(kept, self._run.settings.temp_dir) as file:
            yield file

    def _collides(self, entry: TocEntry, public_exists: bool) -> bool:
        """Return whether an entry of a valid dump fails because initdb has created its object."""
        if _creates_public(entry):
            return public_exists
        if entry.kind != "COMMENT" or self._server.superuser:
            return False
        return any(is_standard_comment(text, public_exists) for text in statements(entry.definition))


@contextmanager
def _use_list(entries: Iterable[TocEntry], temp_dir: str) -> Iterator[str]:
    """Write a file for --use-list."""
    with PrivateDirectory(temp_dir or None) as directory:
        file = directory / "objects.list"
        # pg_restore reads the number before the semicolon and ignores the rest.
        file.write_text("".join(f"{entry.dump_id};\n" for entry in entries))
        yield str(file)


def needs_path(manifest: Manifest, options: RestoreOptions) -> bool:
    """Return whether pg_restore needs the path of the archive.

    It can read a custom archive as a stream, but only with one job and in the archive's order.
    """
    return manifest.artifact.format != "custom" or (options.jobs or 1) > 1 or options.use_list is not None


def open_archive(
    run: RestoreContext,
    checked: CheckedArtifact,
    options: RestoreOptions,
    server: ServerInfo,
    select: Selection | None = None,
) -> ArchiveLoader:
    """Open an archive whose checksums were verified: its private copy, or a stream if there is none.

    :raises ClientError, OptionError: as :class:`ArchiveLoader`.
    :raises VerificationFailed: an incomplete tar archive, which pg_restore would read in an endless loop.
    """
    return ArchiveLoader(run, read_archive(run, checked), options, server, select)


def read_archive(run: RestoreContext, checked: CheckedArtifact) -> OpenArchive:
    """Return an archive whose checksums were verified, with its table of contents.

    :raises VerificationFailed: as :func:`open_archive`.
    """
    artifact = checked.manifest.artifact
    if checked.path is not None:
        toc = read_archive_toc(checked.path, artifact.format, run.check)
        if artifact.format == "custom":
            size = checked.path.stat().st_size
            with checked.path.open("rb") as file, run.step("reading the archive", bytes_total=size) as step:
                check_blocks(CountingReader(file, step.advance), toc, run.check)
        return OpenArchive(checked.path, artifact.format, toc)
    with checked.stream(run.check) as stream:
        toc, head = read_toc(stream, what=artifact.name)
    return OpenArchive(lambda: checked.stream(run.check), artifact.format, toc, head)


def choose_restorer(toc: Toc, server: ServerInfo, client_dirs: Sequence[str]) -> Client:
    """Return the client whose pg_restore can read the archive and fits the server best.

    :raises ClientError: this machine has none.
    """
    oldest = max(major_version(toc.dump_version), toc.needs_client)
    archive = ReaderRequirements(toc.dump_version, oldest, None if toc.compression == "none" else toc.compression)
    return client_choice.choose_restorer(find_clients(client_dirs), archive, server.major)


def _creates_public(entry: TocEntry) -> bool:
    return entry.kind == "SCHEMA" and _CREATE_PUBLIC.match(entry.definition) is not None


def is_about_database(entry: TocEntry) -> bool:
    """Return whether an entry concerns the database itself: pg_restore skips those without ``--create``."""
    return entry.kind in ("DATABASE", "DATABASE PROPERTIES") or entry.is_about("DATABASE")
