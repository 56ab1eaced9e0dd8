"""refresh: give a database the contents of a verified backup; the old contents stay in use until the swap.

The backup is restored into a new database under a temporary name. Rows are masked while they are loaded, and nobody
else may connect before the end. Then one transaction renames the old database and the new one, and gives the new one
the owner, privileges and limits of the old one. After a failure or a kill at any time, the old database keeps its name
and stays in use.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.sessions import session, with_option
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.masking import MaskingKey, MaskingRules
from airflow_pgbackup.backup.reference import load_evidence, reference_of
from airflow_pgbackup.backup.refresh.copy import Refreshed, RefreshedCopy
from airflow_pgbackup.backup.refresh.kept_copies import drop_old_copies
from airflow_pgbackup.backup.refresh.masked import MaskedLoad, rules_for
from airflow_pgbackup.backup.refresh.sections import SectionLoader
from airflow_pgbackup.backup.restore.archive import needs_path
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.restore.named_views import warn_of_empty_views
from airflow_pgbackup.backup.restore.new_database import count_contents
from airflow_pgbackup.backup.restore.plan import check_request, without_jobs_for_token
from airflow_pgbackup.backup.restore.preconditions import database_oids
from airflow_pgbackup.backup.restore.request import RestoreOutcome, RestoreRequest
from airflow_pgbackup.backup.restore.retry_marker import request_digest
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.restore.target_state import TargetState, inspect_target
from airflow_pgbackup.backup.sql_checks import SqlCheck, parse_checks
from airflow_pgbackup.backup.subset import Subset
from airflow_pgbackup.errors import ConfigurationError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.identifiers import quoted
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.quantities import human_bytes, human_seconds
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import check_level
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.wording import parameter, setting


def refresh(
    *,
    reference: Mapping[str, object],
    repository: Repository,
    target: ConnectionParams,
    rules: MaskingRules | None = None,
    masking_key: MaskingKey | None = None,
    checks: Iterable[SqlCheck | Mapping[str, Any] | str] = (),
    subset: Subset | None = None,
    minimum_level: str = "archive",
    keep: int = 1,
    jobs: int | None = None,
    terminate_sessions: bool = True,
    maintenance_database: str | None = None,
    allow_older_server: bool = False,
    dry_run: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Give a database the contents of a verified backup.

    :param reference: of the backup; see :mod:`airflow_pgbackup.backup.reference`. Its state is read from the
        repository.
    :param target: the database to refresh, which exists. Its owners, grants, default privileges, settings, limits and
        comment are given to the new database; objects that it does not have belong to the connection's role.
    :param rules: mask the rows; None copies them as they are. Large objects are left out unless the rules keep them.
    :param masking_key: for the rules, without which it is an error; None reads ``masking_key_file`` of the settings.
    :param checks: SQL that must be true in the new database before it takes the place of the old one; see
        :func:`.sql_checks.parse_checks`.
    :param subset: restore these schemas, tables and rows only. Rows are selected by the values of the source, before
        they are masked. Rules for tables that are not restored are ignored, except for their partitions.
    :param minimum_level: the level at which the backup must be verified.
    :param keep: earlier copies to keep, under names such as ``staging_before_20261127T020000Z``; older ones are
        dropped.
    :param jobs: processes of pg_restore for rows and indexes; custom and directory formats.
    :param terminate_sessions: end the sessions in the old database at the swap; False fails if there are any.
    :param maintenance_database: the database to connect to while databases are renamed; None tries ``postgres``, then
        ``template1``.
    :param allow_older_server: restore a dump of a newer major version of PostgreSQL, which may fail.
    :param dry_run: check the backup and the target, return the plan, and change nothing. Rules and expressions are
        checked when definitions have been restored; ``pgbackup mask check`` checks rules against the source.
    :param context: its deadline limits the complete refresh; the default is none. A second call with the same seed
        finds what the first one completed and returns that.
    :return: plain JSON: ``backup`` (series and id), ``reference`` (of that backup), ``target``
        (``user@host:port/database``), ``database``, ``dry_run``, ``plan`` (lines, of a dry run), ``duration_seconds``,
        ``database_bytes``, ``rows``, ``objects``, ``replaced`` (the name of the copy that was in use until now; None if
        it was dropped), ``kept`` (names of all earlier copies, the newest first), ``reapplied`` (number of owners and
        grants), ``not_reapplied`` and ``new_objects`` (lines), ``masked_columns`` and ``searched_values`` (numbers),
        ``checks`` (a line for each SQL check), ``subset`` (for each table with selected rows: ``table``, ``before``,
        ``after``), ``foreign_keys_left_out`` (names), ``warnings``.
    :raises MaskingError: the rules do not fit the database, or a value of a masked column was found in the copy; the
        old database was not changed.
    :raises ConfigurationError: invalid request, or the server lacks what the backup needs. Nothing was changed.
    :raises VerificationFailed: the backup is not verified at that level, or its files differ from those that were
        dumped. Nothing was changed.
    :raises ToolError, RestoreError, Canceled: the refresh failed; the old database was not changed.
    """
    context = context or RunContext()
    started = time.monotonic()
    run = RestoreContext.of(context)
    check_level(minimum_level, required=True)
    if masking_key is not None and rules is None:
        raise ConfigurationError(
            "a masking key is given, but no rules", hint=f"Give {parameter('rules')}, or leave out the key."
        )
    sql_checks = parse_checks(checks)
    if keep < 0:
        raise ConfigurationError(f"invalid {parameter('keep', keep)}", hint="Give the number of earlier copies.")
    sweep_leftovers(context)
    evidence = load_evidence(repository, reference)
    manifest = _require_usable(evidence, minimum_level)
    options = RestoreOptions(jobs=jobs)
    to_replace = RestoreTarget(
        connection=target,
        mode="replace",
        terminate_sessions=terminate_sessions,
        maintenance_database=maintenance_database,
        allow_older_server=allow_older_server,
    )
    check_request(to_replace, options, manifest)
    options = without_jobs_for_token(options, target, run.warn)
    digest = request_digest(context.seed) if context.seed else None
    request = RestoreRequest(
        run, repository, manifest, to_replace, options, None, analyze=True, dry_run=dry_run, retry_digest=digest
    )
    name = manifest.name
    run.log(
        f"refreshing {target.label} from backup {name}: {human_bytes(manifest.artifact.size)}, "
        f"PostgreSQL {manifest.source.server_version}, verified at level {evidence.backup.level}"
    )
    masking = None if rules is None else _Rules(rules, masking_key or _key(context))
    outcome, copy = _refreshed(request, keep, masking, subset, sql_checks)
    seconds = round(time.monotonic() - started, 3)
    name, restored = request.restored(outcome, reference_of(repository, evidence))
    if not (dry_run or outcome.earlier):
        run.log_after_commit(f"refreshed {target.dbname} from {name} in {human_seconds(seconds)}: {outcome.contents}")
    return {
        "backup": name,
        "reference": restored,
        "target": target.label,
        "database": target.dbname,
        "dry_run": dry_run,
        "plan": outcome.plan,
        "duration_seconds": seconds,
        "database_bytes": outcome.size,
        "rows": outcome.rows,
        "objects": outcome.objects,
        "replaced": outcome.replaced,
        **asdict(copy),
        "warnings": run.warnings,
    }


def _require_usable(evidence: Evidence, minimum_level: str) -> Manifest:
    """Return the manifest of a backup that a refresh may use: verified, of one database, not a plain script.

    :raises VerificationFailed: it is not verified at that level.
    :raises ConfigurationError: it is something else.
    """
    manifest = evidence.require_complete()
    name = manifest.name
    if manifest.kind == "cluster":
        raise ConfigurationError(f"backup {name} is not of a database", hint="Choose a backup of a database.")
    if manifest.artifact.format == "plain":
        raise ConfigurationError(
            f"backup {name} is a plain script, which cannot be restored by sections",
            hint="Dump in custom or directory format.",
        )
    if not counts(evidence.backup, minimum_level):
        ignored = f" (ignored: {evidence.ignored[0]})" if evidence.ignored else ""
        raise VerificationFailed(
            f"backup {name} {evidence.backup.shortcoming(minimum_level)}{ignored}",
            hint=f"Verify it at level {minimum_level} first, or choose another backup.",
        )
    return manifest


@dataclass(frozen=True)
class _Rules:
    rules: MaskingRules
    key: MaskingKey


def _key(context: RunContext) -> MaskingKey:
    if not context.settings.masking_key_file:
        raise ConfigurationError(
            "no masking key given", hint=f"Give one, or name its file with {setting('masking_key_file')}."
        )
    return MaskingKey.read(context.settings.masking_key_file)


def _refreshed(
    request: RestoreRequest, keep: int, masking: _Rules | None, subset: Subset | None, checks: tuple[SqlCheck, ...]
) -> tuple[RestoreOutcome, Refreshed]:
    run, target = request.run, request.target
    maintenance = target.maintenance(run.cancel)
    with session(maintenance, run.cancel) as connection:
        if target.database not in database_oids(connection, [target.database]):
            raise ConfigurationError(
                f'database "{target.database}" does not exist',
                hint=f"Create it once, with its owner: CREATE DATABASE {quoted(target.database)} OWNER role.",
            )
    state = inspect_target(request)
    own_user = with_option(target.connection, f"role={state.server.user}")  # the database may set another role
    request = replace(request, target=replace(target, connection=own_user))
    if state.earlier:
        return _completed_earlier(request, state, keep)
    as_path = request.manifest.artifact.format != "custom" or needs_path(request.manifest, request.options)
    with request.checked(request.repository, request.manifest, as_path=as_path) as checked:
        loader = SectionLoader(
            run,
            checked,
            state.server,
            large_objects=masking is None or masking.rules.keep_large_objects,
            jobs=request.options.jobs,
            subset=subset,
            masked=masking is not None,
        )
        masked = None
        if masking:
            rules = rules_for(masking.rules, loader.subset) if loader.subset else masking.rules
            masked = MaskedLoad(run, rules, masking.key, checked, loader.entries)
        copy = RefreshedCopy(request, state, loader, masked=masked, checks=checks, keep=keep)
        return request.execute(copy), copy.refreshed


def _completed_earlier(request: RestoreRequest, state: TargetState, keep: int) -> tuple[RestoreOutcome, Refreshed]:
    """Return the outcome of an earlier attempt whose result was lost; drop the copies that are left to drop."""
    run, target, marker = request.run, request.target, state.earlier
    assert marker is not None  # noqa: S101  the caller has checked
    line = f"nothing to do: an earlier attempt of this task has refreshed {target.database}"
    run.log(line)
    outcome = RestoreOutcome(plan=[line], earlier=marker)
    refreshed = Refreshed()
    if not request.dry_run:
        maintenance = state.maintenance or target.maintenance(run.cancel)
        warn_of_empty_views(maintenance, target.connection, run.warn, run.cancel)
        refreshed.kept = drop_old_copies(run, maintenance, target.database, keep, marker.replaced)
        outcome.replaced = marker.replaced if marker.replaced in refreshed.kept else None
        outcome.add(target.database, count_contents(run, target.connection))
    return outcome, refreshed
