"""Every error that this package raises on purpose.

.. code-block:: text

    PgBackupError                  message and, where one exists, a hint
     +-- ConfigurationError        invalid request; nothing was changed
     |    +-- OptionError          an invalid option of a tool, or options that cannot be combined
     |    +-- ClientError          no PostgreSQL client here supports the server or the option
     |         +-- ArchiveVersionError    an archive of a newer PostgreSQL than this release knows
     |    +-- MappingError         an invalid YAML file of ours; one line for each problem
     |         +-- FleetError       the mapping of servers
     |         +-- MaskingError     the masking rules, or a database that does not fit them
     +-- ConnectError              PostgreSQL could not be reached, or refused the connection
     +-- ReplayLagError            a standby is too far behind its primary to be dumped
     +-- ToolError                 one of PostgreSQL's programs failed
     |    +-- ToolKilled           killed by a signal that this package did not send
     |    +-- DeadlineExceeded     still running at its deadline, and stopped
     +-- Canceled                 the task was asked to stop (on_kill, Ctrl-C)
     +-- DiskError                 a disk of this worker is full or not writable
     +-- RepositoryError           the repository's storage does not answer, or refuses a request
     |    +-- RepositoryNotFound   no repository.json: an unmounted volume, another worker's disk, a typo
     |    +-- RepositoryMismatch   another repository than the one the reference was made in
     |    +-- AlreadyExists        the key exists already; nothing is ever overwritten
     |    +-- BackupNotFound       no manifest under that id
     |    +-- OutcomeUnknown       unknown whether a write succeeded; the file may appear later
     |    +-- ManifestError        an invalid manifest or verification, or one of a newer major version
     +-- VerificationFailed        the backup differs from its manifest, or cannot be read to its end
     +-- PartialSet               a backup set lacks databases, or its globals
     +-- NotProven                 the rehearsal could not run, which says nothing about the backup
     +-- RestoreError              the restore failed; the message says what the target holds now

:attr:`PgBackupError.retry` says whether a retry can help: never after an invalid request, a damaged manifest or a
failed verification; by PostgreSQL's message (:mod:`airflow_pgbackup.retry`) after an error of a connection, a tool or a
restore; else later, unless the code that raises the error knows better.

Messages follow PostgreSQL's Error Message Style Guide: lower case, no final period, what failed and on what. The hint
is a full sentence that says what to do. No error holds a secret: messages never contain connection strings.
https://www.postgresql.org/docs/current/error-style-guide.html
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_pgbackup.retry import Retry, retry_after
from airflow_pgbackup.text import printable


class PgBackupError(Exception):
    """The base of all errors of this package.

    ``message`` and ``hint`` may quote text from outside unescaped; ``str(error)`` is one printable line.

    :param message: what failed and on what: one line, lower case, no final period.
    :param hint: what to do about it, or None.
    :param retry: whether a retry can help; None: as for all errors of this class.
    :ivar retry: see :data:`airflow_pgbackup.retry.Retry`.
    """

    _retry: Retry | None = "later"  # None: by the message

    def __init__(self, message: str, *, hint: str | None = None, retry: Retry | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry: Retry = retry or self._retry or retry_after(message)

    @property
    def permanent(self) -> bool:
        """Whether a retry cannot help; operators then fail without one."""
        return self.retry == "never"

    def __str__(self) -> str:
        return printable(f"{self.message}. HINT: {self.hint}" if self.hint else self.message)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive Exception's default pickling, and Airflow pickles errors.
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(cls: type[PgBackupError], state: dict[str, object]) -> PgBackupError:
    error = cls.__new__(cls, state["message"])
    error.__dict__.update(state)
    return error


class ConfigurationError(PgBackupError):
    _retry = "never"


class OptionError(ConfigurationError):
    pass


class ClientError(ConfigurationError):
    pass


class ArchiveVersionError(ClientError):
    pass


class MappingError(ConfigurationError):
    """A file or mapping that the user wrote is invalid.

    :param problems: all of them, each one printable line, ``fleet.yaml:12: servers.crm.schedule: …``.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)

    def __str__(self) -> str:
        return self.message


class FleetError(MappingError):
    """The mapping given to :func:`~airflow_pgbackup.pipelines.pgbackup_dags` is invalid. No DAG was made."""


class MaskingError(MappingError):
    """The masking rules are invalid, or do not fit the database: a column without a rule, a rule without a column."""


class ConnectError(PgBackupError):
    _retry = None


class ReplayLagError(PgBackupError):
    pass


class ToolError(PgBackupError):
    """One of PostgreSQL's programs failed.

    :param tool: its name, ``pg_dump``.
    :param exit_code: its exit status; a negative number is a signal, as in :mod:`subprocess`.
    :param stderr: the last lines of its stderr, with row data removed.
    """

    _retry = None

    def __init__(
        self, message: str, *, tool: str, exit_code: int | None, stderr: Sequence[str] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.tool = tool
        self.exit_code = exit_code
        self.stderr = list(stderr)


class ToolKilled(ToolError):
    pass


class DeadlineExceeded(ToolError):
    pass


class Canceled(PgBackupError):
    pass


class DiskError(PgBackupError):
    pass


class RepositoryError(PgBackupError):
    pass


class RepositoryNotFound(RepositoryError):
    pass


class RepositoryMismatch(RepositoryError):
    _retry = "never"


class AlreadyExists(RepositoryError):
    pass


class BackupNotFound(RepositoryError):
    pass


class OutcomeUnknown(RepositoryError):
    pass


class ManifestError(RepositoryError):
    _retry = "never"


class VerificationFailed(PgBackupError):
    """The backup differs from its manifest, or cannot be read to its end.

    :param problems: everything that was found; the message names the first. Empty if the message says it all.
    """

    _retry = "never"

    def __init__(self, message: str, *, hint: str | None = None, problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = list(problems)


class PartialSet(PgBackupError):
    _retry = "never"


class NotProven(PgBackupError):
    pass


class RestoreError(PgBackupError):
    _retry = None
