"""A plain dump on its way into a database, by psql: read through once before, less what another database's name or an
older server has no use for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

from airflow_pgbackup.backup.checked import Checked
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.progress import Progress
from airflow_pgbackup.backup.restore.client_programs import RestoreContext, ToolOutput, psql
from airflow_pgbackup.byte_streams import CountingReader, Readable
from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, is_standard_comment
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.definitions.script_scan import (
    ScriptSummary,
    SectionTracker,
    database_statement,
    is_transaction,
    makes_public,
    scan_script,
    sets_new_timeout,
)
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.psql.script_filter import ScriptFilter
from airflow_pgbackup.postgres.sql.lexer import Event, Statement
from airflow_pgbackup.postgres.tools.capabilities import has_transaction_timeout
from airflow_pgbackup.postgres.tools.client_choice import choose_psql
from airflow_pgbackup.postgres.tools.clients import find_clients
from airflow_pgbackup.repository.manifest import Manifest

Opener = Callable[[], AbstractContextManager[Readable]]

_ALLOWED = frozenset({"verbose", "exit_on_error", "single_transaction", "jobs"})


class ScriptLoader:
    """A plain dump of one database.

    :param opened: gives the script, decompressed, from its beginning.
    :ivar contents: what reading it through has found.
    :ivar client: whose psql runs it.
    """

    def __init__(
        self, run: RestoreContext, opened: Opener, contents: ScriptSummary, server: ServerInfo, *, verbose: bool
    ) -> None:
        self._run = run
        self._open = opened
        self._server = server
        self._verbose = verbose
        self.contents = contents
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
        return needs

    @property
    def properties(self) -> DatabaseProperties:
        return self.contents.sections[0].properties

    @property
    def makes_public(self) -> bool:
        return self.contents.sections[0].makes_public

    def to_one_job(self) -> bool:
        """False: psql is one job."""
        return False

    def lines(self) -> list[str]:
        """For people: what, and by what."""
        section = self.contents.sections[0]
        return [
            f"{section.tables} tables with {section.rows:,} rows, {section.objects} statements",
            f"by psql {self.client}",
        ]

    def load(self, params: ConnectionParams, *, single_transaction: bool, public_exists: bool) -> None:
        """RestoreContext it in a database.

        :param public_exists: there is a schema public, which the script then must not create.
        :raises ToolError: the first error.
        """
        with self.parts(lambda number: (single_transaction, public_exists)) as parts:
            self.run_part(parts.part(0), params, single_transaction=single_transaction)

    @contextmanager
    def parts(self, how: Callable[[int], tuple[bool, bool]]) -> Iterator[ScriptFilter]:
        """The script, cut into its databases.

        :param how: for the number of each: will it run in a single transaction, and is there a schema public.
        """
        tracker = SectionTracker()

        def route(event: Event) -> int | None:
            number = tracker.section_of(event)
            return None if number is None or self._is_dropped(event, *how(number)) else number

        with self._open() as source:
            yield ScriptFilter(source, route)

    def run_part(self, part: Readable, params: ConnectionParams, *, single_transaction: bool) -> None:
        what = f"restoring into {params.dbname}"
        log = ToolOutput(self._run, what, verbose=self._verbose)
        counted = CountingReader(part, Progress(self._run.say, what).advance)
        psql(self._run, self.client, params, counted, log, single_transaction=single_transaction)

    def _is_dropped(self, event: Event, single_transaction: bool, public_exists: bool) -> bool:
        """What is not for psql: the database as a whole, and the known collisions by name."""
        if not isinstance(event, Statement) or event.words[:1] == (b"INSERT",):
            return False
        if makes_public(event):
            if public_exists:
                self._run.say("left out, as it is there already: CREATE SCHEMA public")
            return public_exists
        text = event.text.decode("utf-8", "replace")
        return (
            (sets_new_timeout(event) and not has_transaction_timeout(self._server.major))
            or (single_transaction and is_transaction(event))
            or (not self._server.superuser and is_standard_comment(text, public_exists))
            or database_statement(text, event) is not None
        )


def open_script(run: RestoreContext, checked: Checked, options: RestoreOptions, server: ServerInfo) -> ScriptLoader:
    """A plain dump whose bytes have been checked, read through.

    :raises OptionError: options that only pg_restore has.
    :raises VerificationFailed: it is not whole, or holds what pg_dump never writes.
    :raises ClientError, ConfigurationError: no psql here can run it safely.
    """
    given = set(options.describe()) - _ALLOWED | ({"jobs"} if (options.jobs or 1) > 1 else set())
    if given:
        raise OptionError(
            f"a plain dump is restored whole, by psql: {', '.join(sorted(given))} cannot be used",
            hint="dump in custom format to choose at restore; or restore it whole elsewhere, and take what is wanted",
        )
    opened = script_opener(run, checked)
    return ScriptLoader(run, opened, read_through(run, opened, checked.manifest), server, verbose=options.verbose)


def open_globals(run: RestoreContext, checked: Checked) -> list[str]:
    """The statements of a cluster's dump before its first database."""
    return read_through(run, script_opener(run, checked), checked.manifest).globals


def script_opener(run: RestoreContext, checked: Checked) -> Opener:
    """What gives the script, decompressed, from its beginning."""
    artifact = checked.manifest.artifact
    method = artifact.compressed_around

    @contextmanager
    def opened() -> Iterator[Readable]:
        with checked.stream(run.check) as stream:
            yield stream if method is None else Decompressed(stream, method, artifact.name)

    return opened


def read_through(run: RestoreContext, opened: Opener, manifest: Manifest) -> ScriptSummary:
    """:raises VerificationFailed: it is not whole, or holds what pg_dump never writes."""
    with opened() as stream:
        progress = Progress(run.say, f"reading {manifest.artifact.name}")

        def on_read(size: int) -> None:
            run.check()
            progress.advance(size)

        return scan_script(CountingReader(stream, on_read))
