"""The steps that restoring an archive and restoring a script share in a rehearsal."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import NotProven, ToolError
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.tools.process import ToolProcess

_ROLE_MISSING = re.compile(r'role "(.+)" does not exist')
_ROLE_ATTEMPTS = 20


@dataclass
class RestoredCopy:
    """The restored copy.

    :ivar dump: the dump.
    :ivar server: the server that has the copy.
    :ivar connection: a superuser's connection to that server.
    :ivar database: the name of the copy; None for a cluster, whose databases have their own names.
    :ivar created_by_dump: whether the dump created the copy's database, with its settings, privileges and comment.
    :ivar entries: the table of contents of an archive; empty for plain dumps.
    :ivar skipped: dump ids of the entries that were not restored.
    :ivar notes: what was handled specially, for the report.
    :ivar seconds: the duration of the successful attempt.
    """

    dump: RehearsedDump
    server: RehearsalServer
    connection: ConnectionParams
    database: str | None
    created_by_dump: bool
    entries: list[TocEntry] = field(default_factory=list)
    skipped: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


class CopyRestore:
    """Restores a dump into a rehearsal's server."""

    def __init__(self, dump: RehearsedDump, server: RehearsalServer) -> None:
        self.dump = dump
        self.server = server
        self.copy = RestoredCopy(dump, server, server.params, dump.database, server.keeps_database_name)

    def with_missing_roles(self, attempt: Callable[[], None]) -> float:
        """Attempt a restore, and repeat it after creating roles that it reports as missing.

        :return: the seconds of the attempt that succeeded.
        :raises ToolError: the attempt failed for another reason.
        :raises NotProven: roles are still missing after many attempts.
        """
        for _ in range(_ROLE_ATTEMPTS):
            start = time.monotonic()
            try:
                attempt()
            except ToolError as error:
                missing = {match[1] for match in map(_ROLE_MISSING.search, error.stderr) if match}
                if not missing or self.dump.database is None:
                    raise
                self.dump.log(f"creating stand-ins for roles {', '.join(sorted(missing))} and restoring again")
                self.server.create_roles(missing)
                continue
            return time.monotonic() - start
        raise NotProven(
            f"the dump still refers to missing roles after {_ROLE_ATTEMPTS} attempts",
            hint="Report this together with the dump's log.",
        )

    def create_database(self, database: str, schemas: list[str], create: DatabaseStatement | None) -> ConnectionParams:
        """Create the empty database of an attempt."""
        encoding = self.dump.manifest.source.encoding or "UTF8"
        created = self.server.create_database(database, encoding, schemas, create)
        self.copy.database = created.dbname
        return created

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
        with client_environment(params) as env:
            # The database's own settings are restored before its tables, and must not affect the restore.
            pinned = "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off "
            pinned += self.server.session_options
            env["PGOPTIONS"] = f"{env.get('PGOPTIONS', '')} {pinned}".strip()
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
