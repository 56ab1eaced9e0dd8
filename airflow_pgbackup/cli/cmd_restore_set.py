"""``pgbackup restore-set``: restore the roles and databases of a backup set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_pgbackup.backup.sets.restore_set import EARLIER, restore_set
from airflow_pgbackup.backup.sets.restore_set_plan import SetTarget
from airflow_pgbackup.cli.arguments import connection_argument, repository_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.layout import decode_segment, encode_segment


def run(session: Session) -> None:
    arguments = session.arguments
    target = SetTarget(
        connection=connection_argument(session),
        prefix=arguments.prefix,
        databases=arguments.database,
        with_globals=not arguments.no_globals,
        update_passwords=arguments.update_passwords,
        no_tablespaces=arguments.no_tablespaces,
        jobs=arguments.jobs,
        jobs_per_database=arguments.jobs_per_database,
        allow_older_server=arguments.allow_older_server,
    )
    repository = repository_argument(session)
    server = arguments.server
    if server in (folders := repository.folders("")) and encode_segment(server) not in folders:
        server = decode_segment(server)  # as list --sets shows it
    with session.working(f"restoring a backup set of {server}", makes=True):
        outcome = restore_set(
            repository=repository,
            server=server,
            selector=arguments.id,
            target=target,
            analyze=not arguments.no_analyze,
            dry_run=arguments.dry_run,
            context=session.context_for(dry_run=arguments.dry_run),
        )
    session.result(outcome, *_lines(outcome))


def _lines(outcome: Mapping[str, Any]) -> list[str]:
    warnings = [f"warning: {line}" for line in outcome["warnings"]]
    if outcome["dry_run"]:
        return ["this would be done:", *outcome["plan"], *warnings]
    databases = outcome["databases"]
    earlier = sum(one["outcome"] == EARLIER for one in databases)
    return [
        f"restored {outcome['set']} into {outcome['target']} in {outcome['duration_seconds']:.1f} s: "
        f"{counted(len(databases) - earlier, 'database')}" + (f", {earlier} by an earlier call" if earlier else ""),
        f"roles created: {', '.join(outcome['roles_created']) or 'none'}",
        *(f"missing from the set: {one['database']} ({one['reason']})" for one in outcome["missing"]),
        *warnings,
    ]
