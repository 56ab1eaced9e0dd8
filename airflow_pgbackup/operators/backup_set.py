"""PgBackupSetOperator: tie the backups of a run together as a backup set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.operators._base import PgBackupOperator, is_true, repository_of

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.repository.backup_set import BackupSet
    from airflow_pgbackup.repository.base import Repository


class PgBackupSetOperator(PgBackupOperator):
    """Write the backup set of a run: which backups it made of the databases of a server, and what is missing.

    The set is written in any case, complete or partial; if it is partial, the task then fails with one error that names
    what is missing. Give it the trigger rule ``all_done_min_one_success``, so that failed dumps do not stop it.

    The files in the repository decide whether a member is complete and verified. A backup of this run whose task has
    been cleared and has not succeeded again is not a member. A retry, or a clear of failed tasks,
    adds to the same set; a clear of the whole run begins another one. A partial set never replaces a complete one. The
    databases of a set are not one snapshot.

    The task returns ``{"repository", "repository_uuid", "server", "id", "set": "main/@sets/20261122T020000Z-3f9ac1",
    "status": "complete", "databases": 20, "size" (bytes), "missing": [], "globals_missing": None, "left_out": 2,
    "dropped": []}``.

    :param discovery: what the discovery recorded: ``discover.output["discovery"]``.
    :param backups: the references to the backups of the databases: ``dump.output`` of a mapped task.
    :param globals_backup: the reference to the backup of roles and tablespaces, ``globals.output``.
    :param with_globals: whether the globals are part of the set: without them it is partial.
    :param repository: the repository of the backups.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param destination: the repository of the copies, which gets the set too; None: there are no copies.
    :param destination_aws_conn_id: the same for the destination.
    :param copies: the references to the copies: ``upload.output``.
    :param globals_copy: the reference to the copy of the globals.
    :param minimum_level: the level at which a member must be verified; None accepts any.
    """

    template_fields = (
        "discovery",
        "backups",
        "globals_backup",
        "with_globals",
        "repository",
        "aws_conn_id",
        "destination",
        "destination_aws_conn_id",
        "copies",
        "globals_copy",
        "minimum_level",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("discovery", "backups", "globals_backup", "copies", "globals_copy"), "json"
    )

    _objection: Callable[[Mapping[str, object]], str | None]

    def __init__(
        self,
        *,
        discovery: Mapping[str, object] | XComArg,
        backups: Sequence[Mapping[str, object]] | XComArg,
        repository: str,
        globals_backup: Mapping[str, object] | XComArg | None = None,
        with_globals: bool | str = True,
        aws_conn_id: str | None = "aws_default",
        destination: str | None = None,
        destination_aws_conn_id: str | None = "aws_default",
        copies: Sequence[Mapping[str, object]] | XComArg = (),
        globals_copy: Mapping[str, object] | XComArg | None = None,
        minimum_level: str | None = "archive",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.discovery = discovery
        self.backups = backups
        self.repository = repository
        self.globals_backup = globals_backup
        self.with_globals = with_globals
        self.aws_conn_id = aws_conn_id
        self.destination = destination
        self.destination_aws_conn_id = destination_aws_conn_id
        self.copies = copies
        self.globals_copy = globals_copy
        self.minimum_level = minimum_level

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.sets.write_set import as_json, require_complete
        from airflow_pgbackup.hooks.repository import Repositories

        self._objection = _objection(context["ti"])
        repositories = Repositories(cancel=run.cancel)
        here = repositories.open(self.repository, self.aws_conn_id)
        written = [(here, self._write(here, self.backups, self.globals_backup, None, run))]
        if self.destination is not None:
            there = repositories.open(self.destination, self.destination_aws_conn_id)
            id = written[0][1].id
            written.append((there, self._write(there, self.copies, self.globals_copy, id, run)))
        require_complete(*written)
        return as_json(*written[0])

    def _seed(self, context: Context) -> str:
        ti = context["ti"]
        # Without what changes with a clear: cleared tasks complete the set of their run.
        return json.dumps([ti.dag_id, ti.task_id, ti.run_id, ti.map_index])

    def _write(
        self, repository: Repository, backups: object, globals_backup: object, set_id: str | None, run: RunContext
    ) -> BackupSet:
        from airflow_pgbackup.backup.sets.discover import Discovery
        from airflow_pgbackup.backup.sets.write_set import write_set

        return write_set(
            repository=repository,
            server=self._server(),
            discovery=Discovery.from_json(self.discovery),
            backups=[_reference(each) for each in _items(backups)],
            globals_backup=None if globals_backup is None else _reference(globals_backup),
            with_globals=is_true("with_globals", self.with_globals),
            minimum_level=self.minimum_level,
            set_id=set_id,
            objection=self._objection,
            context=run,
        )

    def _server(self) -> str:
        if isinstance(self.discovery, Mapping) and isinstance(server := self.discovery.get("server"), str):
            return server
        raise ConfigurationError(
            f"not the result of a discovery: {str(self.discovery)[:200]}",
            hint='Pass what the discovery recorded: discovery=discover.output["discovery"].',
        )


def _objection(ti: Any) -> Callable[[Mapping[str, object]], str | None]:
    """Return the function that says why a backup of this run cannot be a member: its task did not succeed.

    Airflow keeps the result of a task that was cleared until the task starts again. One that never does, because its
    pod cannot be scheduled or somebody marked it as failed, still has the reference of the backup before the clear.
    """

    @cache
    def states() -> Mapping[str, object]:
        found: Mapping[str, Any] = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id])
        return found.get(ti.run_id) or {}

    def objection(origin: Mapping[str, object]) -> str | None:
        if (origin.get("dag_id"), origin.get("run_id")) != (ti.dag_id, ti.run_id):
            return None
        task, index = origin.get("task_id"), origin.get("map_index")
        state = states().get(f"{task}_{index}" if isinstance(index, int) and index >= 0 else str(task))
        if state == "success":
            return None
        return f"is from before its task was cleared; the task is now {state or 'without a state'}"

    return objection


def _items(backups: object) -> Sequence[object]:
    """Return the results of a mapped task, or of one that is not mapped; None is a task without a result."""
    if isinstance(backups, Mapping):
        return [backups]
    return [each for each in backups if each is not None] if isinstance(backups, Sequence) else []


def _reference(backup: object) -> Mapping[str, object]:
    repository_of(backup)  # raises where it is something else
    return backup  # type: ignore[return-value]
