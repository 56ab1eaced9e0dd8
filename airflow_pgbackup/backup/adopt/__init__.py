"""adopt: make backups of existing dumps, each with a manifest, so that they are verified, counted and restored as such.

First a plan (:func:`.plan_adoption`), which reads the dumps and changes nothing; then :func:`.carry_out`.
Adopted backups are unverified, as all new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from airflow_pgbackup.backup.adopt.carry_out import Verify, carry_out
from airflow_pgbackup.backup.adopt.open_sources import open_sources
from airflow_pgbackup.backup.adopt.plan import AdoptionPlan, PlannedDump
from airflow_pgbackup.backup.adopt.planner import plan_adoption
from airflow_pgbackup.backup.adopt.sources import DumpSource
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.repository.base import Repository

__all__ = ["AdoptionPlan", "DumpSource", "PlannedDump", "adopt", "carry_out", "open_sources", "plan_adoption"]


def adopt(
    *,
    repository: Repository,
    sources: Sequence[str | Path | DumpSource],
    server: str,
    database: str | None = None,
    database_patterns: Sequence[str] = (),
    time_patterns: Sequence[str] = (),
    time_zone: str = "UTC",
    link: bool = False,
    move: bool = False,
    verify: Verify | None = None,
    level: str = "archive",
    dry_run: bool = False,
    context: RunContext | None = None,
) -> dict[str, object]:
    """Adopt all dumps of some sources without confirmation of the plan. A second run adopts only new dumps.

    :param sources: files, globs, directories with everything below them, or ``s3://bucket/prefix``.
    :param dry_run: only return the plan.
    :return: plain JSON; see :func:`.carry_out`. For a dry run :meth:`.AdoptionPlan.describe` and empty lists.
    :raises ConfigurationError, RepositoryError: as :func:`.plan_adoption` and :func:`.carry_out`, which also have the
        other parameters.
    """
    context = context or RunContext()
    plan = plan_adoption(
        repository=repository,
        sources=open_sources(sources, context=context),
        server=server,
        database=database,
        database_patterns=database_patterns,
        time_patterns=time_patterns,
        time_zone=time_zone,
        context=context,
    )
    if dry_run:
        return {**plan.describe(), "adopted": [], "present": [], "failed": [], "removed": [], "kept": []}
    return carry_out(plan, link=link, move=move, verify=verify, level=level, context=context)
