"""The context of a verb: settings, cancellation, the log, the deadline, and who asked for the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.backup.progress import LogProgress, NoProgress, ProgressReporter, Step
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.settings import Settings

if TYPE_CHECKING:
    from airflow_pgbackup.repository.manifest import Manifest
    from airflow_pgbackup.repository.verification import Verification


def discard(what: object) -> None:
    """Ignore the arguments: for a log that a caller does not want."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The context of one call of a verb. Each verb takes one as ``context``; the default suits a library user.

    :param settings: the administrator's settings; see :class:`~airflow_pgbackup.settings.Settings`.
    :param cancel: the flag that stops the verb; set from another thread or a signal handler.
    :param log: takes each line meant for people: what is done, warnings of PostgreSQL's programs.
    :param progress: shows the progress of long steps; None logs a line every few seconds.
    :param deadline: seconds that the verb's long step may take, instead of what the settings give; each verb's
        docstring names that step.
    :param origin: who asked: goes into manifests and verifications as it is.
    :param on_backup: takes the manifest of each backup that a dump has made, or found as that of an earlier attempt.
    :param on_verification: takes each verification that the verb has recorded, whatever its result.
    :param identities: the secret keys that decrypt artifacts, or a function that returns them, which is called only if
        they are needed; None takes those of the settings' ``identity_file``.
    :param seed: identifies the request. A second ``dump`` or ``restore`` with the same seed finds what the first one
        completed and returns that; None does the work each time.
    :param not_before: the start of the run that this seed belongs to. Backups that the store received earlier are
        ignored: anyone who may write to the repository could know the seed of tonight's dump and plant a backup for it.
    """

    settings: Settings = field(default_factory=Settings)
    cancel: Cancel = field(default_factory=Cancel)
    log: Callable[[str], None] = discard
    progress: ProgressReporter | None = None
    deadline: float | None = None
    origin: Mapping[str, object] = field(default_factory=dict)
    on_backup: Callable[[Manifest], None] = discard
    on_verification: Callable[[Verification], None] = discard
    identities: Identities | Callable[[], Identities] | None = field(default=None, repr=False)
    seed: str | None = None
    not_before: datetime | None = None

    def require_identities(self) -> Identities:
        """Return the identities, none if none were given.

        :raises ConfigurationError: the settings' file cannot be read.
        :raises NotProven: the function of :attr:`identities` found that there are none.
        """
        if callable(self.identities):
            return self.identities()
        if self.identities is None and self.settings.identity_file:
            return Identities.read(self.settings.identity_file)
        return self.identities or Identities()

    def step(self, what: str, **totals: Any) -> Step:
        """Begin a step and show its progress until it ends.

        :param what: as in ``dumping app``.
        :param totals: those of :class:`~airflow_pgbackup.backup.progress.Step`.
        """
        return begin_step(self.progress, self.log, what, **totals)


def begin_step(progress: ProgressReporter | None, log: Callable[[str], None], what: str, **totals: Any) -> Step:
    """Begin a step; without a reporter, its progress is logged."""
    return Step(what, progress or (NoProgress() if log is discard else LogProgress(log)), **totals)


def begin_silent_step(what: str, **totals: Any) -> Step:
    """Begin a step without showing its progress."""
    return Step(what, NoProgress(), **totals)
