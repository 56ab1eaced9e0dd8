"""The steps that restoring an archive and restoring a script share in a rehearsal."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airflow_pgbackup.backup.databases.sessions import fetch_value, session, without_event_triggers
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import NotProven, ToolError
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.connection.timeouts import no_timeouts
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.database_locale import locale_name
from airflow_pgbackup.postgres.tools.capabilities import has_login_triggers
from airflow_pgbackup.postgres.tools.process import ToolProcess

_ROLE_MISSING = re.compile(r'role "(.+)" does not exist')
_ATTEMPTS = 20

SKIPPED_PUBLIC = "skipped CREATE SCHEMA public: every new database has the schema"
"""Where an option or a filter file names the schema, pg_dump writes its creation."""
SKIPPED_FOREIGN = "skipped the rows of foreign tables, which a restore writes to their servers"
"""Where the server of the rehearsal has a network, these can be the servers of the source."""


@dataclass
class RestoredCopy:
    """The restored copy.

    :param dump: the dump.
    :param server: the server that has the copy.
    :param connection: a superuser's connection to that server.
    :param database: the name of the copy; None for a cluster, whose databases have their own names.
    :param created_by_dump: whether the dump created the copy's database, with its settings, privileges and comment.
    :ivar script_creates: the dump is a script with CREATE DATABASE.
    :ivar entries: the table of contents of an archive; empty for plain dumps.
    :ivar skipped: dump ids of the entries that were not restored.
    :ivar in_locale_c: the databases of a script that the rehearsal created with locale C instead of the dump's.
    :ivar schemas: those that the rehearsal created, because the dump uses but does not contain them.
    :ivar fired_event_triggers: the restore fired event triggers of the dump, which may have changed rows.
    :ivar notes: what was handled specially, for the report.
    :ivar seconds: the duration of the successful attempt.
    """

    dump: RehearsedDump
    server: RehearsalServer
    connection: ConnectionParams
    database: str | None
    created_by_dump: bool
    script_creates: bool = False
    entries: list[TocEntry] = field(default_factory=list)
    skipped: set[int] = field(default_factory=set)
    in_locale_c: set[str] = field(default_factory=set)
    schemas: set[str] = field(default_factory=set)
    fired_event_triggers: bool = False
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


class CopyRestore:
    """Restores a dump into a rehearsal's server.

    :param schemas: those that the dump uses but does not contain, as a dump of some tables.
    :param extensions: the dump creates extensions, which may create some of these schemas.
    :param fires_event_triggers: a restore fires event triggers of the dump.
    """

    def __init__(
        self,
        dump: RehearsedDump,
        server: RehearsalServer,
        schemas: set[str],
        *,
        extensions: bool,
        fires_event_triggers: bool,
    ) -> None:
        self.dump = dump
        self.server = server
        self.copy = RestoredCopy(dump, server, server.params, dump.database, server.keeps_database_name)
        # As a restore does, where the server has the parameter.
        self._without_triggers = fires_event_triggers and has_login_triggers(server.major)
        self.copy.fired_event_triggers = fires_event_triggers and not self._without_triggers
        self._lacking = schemas if dump.is_part else set()
        if not extensions:
            self.copy.schemas |= self._lacking

    def with_missing(self, attempt: Callable[[], None]) -> float:
        """Attempt a restore, and repeat it with the roles and schemas that it reports as missing.

        :return: the seconds of the attempt that succeeded.
        :raises ToolError: the attempt failed for another reason.
        :raises NotProven: something is still missing after many attempts.
        """
        for _ in range(_ATTEMPTS):
            start = time.monotonic()
            try:
                attempt()
            except ToolError as error:
                if not self._provide_missing(error):
                    raise
                continue
            return time.monotonic() - start
        raise NotProven(
            f"the dump still refers to missing roles or schemas after {_ATTEMPTS} attempts",
            hint="Report this together with the dump's log.",
        )

    def _provide_missing(self, error: ToolError) -> bool:
        """Create the roles, and note the schemas, that an attempt lacked; return False if it failed otherwise.

        :raises NotProven: a predefined role is missing, which cannot be created.
        """
        if self.dump.database is None:
            return False
        text = "\n".join(error.stderr)
        if roles := {match[1] for match in map(_ROLE_MISSING.search, error.stderr) if match}:
            if predefined := sorted(name for name in roles if name.startswith("pg_")):
                raise NotProven(
                    f"{self.server.label} lacks predefined roles that the dump refers to: {', '.join(predefined)}",
                    hint="Rehearse on a scratch server that has them, of the source's version or distribution "
                    "(scratch_conn_id, --scratch).",
                )
            if unreadable := sorted(name for name in roles if "\N{REPLACEMENT CHARACTER}" in name):
                raise NotProven(
                    f"{self.server.label} lacks a role whose name is not in UTF-8: {', '.join(unreadable)}",
                    hint="Rehearse on a scratch server that has it (scratch_conn_id, --scratch).",
                )
            self.dump.log(f"creating stand-ins for roles {', '.join(sorted(roles))} and restoring again")
            self.server.create_roles(roles)
        schemas = {name for name in self._lacking - self.copy.schemas if f'schema "{name}" does not exist' in text}
        if schemas:
            self.dump.log(f"creating schemas {', '.join(sorted(schemas))} and restoring again")
            self.copy.schemas |= schemas
        return bool(roles or schemas)

    def note(self, text: str) -> None:
        """Add a note to the report, once."""
        if text not in self.copy.notes:
            self.copy.notes.append(text)

    def note_schemas(self) -> None:
        """Note for the report which schemas were created."""
        if self.copy.schemas:
            self.copy.notes.append(
                "schemas that the dump uses but does not contain were created empty: "
                f"{', '.join(sorted(self.copy.schemas))}"
            )

    def create_database(self, database: str, create: DatabaseStatement | None) -> ConnectionParams:
        """Create the empty database of an attempt, with the schemas that the dump lacks."""
        encoding = self.dump.manifest.source.encoding or "UTF8"
        created = self.server.create_database(database, encoding, sorted(self.copy.schemas), create)
        self.copy.database = created.dbname
        if create and self.server.other_locale:
            with session(created) as connection:
                collate = "SELECT datcollate FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
                self.note_locale(create, fetch_value(connection, collate))
        return created

    def note_locale(self, create: DatabaseStatement, instead: str = "C") -> None:
        """Note for the report that the copy has another locale than the dumped database.

        :param create: the CREATE DATABASE statement of the dump.
        """
        self.note(
            f"restored with locale {instead} in place of {locale_name(create)}, which the server lacks: text may sort "
            "differently"
        )

    def run_tool(
        self,
        argv: Sequence[os.PathLike[str] | str],
        params: ConnectionParams,
        stdin: Readable | None = None,
        *,
        may_start_processes: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run pg_restore or psql.

        :param on_line: takes the lines of its stderr.

        :raises ToolError: it failed.
        """
        if self._without_triggers:
            params = without_event_triggers(params)
        with client_environment(params, restoring=True) as env:
            # The database's own settings are restored before its tables, and must not affect the restore.
            pinned = f"{no_timeouts(self.server.major)} -c default_transaction_read_only=off -c array_nulls=on"
            env["PGOPTIONS"] = f"{env.get('PGOPTIONS', '')} {pinned} {self.server.session_options}".strip()
            with ToolProcess(
                argv,
                env=env,
                cancel=self.dump.cancel,
                deadline=self.dump.deadline,
                on_line=on_line,
                stdin=stdin,
                stdout="devnull",
                within=self.server.sandbox_command(Path(argv[0]).parent, self.dump.artifact),
                may_start_processes=may_start_processes,
            ) as process:
                process.wait()
