"""restore: bring a backup back, into a database of whatever name on whatever server.

The bytes are held against the manifest before any tool sees one of them. Then either all happens in one transaction,
or in a new database that gets its name when it is whole, and is dropped when it does not come to that. So whatever
fails, and whenever it is stopped, nothing half-done stands under the name that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.progress import human_bytes, human_seconds
from airflow_pgbackup.backup.reference import load_evidence, load_manifest, reference_of
from airflow_pgbackup.backup.restore.client_programs import RestoreContext
from airflow_pgbackup.backup.restore.cluster import restore_cluster
from airflow_pgbackup.backup.restore.database import restore_database
from airflow_pgbackup.backup.restore.plan import check_request
from airflow_pgbackup.backup.restore.request import RestoreRequest
from airflow_pgbackup.backup.restore.retry_marker import request_digest
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.tools.process import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.settings import Settings

_NAMED = 3


def restore(
    *,
    reference: Mapping[str, object],
    repository: Repository,
    target: RestoreTarget,
    options: RestoreOptions | None = None,
    globals_reference: Mapping[str, object] | None = None,
    globals_repository: Repository | None = None,
    analyze: bool = True,
    dry_run: bool = False,
    request: str | None = None,
    settings: Settings | None = None,
    deadline: float | None = None,
    cancel: Cancel | None = None,
    log: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Restore a backup.

    :param reference: from a dump, verify or upload; see :mod:`airflow_pgbackup.backup.reference`.
    :param target: where to, and what may happen to what is there.
    :param options: pg_restore's: what of the backup, and how. A plain dump is restored whole.
    :param globals_reference: a cluster backup, whose roles and tablespaces are restored before; those that exist are
        reported and stay as they are.
    :param globals_repository: the repository of that one, `repository` unless given.
    :param analyze: gather the planner's statistics afterwards.
    :param dry_run: read and check all, say what would be done, and change nothing.
    :param request: what asks for it. With mode ``replace``, a second call with the same request finds what the first
        has done, and returns that; None replaces each time.
    :param deadline: seconds for all of it; none by default, since there is no good moment to give up on a restore.
    :param log: takes the lines for people: the plan, progress, the tools' own warnings.
    :return: plain JSON: ``backup`` (series and id), ``reference`` (of that backup), ``target``
        (``user@host:port/database``), ``database`` (None for a cluster), ``databases`` (that were made or filled),
        ``mode``, ``dry_run``, ``plan`` (lines for people), ``duration_seconds``, ``bytes`` (of the artifact),
        ``database_bytes`` (on disk afterwards), ``rows`` (None where the server does not count), ``objects`` (of
        users), ``replaced`` (what the old database is called now, or None), ``roles_created``, ``roles_existing``,
        ``warnings``.
    :raises ConfigurationError: the request makes no sense, the target is not as the mode wants it, the server lacks
        what the backup needs. Nothing was touched.
    :raises VerificationFailed: the bytes are not those that were dumped. Nothing was touched.
    :raises ToolError, RestoreError, Cancelled: it began and did not succeed; the message says what is there now.
    """
    run = RestoreContext(
        settings=settings or Settings(),
        log=log or (lambda line: None),
        cancel=cancel or Cancel(),
        deadline=None if deadline is None else time.monotonic() + deadline,
    )
    sweep_leftovers(run.settings, log)
    started = time.monotonic()
    evidence = load_evidence(repository, reference)
    manifest = evidence.require_manifest()
    options = options or RestoreOptions()
    check_request(target, options, manifest)
    globals_from = None
    if globals_reference is not None:
        globals_from = (
            globals_repository or repository,
            load_manifest(globals_repository or repository, globals_reference),
        )
        if globals_from[1].kind != "cluster" or manifest.kind == "cluster":
            raise ConfigurationError(
                f"globals come from {globals_from[1].series}, for {manifest.series}",
                hint="name a cluster backup (pg_dumpall) as globals of a database's; a cluster backup has its own",
            )
    digest = request_digest(request) if request else None
    job = RestoreRequest(run, repository, manifest, target, options, globals_from, analyze, dry_run, digest)
    name = f"{manifest.series}/{manifest.id}"
    run.say(
        f"backup {name}: {manifest.artifact.format}, {human_bytes(manifest.artifact.size)}, of PostgreSQL "
        f"{manifest.source.server_version}, by {manifest.client.tool} {manifest.client.version}"
    )
    if evidence.backup.level is None:
        run.warn(f"backup {name} {evidence.backup.standing}")
    for line in evidence.ignored[:_NAMED]:
        run.warn(f"backup {name}: ignored {line}")
    outcome = restore_cluster(job) if manifest.kind == "cluster" else restore_database(job)
    seconds = round(time.monotonic() - started, 3)
    restored = reference_of(repository, evidence)
    if (earlier := outcome.earlier) and (earlier.series, earlier.id) != (manifest.series.path, manifest.id):
        name = f"{Series.parse(earlier.series)}/{earlier.id}"
        run.warn(f"it was {name} that was restored, not {manifest.series}/{manifest.id}")
        restored = {key: restored[key] for key in ("repository", "repository_uuid")}
        restored |= {"series": earlier.series, "id": earlier.id}
    if not (dry_run or earlier):
        rows = "" if outcome.rows is None else f", {outcome.rows:,} rows"
        run.say_at_last(
            f"restored {name} into {', '.join(outcome.databases) or 'the server'} in {human_seconds(seconds)}: "
            f"{outcome.objects} objects{rows}, {human_bytes(outcome.size)} on disk"
        )
    return {
        "backup": name,
        "reference": restored,
        "target": target.connection.label,
        "database": None if manifest.kind == "cluster" else target.database,
        "databases": outcome.databases,
        "mode": target.mode,
        "dry_run": dry_run,
        "plan": outcome.plan,
        "duration_seconds": seconds,
        "bytes": manifest.artifact.size,
        "database_bytes": outcome.size,
        "rows": outcome.rows,
        "objects": outcome.objects,
        "replaced": outcome.replaced,
        "roles_created": outcome.roles_created,
        "roles_existing": outcome.roles_existing,
        "warnings": run.warnings,
    }
