"""restore_set: restore what a backup set holds: the roles and tablespaces, then its databases, several at a time.

Each database is restored as :func:`airflow_pgbackup.backup.restore.restore` does it, completely or not at all, and is
marked with the set (see :mod:`airflow_pgbackup.backup.restore.retry_marker`). So a second call continues where the
first one stopped, and never touches a database that it restored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from airflow_pgbackup.backup.context import RunContext, discard
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget, connect_for_cluster
from airflow_pgbackup.backup.sets.choose_set import LATEST, choose_set
from airflow_pgbackup.backup.sets.restore_set_plan import (
    NAMED,
    PlannedDatabase,
    SetTarget,
    plan_databases,
    read_backups,
)
from airflow_pgbackup.errors import Canceled, PgBackupError, RestoreError
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.quantities import counted, human_seconds, human_time
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.set_files import read_listed_set
from airflow_pgbackup.text import first_of
from airflow_pgbackup.threads import run_each

RESTORED, EARLIER, FAILED, NOT_STARTED = "restored", "earlier", "failed", "not started"


def restore_set(
    *,
    repository: Repository,
    server: str,
    target: SetTarget,
    selector: str = LATEST,
    analyze: bool = True,
    dry_run: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Restore a backup set into a server that has none of its databases.

    First everything is checked: that each backup of the set exists and is the one that the set names, and that no
    database of the server has one of the names. Then the roles and tablespaces are restored, and the databases in the
    order of the set, `target.jobs` at a time. A database that fails does not hold up the others.

    :param server: the server's name in the repository.
    :param selector: of the set, see :mod:`.choose_set`.
    :param analyze: gather planner statistics.
    :param dry_run: make all checks, return the plan, and change nothing.
    :param context: its deadline is that of each database.
    :return: plain JSON: ``set`` (its folder in the repository), ``status`` (``complete`` or ``partial``), ``target``
        (``user@host:port``), ``prefix``, ``dry_run``, ``plan`` (lines for people), ``roles_created``,
        ``roles_existing``, ``databases`` (a list of ``database``, ``name``, ``outcome``: ``restored``, ``earlier`` for
        one that an earlier call restored, ``failed`` or ``not started``; ``reason``, ``hint``, ``duration_seconds``,
        ``bytes``, ``rows``), ``missing`` (databases that the set lacks), ``duration_seconds``, ``warnings``.
    :raises BackupNotFound: there is no such set, or a backup of it was removed. Nothing was changed.
    :raises VerificationFailed: a backup of the set has failed verification. Nothing was changed.
    :raises ConfigurationError: invalid request, or databases of the same names exist. Nothing was changed.
    :raises RestoreError: databases could not be restored; the error names them. The others are complete, and a second
        call restores the rest.
    :raises Canceled: asked to stop; the same holds.
    """
    return _SetRestore(repository, server, target, selector, analyze, context or RunContext()).run(dry_run=dry_run)


class _SetRestore:
    def __init__(
        self,
        repository: Repository,
        server: str,
        target: SetTarget,
        selector: str,
        analyze: bool,
        context: RunContext,
    ) -> None:
        target.validate()
        self._repository = repository
        self._target = target
        self._analyze = analyze
        self._context = context
        self._set = read_listed_set(repository, choose_set(repository, server, selector, log=context.log))
        self._connection = connect_for_cluster(target.connection, cancel=context.cancel)
        self._warnings: list[str] = []

    def run(self, *, dry_run: bool) -> dict[str, object]:
        started, found, target = time.monotonic(), self._set, self._target
        if target.with_globals and found.globals is None:
            self._warn(f"the set has no roles and tablespaces: {found.globals_missing or 'they were not requested'}")
        backups = read_backups(self._repository, found, target)
        planned = plan_databases(backups, found, target, self._connection, self._repository.uuid, self._context.cancel)
        roles = backups.globals
        planned_roles = self._restore_globals(roles, dry_run=True) if roles else None
        plan = [
            f"restoring backup set {found.location} ({found.status}, {human_time(found.started_at)}) "
            f"into {self._label}, {target.jobs} at a time",
            *(planned_roles["plan"] if planned_roles else ()),
            *(each.line() for each in planned),
            *(f"missing from the set: {each.database} ({each.reason})" for each in found.missing),
            "the databases are not one snapshot: each was dumped on its own, at its own time",
        ]
        for line in plan:
            self._context.log(line)
        outcome: dict[str, Any] = {
            "set": found.location,
            "status": found.status,
            "target": self._label,
            "prefix": target.prefix,
            "dry_run": dry_run,
            "plan": plan,
            "roles_created": [],
            "roles_existing": [],
            "databases": [],
            "missing": [{"database": each.database, "reason": each.reason} for each in found.missing],
        }
        if not dry_run:
            if roles:
                restored = self._restore_globals(roles, dry_run=False)
                outcome |= {key: restored[key] for key in ("roles_created", "roles_existing")}
            outcome["databases"] = self._restore_databases(planned)
        seconds = time.monotonic() - started
        if not dry_run:
            self._context.log(
                f"restored backup set {found.location}: {counted(len(planned), 'database')} in {human_seconds(seconds)}"
            )
        return outcome | {"duration_seconds": round(seconds, 3), "warnings": self._warnings}

    @property
    def _label(self) -> str:
        return self._connection.with_database("").label

    def _restore_globals(self, reference: Mapping[str, object], *, dry_run: bool) -> dict[str, Any]:
        context = replace(self._context, log=discard) if dry_run else self._context
        outcome = restore(
            reference=reference,
            repository=self._repository,
            target=RestoreTarget(
                connection=self._connection,
                allow_older_server=self._target.allow_older_server,
                update_passwords=self._target.update_passwords,
            ),
            options=RestoreOptions(no_tablespaces=self._target.no_tablespaces),
            dry_run=dry_run,
            context=replace(context, seed=None),
        )
        if not dry_run:
            self._warnings += list(outcome["warnings"])  # type: ignore[call-overload]
        return outcome

    def _restore_databases(self, planned: Sequence[PlannedDatabase]) -> list[dict[str, object]]:
        """Restore the databases and return their results, in the order of the plan.

        :raises RestoreError: some failed.
        :raises Canceled: asked to stop.
        """
        with (
            self._context.step("restoring databases", items_total=len(planned), noun="database") as step,
            ThreadPoolExecutor(self._target.jobs, thread_name_prefix="pgbackup-restore") as pool,
            self._context.cancel.set_on_error(),
        ):
            results = run_each(pool, lambda each: self._result(each, step), planned)
        done = [one for one in results if one["outcome"] in (RESTORED, EARLIER)]
        state = f"{len(done)} of {counted(len(planned), 'database')} are restored; a second call restores the rest"
        if self._context.cancel.is_set():
            raise Canceled(f"canceled; {state}")
        if failed := [one for one in results if one["outcome"] == FAILED]:
            names = first_of([str(one["name"]) for one in failed], NAMED)
            raise RestoreError(
                f"{counted(len(failed), 'database')} could not be restored: {names}; {state}; "
                f"{failed[0]['name']}: {failed[0]['reason']}",
                hint="The log has the reason of each. Run the restore again for the rest.",
            )
        return results

    def _result(self, planned: PlannedDatabase, step: Step) -> dict[str, object]:
        context, started = self._context, time.monotonic()

        def log(line: str) -> None:
            context.log(f"{planned.name}: {line}")

        if context.cancel.is_set():
            return planned.result(NOT_STARTED)
        step.begin_item()
        if planned.mode is None:
            return planned.result(EARLIER)
        try:
            outcome = restore(
                reference=planned.reference,
                repository=self._repository,
                target=RestoreTarget(
                    connection=self._connection.with_database(planned.name),
                    mode=planned.mode,
                    maintenance_database=self._connection.dbname if planned.name != self._connection.dbname else None,
                    with_properties=planned.mode == "into_empty",
                    allow_older_server=self._target.allow_older_server,
                ),
                options=self._options_of(planned),
                analyze=self._analyze,
                context=replace(context, log=log, seed=planned.seed),
            )
        except Canceled:
            return planned.result(NOT_STARTED)
        except PgBackupError as error:
            log(f"failed: {error}")
            return planned.result(FAILED, reason=error.message, hint=error.hint)
        self._warnings += [f"{planned.name}: {line}" for line in outcome["warnings"]]  # type: ignore[attr-defined]
        return planned.result(
            RESTORED,
            duration_seconds=round(time.monotonic() - started, 3),
            bytes=outcome["bytes"],
            rows=outcome["rows"],
        )

    def _options_of(self, planned: PlannedDatabase) -> RestoreOptions:
        """Return the options for a database, without those that its dump's format does not support. One that exists
        has no jobs, because jobs would replace it with a new one."""
        kind, jobs = planned.reference["format"], self._target.jobs_per_database
        parallel = jobs > 1 and kind in ("custom", "directory") and planned.mode != "into_empty"
        return RestoreOptions(
            jobs=jobs if parallel else None, no_tablespaces=self._target.no_tablespaces and kind != "plain"
        )

    def _warn(self, line: str) -> None:
        self._warnings.append(line)
        self._context.log(f"warning: {line}")
