"""The output of a pg_restore that decodes an archive."""

from __future__ import annotations

import signal

from airflow_pgbackup.errors import DeadlineExceeded, ToolError, ToolKilled, VerificationFailed
from airflow_pgbackup.postgres.tools.process import ToolProcess

# The archive made pg_restore crash. Other signals come from outside.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


class PgRestoreOutput:
    """Read the SQL that pg_restore writes. That it cannot read an archive is a fault of the archive.

    :raises VerificationFailed: by ``read``, where pg_restore exited 1 or crashed.
    :raises ToolError: by ``read``, where it did not start or was stopped: killed, canceled, at its deadline.
    """

    def __init__(self, process: ToolProcess) -> None:
        self._process = process

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
            raise VerificationFailed(f"the archive cannot be read to its end: {error.message}") from error
