"""What must hold when the soak ends: every listed backup restores, and nothing is left."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psutil
from celery_airflow import CeleryAirflow

from airflow_pgbackup import private_directory
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import NotProven, PgBackupError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from tests.campaign.soaking import workload
from tests.campaign.soaking.samples import WORKERS, process_groups

Violation = dict[str, str]
_OURS = re.compile(r"airflow_pgbackup|/bwrap\b|\bpg_\w+|\bpostgres\b|\bpsql\b|pgbackup-private-")


def repository_of(platform: CeleryAirflow) -> Repository:
    return open_repository(workload.REPOSITORY, s3=S3Options(client_factory=platform.s3.client))


def backups_restore(where: Repository, jobs: int = 2) -> tuple[Counter[str], list[Violation]]:
    """Rehearse every listed backup of a database; verify that of the globals at ``archive``.

    One that could not be proven beside the others is tried again alone.
    """
    outcomes: Counter[str] = Counter()
    violations: list[Violation] = []

    def one(backup: Backup) -> tuple[str, PgBackupError | None]:
        evidence = read_evidence(where, backup.series, backup.id)
        level = "restore" if backup.series.path.split("/")[1].startswith("bench") else "archive"
        try:
            verify(reference=reference_of(where, evidence), repository=where, level=level, context=RunContext())
        except PgBackupError as error:
            return f"does not pass at {level}", error
        return f"passes at {level}", None

    backups = read_catalogue(where).backups
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(one, backups))
    for backup, (outcome, error) in zip(backups, found, strict=True):
        if isinstance(error, NotProven):
            outcomes["tried again alone"] += 1
            outcome, error = one(backup)
        outcomes[outcome] += 1
        if error:
            what = f"{type(error).__name__}: {error}"
            violations.append({"case": f"{backup.series.path}/{backup.id}", "what": what})
    return outcomes, violations


def successes_are_kept(platform: CeleryAirflow, where: Repository) -> Iterator[Violation]:
    """Each database has the backup of its last successful dump, and as many as the prune keeps."""
    listed: dict[str, list[str]] = {}
    for backup in read_catalogue(where).backups:
        listed.setdefault(backup.series.path, []).append(backup.id)
    made: dict[str, set[str]] = {}
    query = "select value from xcom where dag_id = %s and task_id = %s and key = 'return_value'"
    for (value,) in platform.query(query, workload.BACKUP_DAG, workload.DUMP_TASK):
        reference = json.loads(value) if isinstance(value, str) else value
        reference = reference.get("__data__", reference)
        made.setdefault(reference["series"], set()).add(reference["id"])
    if len(made) < len(workload.DATABASES):
        yield {"case": "the whole soak", "what": f"backups of {len(made)} databases only"}
    for series, ids in made.items():
        there = listed.get(series, [])
        if max(ids) not in there:
            yield {"case": f"{series}/{max(ids)}", "what": "its dump succeeded, and it is not listed"}
        if len(there) < min(workload.KEEP, len(ids)):
            yield {"case": series, "what": f"{len(there)} backups are listed of {len(ids)} made"}


def nothing_is_condemned(platform: CeleryAirflow) -> Iterator[Violation]:
    """No fault of the soak damages bytes, so no backup may have failed."""
    pages = platform.s3.client().get_paginator("list_objects_v2").paginate(Bucket=workload.BUCKET)
    for entry in (entry for page in pages for entry in page.get("Contents", ())):
        if re.search(r"/verification-[^/]+-fail\.json$", entry["Key"]):
            yield {"case": entry["Key"], "what": "a sound backup is recorded as failed"}


def sweep_repository(platform: CeleryAirflow, where: Repository) -> tuple[int, list[Violation]]:
    """Sweep as after the time of grace; then fsck finds nothing. Return how many leftovers there were."""
    later = datetime.now(timezone.utc) + timedelta(hours=3)
    plan = prune(repository=where, policy=None, dry_run=False, grace=timedelta(hours=1), now=later)
    leftovers = plan["leftovers"]
    assert isinstance(leftovers, list)
    # The age of an open upload is measured by the store's clock, which cannot be set.
    where.remove_unfinished(where.unfinished_writes(timedelta(0)))
    violations = []
    for finding in fsck(repository=where, read="100%", now=later).findings:
        violations.append({"case": "fsck after the sweep", "what": str(finding)})
    if uploads := platform.s3.client().list_multipart_uploads(Bucket=workload.BUCKET).get("Uploads"):
        violations.append({"case": "open uploads after the sweep", "what": str(uploads)})
    return len(leftovers), violations


def processes_are_gone() -> Iterator[Violation]:
    """No process of ours is on a worker, nor an orphan anywhere."""
    groups = process_groups()
    for name in (*WORKERS, "orphans"):
        for process in groups.get(name, ()):
            try:
                line = " ".join(process.cmdline())
                if process.status() != psutil.STATUS_ZOMBIE and (name == "orphans" or _OURS.search(line)):
                    yield {"case": f"processes of {name}", "what": line[:500]}
            except psutil.Error:
                continue


def directories_are_empty(platform: CeleryAirflow) -> Iterator[Violation]:
    """After the sweep that the next run on a machine begins with, its directory for temporary files is empty."""
    for directory in (platform.hub, *(machine.directory for machine in platform.machines)):
        private_directory.sweep(directory / "tmp")
        for path in (directory / "tmp").iterdir():
            if path.name.startswith("pymp-"):  # Python's multiprocessing in Celery: a worker that dies leaves it
                continue
            yield {"case": f"temporary files of {directory.name}", "what": path.name}


def servers_are_clean(platform: CeleryAirflow) -> Iterator[Violation]:
    """Neither server has a temporary database or role; staging has at most one earlier copy."""
    names = "select datname from pg_database where not datistemplate and datname <> 'postgres' order by 1"
    roles = "select rolname from pg_roles where rolname !~ '^pg_' order by 1"
    for title, server, expected in (
        ("source", platform.source, workload.DATABASES),
        ("staging's server", platform.target, [workload.STAGING]),
    ):
        with closing(server.params.connect()) as session:
            found = [str(row[0]) for row in session.execute(names)]
            accounts = [str(row[0]) for row in session.execute(roles)]
        copies = [name for name in found if name.startswith(f"{workload.STAGING}_before_")]
        others = sorted({*found} - {*expected, *copies})
        if others or len(copies) > 1:
            yield {"case": f"databases of {title}", "what": f"{others} {copies}"}
        if accounts != [server.superuser]:
            yield {"case": f"roles of {title}", "what": f"{accounts}"}


def logs_are_clean(platform: CeleryAirflow, *more_secrets: str) -> tuple[Counter[str], list[Violation]]:
    """No secret is in any log. Return what the failed tries said, and how often."""
    secrets = (platform.password, platform.s3.secret_key, *more_secrets)
    said: Counter[str] = Counter()
    violations: list[Violation] = []
    for machine in platform.machines:
        for path in machine.directory.glob("logs/**/*.log"):
            text = path.read_text(errors="replace")
            if any(secret in text for secret in secrets):
                violations.append({"case": str(path.relative_to(machine.directory)), "what": "a secret is in the log"})
            said.update(_errors(path, text))
    return said, violations


def _errors(path: Path, text: str) -> Iterator[str]:
    """Yield the exception that ended a try, without what differs each time."""
    task = re.search(r"task_id=([^/]+)", str(path))
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        for error in event.get("error_detail") or ():
            message = re.sub(r"\S*\d\S*", "N", f"{error.get('exc_type')}: {error.get('exc_value')}")
            yield f"{task[1] if task else '?'}: {message.splitlines()[0][:200]}"
            break
