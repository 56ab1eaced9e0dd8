"""restore: restore a backup into a database of any name, on any server.

The files are compared with the manifest before any program reads them. Then the restore either runs in a single
transaction, or fills a new database that is renamed when complete, and dropped on failure. So whatever fails, and
whenever it is stopped, the target is never left partly restored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.reference import load_evidence, load_manifest, reference_of
from airflow_pgbackup.backup.restore.beside import restore_beside
from airflow_pgbackup.backup.restore.cluster import restore_cluster
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.database import restore_database
from airflow_pgbackup.backup.restore.loss import describe_backup, describe_loss
from airflow_pgbackup.backup.restore.plan import check_request, without_jobs_for_token
from airflow_pgbackup.backup.restore.request import RestoreRequest
from airflow_pgbackup.backup.restore.retry_marker import request_digest
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.quantities import human_bytes, human_seconds
from airflow_pgbackup.repository.base import Repository

_NAMED = 3


@dataclass(frozen=True)
class GlobalsBackup:
    """The cluster backup that roles and tablespaces are restored from: its reference, and its repository."""

    reference: Mapping[str, object]
    repository: Repository


def restore(
    *,
    reference: Mapping[str, object],
    repository: Repository,
    target: RestoreTarget,
    options: RestoreOptions | None = None,
    globals_from: GlobalsBackup | None = None,
    analyze: bool = True,
    dry_run: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Restore a backup into a database.

    :param reference: from a dump, verify or upload; see :mod:`airflow_pgbackup.backup.reference`.
    :param target: the target database, and what may happen to it.
    :param options: options of pg_restore. A plain dump is restored completely.
    :param globals_from: a cluster backup, whose roles and tablespaces are restored before; those that exist are
        reported and not changed.
    :param analyze: gather planner statistics afterwards.
    :param dry_run: make all checks, return the plan, and change nothing.
    :param context: its deadline limits the complete restore; the default is none, since there is no good moment to give
        up on a restore. A second call with the same seed finds what the first one completed and returns that,
        except with mode ``into_existing`` and for a cluster; without a seed each call restores.
    :return: plain JSON: ``backup`` (series and id), ``reference`` (of that backup), ``target``
        (``user@host:port/database``), ``database`` (None for a cluster), ``databases`` (the restored ones), ``mode``,
        ``dry_run``, ``about`` (lines for people, of a dry run: the backup's time, age, level, size and rows), ``loss``
        (the same: what the target holds now and would lose), ``plan`` (the same: what would be done),
        ``duration_seconds``, ``bytes`` (of the artifact), ``database_bytes``
        (on disk, after the restore), ``rows`` (None if the server does not count them), ``objects`` (of users),
        ``replaced`` (the new name of the old database, or None), ``into_schema``, ``statements``
        (SQL that copies from that schema into the live tables), ``roles_created``, ``roles_existing``, ``warnings``.
    :raises ConfigurationError: invalid request, the target does not fit the mode, or the server lacks what the backup
        needs. Nothing was changed.
    :raises VerificationFailed: the files differ from those that were dumped. Nothing was changed.
    :raises ToolError, RestoreError, Canceled: the restore failed; the message ends with the state of the target.
    """
    context = context or RunContext()
    run = RestoreContext.of(context)
    sweep_leftovers(context)
    started = time.monotonic()
    evidence = load_evidence(repository, reference)
    manifest = evidence.require_manifest()
    options = options or RestoreOptions()
    check_request(target, options, manifest)
    options = without_jobs_for_token(options, target.connection, run.warn)
    cluster = None
    if globals_from is not None:
        cluster = (globals_from.repository, load_manifest(globals_from.repository, globals_from.reference))
        if cluster[1].kind != "cluster" or manifest.kind == "cluster":
            raise ConfigurationError(
                f"cannot restore globals of {cluster[1].series} for {manifest.series}",
                hint="Restore globals of a cluster backup (pg_dumpall) together with the backup of a database.",
            )
    digest = request_digest(context.seed) if context.seed else None
    request = RestoreRequest(run, repository, manifest, target, options, cluster, analyze, dry_run, digest)
    name = manifest.name
    run.log(
        f"restoring backup {name}: {manifest.artifact.format} format, {human_bytes(manifest.artifact.size)}, "
        f"PostgreSQL {manifest.source.server_version}, by {manifest.client.tool} {manifest.client.version}"
    )
    if evidence.backup.level is None:
        run.warn(f"backup {name} {evidence.backup.standing}")
    for line in evidence.ignored[:_NAMED]:
        run.warn(f"backup {name}: ignored {line}")
    if target.into_schema is not None:
        outcome = restore_beside(request, target.into_schema)
    else:
        outcome = restore_cluster(request) if manifest.kind == "cluster" else restore_database(request)
    seconds = round(time.monotonic() - started, 3)
    name, restored = request.restored(outcome, reference_of(repository, evidence))
    if not (dry_run or outcome.earlier):
        where = ", ".join(outcome.databases) or "the server"
        run.log_after_commit(f"restored {name} into {where} in {human_seconds(seconds)}: {outcome.contents}")
    return {
        "backup": name,
        "reference": restored,
        "target": target.connection.label,
        "database": None if manifest.kind == "cluster" else target.database,
        "databases": outcome.databases,
        "mode": target.mode,
        "dry_run": dry_run,
        "about": describe_backup(evidence, datetime.now(timezone.utc)) if dry_run else [],
        "loss": describe_loss(run, evidence, target) if dry_run and not outcome.earlier else [],
        "plan": outcome.plan,
        "duration_seconds": seconds,
        "bytes": manifest.artifact.size,
        "database_bytes": outcome.size,
        "rows": outcome.rows,
        "objects": outcome.objects,
        "replaced": outcome.replaced,
        "into_schema": target.into_schema,
        "statements": outcome.statements,
        "roles_created": outcome.roles_created,
        "roles_existing": outcome.roles_existing,
        "warnings": run.warnings,
    }
