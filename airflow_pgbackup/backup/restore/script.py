"""Restore a plain dump with psql. It is read once before, and statements that do not fit the target are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.session_owners import as_owners_hint
from airflow_pgbackup.backup.restore.client_programs import ToolMessages, psql
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.byte_streams import CountingReader, Readable
from airflow_pgbackup.errors import OptionError, ToolError
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, is_standard_comment
from airflow_pgbackup.postgres.definitions.public_schema import PublicSchema, drops_with_privileges
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.definitions.script_scan import (
    ScriptSummary,
    SectionTracker,
    database_statement,
    drops_public,
    makes_public,
    scan_script,
    sets_new_timeout,
    skipped_transaction,
)
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.psql.script_filter import ScriptFilter
from airflow_pgbackup.postgres.sql.lexer import Event, Statement
from airflow_pgbackup.postgres.tools.capabilities import has_transaction_timeout
from airflow_pgbackup.postgres.tools.client_choice import choose_psql
from airflow_pgbackup.postgres.tools.clients import find_clients
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.wording import parameter

Opener = Callable[[], AbstractContextManager[Readable]]

_ALLOWED = frozenset({"verbose", "exit_on_error", "single_transaction", "jobs"})


class ScriptLoader:
    """Restores a plain dump.

    :param opened: opens the script, decompressed.
    :param read: what the script contains, and its size in bytes, from the first reading.
    :ivar contents: what the script contains.
    :ivar client: the client whose psql runs the script.
    """

    def __init__(
        self, run: RestoreContext, opened: Opener, read: tuple[ScriptSummary, int], server: ServerInfo, *, verbose: bool
    ) -> None:
        self._run = run
        self._open = opened
        self._server = server
        self._verbose = verbose
        self.contents, self._size = read
        self.client = choose_psql(find_clients(run.settings.client_dirs), server.major)

    @property
    def dumped_from(self) -> int:
        return self.contents.dumped_from

    @cached_property
    def needs(self) -> Requirements:
        needs = Requirements()
        for section in self.contents.sections:
            needs.roles |= section.requirements.roles
            needs.extensions |= section.requirements.extensions
            needs.tablespaces |= section.requirements.tablespaces
            needs.locks += section.requirements.locks
            needs.as_owners |= section.requirements.as_owners
        return needs

    @property
    def fires_event_triggers(self) -> bool:
        """Whether the restore fires event triggers of the dump."""
        return self.contents.sections[0].fires_event_triggers

    @property
    def drops(self) -> bool:
        """Whether the script drops existing objects before it creates them."""
        return self.contents.style.drops

    @property
    def properties(self) -> DatabaseProperties:
        return self.contents.sections[0].properties

    @property
    def public(self) -> PublicSchema | None:
        return self.public_of(0)

    def public_of(self, number: int) -> PublicSchema | None:
        """Return how the script creates schema public of a database; None if it does not."""
        section = self.contents.sections[number]
        anew = drops_with_privileges(section.drops_public, self.contents.dumped_by)
        return PublicSchema(section.public_owner, anew) if section.makes_public else None

    def fall_back_to_one_job(self) -> bool:
        """Return False: psql always uses one job."""
        return False

    def check_single_transaction(self) -> None:
        """Check that the script does not end a transaction itself.

        :raises VerificationFailed: it does.
        """
        self.contents.sections[0].check_single_transaction()

    def check_rows(self) -> None:
        """Do nothing: the first reading included the rows."""

    def lines(self) -> list[str]:
        """Return lines for the log: what is restored, and with which program."""
        section = self.contents.sections[0]
        return [
            f"{counted(section.tables, 'table')} with {counted(section.rows, 'row')}, "
            f"{counted(section.objects, 'statement')}",
            f"with psql {self.client}",
        ]

    def load(self, params: ConnectionParams, *, single_transaction: bool, public_exists: bool) -> None:
        """Restore into a database.

        :param public_exists: the database has a schema public, so the script must not create it.
        :raises ToolError: a statement failed; the restore stops at the first error.
        """
        with self.parts(lambda number: (single_transaction, public_exists)) as parts:
            try:
                self.run_part(parts.part(0), params, single_transaction=single_transaction)
            except ToolError as error:
                if self.contents.sections[0].drops and "does not exist" in error.message:
                    error.hint = (
                        "The dump drops objects before it creates them, so restore it with "
                        f"{parameter('mode', 'into_existing')} into a database that has them all. Next time, dump with "
                        f"{parameter('if_exists', True)} beside {parameter('clean', True)}, or without it."
                    )
                elif self.contents.sections[0].requirements.as_owners and "permission denied" in error.message:
                    error.hint = as_owners_hint()
                raise

    @contextmanager
    def parts(self, how: Callable[[int], tuple[bool, bool]]) -> Iterator[ScriptFilter]:
        """Split the script by database.

        :param how: returns, for the number of a database, whether it is restored in a single transaction, and whether
            it has a schema public.
        """
        tracker = SectionTracker()

        def route(event: Event) -> int | None:
            number = tracker.section_of(event)
            return None if number is None or self._is_skipped(event, number, *how(number)) else number

        with self._open() as source:
            yield ScriptFilter(source, route)

    def run_part(self, part: Readable, params: ConnectionParams, *, single_transaction: bool) -> None:
        """Run the part of one database."""
        total = self._size if len(self.contents.sections) == 1 else None
        with self._run.step(f"restoring into {params.dbname}", bytes_total=total, estimated=True) as step:
            output = ToolMessages(self._run, step, verbose=self._verbose)
            script = CountingReader(part, step.advance)
            psql(
                self._run,
                self.client,
                params,
                script,
                output,
                server_major=self._server.major,
                single_transaction=single_transaction,
            )

    def _is_skipped(self, event: Event, number: int, single_transaction: bool, public_exists: bool) -> bool:
        """Return whether psql must skip a statement: it concerns the database itself, or its object exists already."""
        if not isinstance(event, Statement) or event.words[:1] == (b"INSERT",):
            return False
        if makes_public(event) or (drops_public(event) and self.contents.sections[number].makes_public):
            public = self.public_of(number)
            if skipped := public_exists and not (public and public.anew):
                action = "CREATE" if makes_public(event) else "DROP"
                self._run.log(f"skipping {action} SCHEMA public, as the schema already exists")
            return skipped
        text = event.text.decode("utf-8", "replace")
        return (
            (sets_new_timeout(event) and not has_transaction_timeout(self._server.major))
            or (single_transaction and skipped_transaction(event))
            or (not self._server.superuser and is_standard_comment(text, public_exists))
            or database_statement(text, event) is not None
        )


def open_script(
    run: RestoreContext, checked: CheckedArtifact, options: RestoreOptions, server: ServerInfo
) -> ScriptLoader:
    """Read a plain dump whose checksums were verified.

    :raises OptionError: options that only pg_restore supports.
    :raises VerificationFailed: the script is incomplete, or contains what pg_dump never writes.
    :raises ClientError, ConfigurationError: this machine has no psql that can run it safely.
    """
    # A restore creates the tablespaces of a script itself, see GlobalsPlan; those of its objects are in the script.
    ignored = _ALLOWED | ({"no_tablespaces"} if checked.manifest.series.scope else set())
    given = set(options.describe()) - ignored | ({"jobs"} if (options.jobs or 1) > 1 else set())
    if given:
        raise OptionError(
            f"{', '.join(map(parameter, sorted(given)))} cannot be used with a plain dump, which psql restores "
            "completely",
            hint="Dump in custom format to be able to select; or restore into another database and copy what you need.",
        )
    opened = script_opener(run, checked)
    return ScriptLoader(run, opened, read_through(run, opened, checked.manifest), server, verbose=options.verbose)


def open_globals(run: RestoreContext, checked: CheckedArtifact) -> list[str]:
    """Return the statements of a cluster backup before its first database."""
    return read_through(run, script_opener(run, checked), checked.manifest)[0].globals


def script_opener(run: RestoreContext, checked: CheckedArtifact) -> Opener:
    """Return a function that opens the script, decompressed."""
    artifact = checked.manifest.artifact
    method = artifact.compressed_around

    @contextmanager
    def opened() -> Iterator[Readable]:
        with checked.stream(run.check) as stream:
            yield stream if method is None else Decompressed(stream, method, artifact.name)

    return opened


def read_through(run: RestoreContext, opened: Opener, manifest: Manifest) -> tuple[ScriptSummary, int]:
    """Read a script to its end; return what it contains, and its size in bytes.

    :raises VerificationFailed: it is incomplete, or contains what pg_dump never writes.
    """
    artifact = manifest.artifact
    size = None if artifact.compressed_around else artifact.plain.size
    with opened() as stream, run.step(f"reading {artifact.name}", bytes_total=size) as step:

        def on_read(size: int) -> None:
            run.check()
            step.advance(size)

        source = CountingReader(stream, on_read)
        return scan_script(source), source.size
