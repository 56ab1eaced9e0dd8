"""The output of a pg_restore that decodes an archive."""

from __future__ import annotations

import re
import signal

from airflow_pgbackup.errors import ArchiveVersionError, DeadlineExceeded, ToolError, ToolKilled, VerificationFailed
from airflow_pgbackup.postgres.archive.machine_errors import machine_error, not_read
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.wording import command

_TOO_NEW = re.compile(r"unsupported version \(([\d.]+)\) in file header")  # ReadHead() in pg_backup_archiver.c
# The archive made pg_restore crash. Other signals come from outside.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


class PgRestoreOutput:
    """Read the SQL that pg_restore writes. What it cannot read is a fault of the archive, or of this machine.

    :param client: whose pg_restore it is.
    :raises ArchiveVersionError: by ``read``, where this pg_restore is too old for the archive.
    :raises VerificationFailed: by ``read``, where pg_restore exited 1 or crashed.
    :raises NotProven: by ``read``, where it exited 1 for lack of memory or open files, or because a disk failed.
    :raises ToolError: by ``read``, where it did not start, or was stopped: killed, canceled, at its deadline.
    """

    def __init__(self, process: ToolProcess, *, client: Client) -> None:
        self._process = process
        self._client = client

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._process.stdout.read(size)
        except DeadlineExceeded:
            raise
        except ToolKilled as error:
            if -(error.exit_code or 0) not in _CRASHES:
                raise
            raise VerificationFailed(f"the archive cannot be read to its end: {error.message}") from error
        except ToolError as error:
            if error.exit_code != 1:  # it did not start: a missing library, for instance
                raise
            if too_new := _TOO_NEW.search("\n".join(error.stderr)):
                raise ArchiveVersionError(
                    f"pg_restore {self._client} does not know archive version {too_new[1]}",
                    hint=f"Install the pg_restore of the PostgreSQL that made it; '{command('show')}' names its "
                    "version.",
                ) from error
            if machine_error(error.stderr):
                raise not_read("the archive", error.message) from error
            if not any(line.startswith("pg_restore: ") for line in error.stderr):
                raise  # a program of the sandbox, which did not start pg_restore
            raise VerificationFailed(f"the archive cannot be read to its end: {error.message}") from error
