"""``pgbackup refresh``: give a database the contents of a verified backup."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_pgbackup.backup.masking import load_rules
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.cli.arguments import (
    backup_argument,
    confirm_replacing,
    connection_argument,
    minimum_level_argument,
)
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.sql_checks import checks_argument
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.quantities import counted

_SHOWN = 5


def run(session: Session) -> None:
    arguments = session.arguments
    if not arguments.dbname:
        raise ConfigurationError(
            "no database to refresh given", hint="Name it with --dbname: PGDATABASE may have been set for other work."
        )
    level = minimum_level_argument(session)
    if level is None:
        raise ConfigurationError("invalid --minimum-level none", hint="A refresh needs a verified backup.")
    file = not_empty("rules", arguments.rules)
    rules = None if file is None else load_rules(Path(file))
    checks = checks_argument(session)
    repository, evidence, manifest = backup_argument(session, minimum_level=level)
    target = connection_argument(session)
    session.log(f"target: {target.label}")
    if not arguments.dry_run:
        what = f'replacing database "{target.dbname}" with a backup of "{manifest.series.database}"'
        confirm_replacing(session, what, target.dbname)
    with session.working(f"refreshing {target.dbname} from {manifest.artifact.name}", makes=True):
        outcome = refresh(
            reference=reference_of(repository, evidence),
            repository=repository,
            target=target,
            rules=rules,
            checks=checks,
            minimum_level=level,
            keep=arguments.keep,
            jobs=arguments.jobs,
            terminate_sessions=not arguments.keep_sessions,
            maintenance_database=arguments.maintenance_db,
            allow_older_server=arguments.allow_older_server,
            dry_run=arguments.dry_run,
            context=session.context_for(dry_run=arguments.dry_run),
        )
    session.result(outcome, *_lines(outcome))


def _lines(outcome: Mapping[str, Any]) -> list[str]:
    """Return the result as lines."""
    warnings = [f"warning: {line}" for line in outcome["warnings"]]
    if outcome["dry_run"]:
        return [f"from backup {outcome['backup']}, this would be done:", *outcome["plan"], *warnings]
    lines = [
        f"refreshed {outcome['target']} from {outcome['backup']} in {outcome['duration_seconds']:.1f} s",
        *warnings,
    ]
    if (hidden := len(outcome["not_reapplied"]) - _SHOWN) > 0:
        more = counted(hidden, "more owner or grant", "more owners and grants")
        lines.append(f"{more} not re-applied: see --json")
    if outcome["masked_columns"]:
        values = outcome["searched_values"]
        searched = f"searched the copy for {counted(values, 'source value')} and found none"
        lines.append(
            f"masked {counted(outcome['masked_columns'], 'column')}; "
            + (searched if values else "the copy was not searched for source values")
        )
    lines += outcome["checks"]
    if outcome["kept"]:
        lines.append(f"earlier copies: {', '.join(outcome['kept'])}")
    return lines
