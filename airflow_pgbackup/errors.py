"""Every error this package raises on purpose.

.. code-block:: text

    PgBackupError                  message and, where one exists, a hint
     +-- ConfigurationError        what was asked makes no sense; nothing was touched; a retry cannot help
     |    +-- OptionError          an option of a tool, or two that contradict each other
     |    +-- ClientError          no PostgreSQL client here that fits the server or the option
     +-- ConnectError              PostgreSQL could not be reached, or refused us
     +-- ToolError                 one of PostgreSQL's programs failed
     |    +-- ToolKilled           it died by a signal that we did not send
     |    +-- DeadlineExceeded     it was still running at its deadline, and was stopped
     +-- Canceled                 we were asked to stop (on_kill, Ctrl-C)
     +-- DiskError                 a disk of this worker is full, or cannot be written to
     +-- RepositoryError           where backups live does not answer, or refuses
     |    +-- RepositoryNotFound   no repository.json there: an unmounted volume, another worker's disk, a typo
     |    +-- RepositoryMismatch   a repository, but not the one the reference was made in
     |    +-- AlreadyExists        the key is taken; nothing is ever overwritten
     |    +-- BackupNotFound       no manifest under that id
     |    +-- OutcomeUnknown       whether it was written is not known: it may be there, now or later
     |    +-- ManifestError        a manifest or verification that cannot be read, or of a newer major version
     +-- VerificationFailed        the backup is not what its manifest says, or cannot be read to its end
     +-- NotProven                 the rehearsal could not run: says nothing about the backup
     +-- RestoreError              the restore did not happen; the message says what the target holds now

Messages follow pgBackRest's form: lower case, no final stop, what was found; the hint says what to do.
No error holds a secret: connection strings are never put into a message.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_pgbackup.text import printable


class PgBackupError(Exception):
    """Base of all errors of this package.

    ``message`` and ``hint`` may quote text from outside as it is; ``str(error)`` is one printable line.

    :param message: what was found, one line, lower case, no final stop.
    :param hint: what to do about it, or None.
    :param permanent: True where trying again cannot help; operators then fail without a retry.
    """

    permanent = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

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
    permanent = True


class OptionError(ConfigurationError):
    pass


class ClientError(ConfigurationError):
    pass


class ConnectError(PgBackupError):
    pass


class ToolError(PgBackupError):
    """A program of PostgreSQL failed.

    :param tool: its name, ``pg_dump``.
    :param exit_code: its exit status; negative is the signal, as in :mod:`subprocess`.
    :param stderr: the last lines that it wrote to stderr, row data removed.
    """

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
    permanent = True


class AlreadyExists(RepositoryError):
    pass


class BackupNotFound(RepositoryError):
    pass


class OutcomeUnknown(RepositoryError):
    pass


class ManifestError(RepositoryError):
    permanent = True


class VerificationFailed(PgBackupError):
    permanent = True


class NotProven(PgBackupError):
    pass


class RestoreError(PgBackupError):
    pass
