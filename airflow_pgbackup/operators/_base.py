"""The base of the operators: settings, cancellation, errors in the form that Airflow expects."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_pgbackup.assets import emit, with_alias
from airflow_pgbackup.errors import Canceled, ConfigurationError, PgBackupError
from airflow_pgbackup.links import BackupPageLink, PlaceOnPage, S3ConsoleLink
from airflow_pgbackup.notifications.cause import Cause, leave_cause
from airflow_pgbackup.operators._figures import TaskFigures
from airflow_pgbackup.operators._given import require_given
from airflow_pgbackup.operators._lineage import Work, lineage
from airflow_pgbackup.operators._map_label import as_label, series_label
from airflow_pgbackup.operators._rendering import remember_passed, render
from airflow_pgbackup.operators._retries import airflow_error, retry_soon, with_second_try
from airflow_pgbackup.operators._seed import seed
from airflow_pgbackup.operators._stats import measured
from airflow_pgbackup.operators._task_log import TaskLog
from airflow_pgbackup.operators._timeouts import note_timeout
from airflow_pgbackup.text import encodable
from airflow_pgbackup.time_spans import seconds
from airflow_pgbackup.wording import setting

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors.base import OperatorLineage
    from airflow.sdk import AssetAlias, Context
    from typing_extensions import Self

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository
    from airflow_pgbackup.repository.verification import Verification


class PgBackupOperator(BaseOperator):
    """The base of the operators: each translates its arguments into one call of a verb in
    :mod:`airflow_pgbackup.backup`.

    A failure is logged as a message and a hint, then raised as an exception with the message alone, without the errors
    that caused it. :attr:`.PgBackupError.retry` decides about retries: if a retry cannot help, the task fails at once.
    The task's ``retries`` and ``retry_delay`` apply otherwise; after a lock timeout, where Airflow has retry policies
    (3.3) and the task has none, a shorter delay.
    """

    ui_color = "#cfe2f3"

    deadline: float | timedelta | None = None

    _emits: ClassVar[AssetAlias | None] = None
    """The alias of the asset events that the task emits, one for the backup it returns."""

    operator_extra_links = (BackupPageLink(), S3ConsoleLink())

    place_on_page: PlaceOnPage | None = None
    """What the Backups page shows of the task's work, once the task knows it."""

    console_url: str | None = None
    """The backup's folder in the S3 console, once the task knows it."""

    recipients: Sequence[str] | None = None
    """Of operators that dump: public keys of age, instead of the setting's."""

    identity_conn_id: str | None = None
    """Of operators that read artifacts: the connection with the secret key, instead of the setting's."""

    _work: Work | None = None
    _figures: TaskFigures

    _passed: Mapping[str, Any] = MappingProxyType({})
    _lost: Sequence[str] = ()
    """Arguments that were given, but are empty now that they are rendered."""

    # Only a running task has one: operators are copied and pickled.
    _cancel: Cancel | None = None
    _killed = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return remember_passed(super().__new__(cls), kwargs)

    def execute(self, context: Context) -> dict[str, object]:
        from airflow_pgbackup.postgres.tools.cancel import Cancel

        self._cancel = cancel = Cancel()
        self._work, self._figures = Work(), TaskFigures()
        log = TaskLog(self.log)
        try:
            if self._killed:
                raise Canceled("canceled before it started")
            require_given(self, self._lost)
            run = self._run_context(context, cancel, log)
            with measured(self, self._figures) as result:
                result.update(encodable(with_second_try(lambda: self._run(context, run), log, cancel)))
            self._work.finish(result)
            self._emit(context, result)
            return result
        except AirflowTaskTimeout as error:
            # The verb has ended its programs and removed its files on the way here, and has logged what became of the
            # backup or the target.
            note_timeout(self, context, error, cleaned="its programs were ended, its temporary files removed")
            raise
        except PgBackupError as error:
            self._work.failure = error
            log.failure(error)
            retry_soon(self, error)
            failure = airflow_error(error)
            leave_cause(context, failure, Cause(error.message, error.hint))
        # Raised outside the handler, so that the log shows one error.
        raise failure

    def _run_context(self, context: Context, cancel: Cancel, log: TaskLog) -> RunContext:
        """Return the context for the verb, from the settings and the task's own arguments.

        :raises ConfigurationError: a setting or an argument is invalid.
        """
        from airflow_pgbackup.backup.context import RunContext
        from airflow_pgbackup.hooks.identities import identities_of
        from airflow_pgbackup.settings import load

        settings = load(airflow=True)
        if self.recipients is not None:
            recipients = given_recipients(self.recipients)
            if settings.recipients and not recipients:
                log.line(f"warning: recipients is empty: not encrypted, although {setting('recipients')} is set")
            settings = replace(settings, recipients=recipients)
        conn_id = self.identity_conn_id or settings.identity_conn_id
        return RunContext(
            settings=settings,
            cancel=cancel,
            log=log.line,
            deadline=None if self.deadline is None else seconds("deadline", self.deadline),
            origin=origin(context),
            seed=self._seed(context),
            not_before=getattr(context.get("dag_run"), "start_date", None),
            identities=cache(lambda: identities_of(conn_id)) if conn_id else None,  # a dump needs no secret key
            on_backup=self._figures.take_backup,
            on_verification=self._note_verification,
        )

    @abstractmethod
    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        """Call the verb with ``run`` as its context. The result goes to XCom: a reference, plain JSON."""

    def _seed(self, context: Context) -> str:
        """Return what identifies the request, for :class:`~airflow_pgbackup.backup.context.RunContext`."""
        return seed(self, context)

    def _link_to(self, repository: Repository, backup: Mapping[str, object]) -> None:
        """Let the task's page link to the folder of a backup, given by its reference."""
        series, id = str(backup.get("series")), str(backup.get("id"))
        self.place_on_page = PlaceOnPage(repository.uri, series, id)
        self.console_url = repository.console_url(f"{series}/{id}")

    def _connected(self, connection: ConnectionParams, *, reads: bool) -> ConnectionParams:
        """Return the connection, and note for the lineage that the task dumps its database, or restores into it."""
        return self._work.connects(connection, reads=reads) if self._work else connection

    def _note(self, *, read: object = None, wrote: object = None) -> None:
        """Note the references of the backups that the task reads and writes."""
        if self._work is not None:
            self._work.read = read if isinstance(read, Mapping) else self._work.read
            self._work.wrote = wrote if isinstance(wrote, Mapping) else self._work.wrote

    def _note_verification(self, verification: Verification) -> None:
        self._figures.take_verification(verification)
        if self._work is not None:
            self._work.verification = verification

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any] | None:
        """Return what the task read and wrote. The OpenLineage provider calls this, where it is installed."""
        return lineage(self._work, rows=self._figures.rows) if self._work is not None else None

    def get_openlineage_facets_on_failure(self, task_instance: object) -> OperatorLineage[Any, Any] | None:
        """Return what a failed task read, with the assertion that a verification failed."""
        return lineage(self._work, failed=True) if self._work is not None else None

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return a mapped operator, which takes its outlets from here and not from the constructor."""
        made: Any = super().partial(**kwargs)
        made.kwargs["outlets"] = cls._with_outlet(made.kwargs.get("outlets") or [])
        return made

    @classmethod
    def _with_outlet(cls, outlets: Any) -> list[Any]:
        return list(outlets) if cls._emits is None else with_alias(outlets, cls._emits)

    def _emit(self, context: Context, result: dict[str, object]) -> None:
        """Let the task emit the event of its result."""
        if self._emits is not None:
            emit(context, self._emits, result, self._emitted_level, asdict(self._figures))

    @property
    def _emitted_level(self) -> str | None:
        """The level of the asset that the event is for; None: of the unverified backup."""
        return None

    @property
    def map_label(self) -> str:
        """What the task works on, from its rendered fields: the name of a mapped task."""
        if (backup := getattr(self, "backup", None)) is not None:
            return as_label(series_label(backup))
        return as_label(getattr(self, "server", None) or getattr(self, "postgres_conn_id", None) or self.task_id)

    def _do_render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        render(self, super()._do_render_template_fields, *args, **kwargs)

    def on_kill(self) -> None:
        """Stop the tool and return at once; ``execute``, which is still running, then fails and cleans up.

        This runs in a signal handler: no log line, no lock.
        """
        self._killed = True
        if self._cancel is not None:
            self._cancel.set()


def given_recipients(recipients: Any) -> tuple[str, ...]:
    """Return the recipients of an operator: an empty list encrypts nothing, empty text is an error.

    :raises ConfigurationError: one is not text, or empty.
    """
    given = [recipients] if isinstance(recipients, str) or not isinstance(recipients, Sequence) else list(recipients)
    for number, each in enumerate(given, 1):
        if not isinstance(each, str) or not each.strip():  # not quoted, as a secret key may be among them
            raise ConfigurationError(
                f"invalid recipients: number {number} is {'empty' if isinstance(each, str) else type(each).__name__}",
                hint="Pass a list of public keys; [] encrypts nothing.",
            )
    return tuple(given)


def is_true(name: str, value: bool | str) -> bool:
    """Return the value of a flag; rendered from a template it is text.

    :raises ConfigurationError: neither true nor false.
    """
    known = {"true": True, "false": False}
    if (text := str(value).strip().lower()) in known:
        return known[text]
    raise ConfigurationError(
        f"invalid {name} {value!r}", hint="Pass True or False, or a template that renders to one of them."
    )


def whole_number(name: str, value: int | str, least: int) -> int:
    """Return a number; rendered from a template it is text.

    :raises ConfigurationError: not a whole number, or less than the least.
    """
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = least - 1
    if number < least:
        raise ConfigurationError(f"invalid {name} {value!r}", hint=f"Pass a whole number, {least} or more.")
    return number


def with_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with lazy sequences as lists: XCom gives those for the results of a mapped task."""
    return {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str | list | tuple) else value
        for name, value in values.items()
    }


def origin(context: Context) -> dict[str, object]:
    """Return who made a backup or a verification, for its manifest."""
    ti = context["ti"]
    return {
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "hostname": socket.gethostname(),
    }


def repository_of(backup: object) -> str:
    """Return the URI of the repository that a reference was made in.

    :raises ConfigurationError: not a reference.
    """
    if isinstance(backup, Mapping) and isinstance(uri := backup.get("repository"), str):
        return uri
    from airflow_pgbackup.backup.reference import not_a_reference

    raise not_a_reference(backup)
