"""The backup that a task works on: a reference, that of the asset event which started the run, or one of a series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from airflow_pgbackup.errors import BackupNotFound, ConfigurationError, RepositoryMismatch
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.operators._base import PgBackupOperator, repository_of
from airflow_pgbackup.text import printing

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository

_MOST_ASKED = 50  # who may post events can name any number of backups


class ChoosingTask(Protocol):
    """The parameters with which an operator's user names a backup."""

    backup: Any
    repository: str | None
    series: str | None
    backup_id: str
    aws_conn_id: str | None

    @property
    def minimum_level(self) -> str | None: ...
    @property
    def log(self) -> Any: ...


def chosen_backup(task: ChoosingTask, cancel: Cancel) -> tuple[Repository, Mapping[str, object]]:
    """Return the repository and the reference of the task's backup.

    :raises ConfigurationError: the task names no backup.
    :raises BackupNotFound: there is none.
    """
    from airflow_pgbackup.backup.choose_backup import choose_backup
    from airflow_pgbackup.hooks.repository import open_repository

    if task.backup is not None:
        backup: Any = task.backup  # rendered: an XComArg is a reference now
        return open_repository(repository_of(backup), task.aws_conn_id, cancel=cancel), backup
    if not task.repository or not task.series:
        raise ConfigurationError("no backup given", hint="Pass backup=verify.output, or repository= and series=.")
    repository = open_repository(task.repository, task.aws_conn_id, cancel=cancel)
    return repository, choose_backup(
        repository,
        task.series,
        task.backup_id,
        minimum_level=task.minimum_level,
        log=printing(task.log.warning),
    )


def backup_of_event(task: ChoosingTask, context: Context, cancel: Cancel) -> Mapping[str, object] | None:
    """Return the reference in the asset event that started the run: the newest, if there are several.

    Who may post asset events writes what it wants into them. So if the task names a repository, the backup is read
    there, and nowhere else. An event that names no backup of it, or has an id that is not one of a backup, is ignored
    with a warning, because it could sort as the newest.

    :return: None if no event of a backup of the task's series started the run.
    :raises RepositoryMismatch: the events are of backups in other repositories than the task's.
    """
    found: list[Mapping[str, object]] = []
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            backup = (event.extra or {}).get("backup")
            if isinstance(backup, Mapping) and "id" in backup and _is_of(backup, task.series) and _has_id(backup, task):
                found.append(backup)
    found.sort(key=lambda backup: str(backup["id"]), reverse=True)  # an id begins with the time
    if not found or not_empty("repository", task.repository) is None:
        return next(iter(found), None)
    return _in_repository(task, found, cancel)


def _in_repository(task: ChoosingTask, backups: list[Mapping[str, object]], cancel: Cancel) -> Mapping[str, object]:
    """Return the first reference of the task's repository, with the URI that the task gives."""
    from airflow_pgbackup.hooks.repository import open_repository

    repository = open_repository(str(task.repository), task.aws_conn_id, cancel=cancel)
    own = [backup for backup in backups if backup.get("repository_uuid") == repository.uuid]
    if own:
        # If none exists, the newest: reading it raises the error that names it.
        return {**(_first_that_exists(task, own, repository) or own[0]), "repository": repository.uri}
    other = backups[0]
    raise RepositoryMismatch(
        f"the asset event is of a backup in {str(other.get('repository'))[:200]} "
        f"(repository {str(other.get('repository_uuid'))[:200]}), not in {repository.uri} "
        f"(repository {repository.uuid})",
        hint="Find out who posted the event. If its repository is right, pass that one as repository=.",
    )


def _first_that_exists(
    task: ChoosingTask, backups: list[Mapping[str, object]], repository: Repository
) -> Mapping[str, object] | None:
    """Return the first reference whose backup the repository holds; None if it is not among the first fifty."""
    missing: set[tuple[str, str]] = set()
    for backup in backups:
        series, id = str(backup.get("series")), str(backup["id"])
        if (series, id) in missing:
            continue
        if len(missing) == _MOST_ASKED:
            break
        if _exists(repository, series, id):
            return backup
        missing.add((series, id))
        printing(task.log.warning)(
            f"ignoring an asset event of {series[:100]}/{id}: no such backup in {repository.uri}"
        )
    return None


def _exists(repository: Repository, series: str, id: str) -> bool:
    from airflow_pgbackup.repository.catalogue import find_backup
    from airflow_pgbackup.repository.layout import Series

    try:
        find_backup(repository, Series.parse(series), id)
    except (BackupNotFound, ValueError):  # ValueError: the text is not a series
        return False
    return True


def _is_of(backup: Mapping[str, object], series: str | None) -> bool:
    from airflow_pgbackup.backup.choose_backup import parse_series

    return series is None or str(backup.get("series")) == parse_series(series).path


def _has_id(backup: Mapping[str, object], task: ChoosingTask) -> bool:
    from airflow_pgbackup.repository.layout import parse_backup_id

    id = backup["id"]
    if isinstance(id, str) and parse_backup_id(id) is not None:
        return True
    series = str(backup.get("series"))[:100]
    printing(task.log.warning)(f"ignoring an asset event of {series} with the invalid id {repr(id)[:100]}")
    return False


class ChooseBackupOperator(PgBackupOperator):
    """Choose a backup: that of the asset event which started the run, else one of a series. The task returns its
    reference.

    The parameters are those of :class:`~airflow_pgbackup.operators.refresh.PgRefreshOperator`.
    """

    template_fields = ("repository", "series", "backup_id", "minimum_level", "aws_conn_id")

    def __init__(
        self,
        *,
        repository: str | None = None,
        series: str | None = None,
        backup_id: str = "latest",
        minimum_level: str | None = "archive",
        aws_conn_id: str | None = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup: Any = None
        self.repository = repository
        self.series = series
        self.backup_id = backup_id
        self.minimum_level = minimum_level
        self.aws_conn_id = aws_conn_id

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        self.backup = backup_of_event(self, context, run.cancel)
        repository, reference = chosen_backup(self, run.cancel)
        self._link_to(repository, reference)
        return dict(reference)
