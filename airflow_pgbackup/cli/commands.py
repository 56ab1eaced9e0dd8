"""The commands: each reads its arguments, calls one verb and shows what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from airflow_pgbackup.backup import adopt as adopt_verb
from airflow_pgbackup.backup import dump as dump_verb
from airflow_pgbackup.backup import prune as prune_verb
from airflow_pgbackup.backup import upload as upload_verb
from airflow_pgbackup.backup import verify as verify_verb
from airflow_pgbackup.backup.artifact import download
from airflow_pgbackup.backup.check import run as check_verb
from airflow_pgbackup.backup.context import discard
from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.restore import run as restore_verb
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.restore_command import restore_command_of
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.cli.definition import EXIT_STATUS
from airflow_pgbackup.cli.given import (
    check_level,
    repository_at,
    the_backup,
    the_backup_to_verify,
    the_connection,
    the_repository,
    the_server,
)
from airflow_pgbackup.cli.options import options_of
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions, RestoreOptions
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.retention import Policy, parse_duration
from airflow_pgbackup.terminal import styled

if TYPE_CHECKING:
    from airflow_pgbackup.cli.run import Session

_STATE_STYLE = {"verified": "green", "written": "yellow", "notproven": "yellow"}


def init(session: Session) -> None:
    repository = the_repository(session)
    uuid = repository.init()
    session.result(
        {"repository": repository.uri, "uuid": uuid}, f"{repository.uri} is a repository, its UUID is {uuid}"
    )


def list_(session: Session) -> None:
    repository = the_repository(session)
    with session.working(f"listing {repository.uri}"):
        catalogue = read_catalogue(repository, server=session.arguments.server)
    shown = [
        backup
        for members in catalogue.by_series().values()
        for backup in (members if session.arguments.all else members[:1])
    ]
    table = Table("series", "backup", "age", "size", "state", box=None, pad_edge=False, header_style="bold")
    for backup in shown:
        state = f"verified: {backup.level}" if backup.level else backup.state
        style = _STATE_STYLE.get(backup.state, "bold red")
        pinned = ", pinned" if backup.pinned else ""
        table.add_row(
            backup.series.path,
            backup.id,
            _age(backup.started_at),
            human_bytes(backup.size),
            Text.assemble(styled(state, style), pinned),
        )
    count = len(catalogue.backups)
    below = f"{count} backups in {len(catalogue.by_series())} series"
    if catalogue.leftovers:
        below += f"; {len(catalogue.leftovers)} folders without a manifest: dumps that run, or leftovers for prune"
    by_names = ["states are by file names; show, verify and restore read the files"] if shown else []
    session.result([_backup_json(backup) for backup in shown], *([table] if shown else []), below, *by_names)


def show(session: Session) -> None:
    _, evidence, manifest = the_backup(session)
    backup, reports = evidence.backup, evidence.verifications
    command = restore_command_of(manifest)
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("backup", f"{manifest.series.path} {manifest.id}"),
        ("artifact", f"{manifest.artifact.name}, {human_bytes(manifest.artifact.size)}, {manifest.artifact.format}"),
        ("sha256", manifest.artifact.sha256),
        ("source", f"PostgreSQL {manifest.source.server_version}, {human_bytes(manifest.source.size_bytes or 0)}"),
        (
            "dumped",
            f"{_age(manifest.started_at)} ago in {manifest.duration_seconds:.1f} s, by {manifest.client.tool} "
            f"{manifest.client.version}",
        ),
        ("options", shlex.join(f"{n}={v}" for n, v in manifest.options.items()) or "none"),
        ("state", f"verified at level {backup.level}" if backup.level else backup.standing),
        ("restore", command),
    ):
        table.add_row(styled(name, "bold"), str(value))
    history = Table("when", "level", "result", "tables", "rows", "recovery time", box=None, header_style="bold")
    for report in reports:
        seconds = f"{report.restore_seconds:.1f} s" if report.restore_seconds is not None else ""
        rows = f"{sum(table.rows for table in report.tables):,}"
        when = f"{report.finished_at:%Y-%m-%d %H:%M:%S}Z"
        history.add_row(when, report.level, report.result, str(len(report.tables)), rows, seconds)
    details = {
        **_backup_json(backup),
        "problem": backup.problem,
        "ignored": list(evidence.ignored),
        "manifest": _loaded(replace(manifest, restore_command=command).to_json()),
        "verifications": [_loaded(report.to_json()) for report in reports],
    }
    ignored = [f"ignored: {line}" for line in evidence.ignored]
    session.result(details, table, *([history] if reports else []), *ignored)


def check(session: Session) -> None:
    connection = the_connection(session)
    repository = the_repository(session) if session.arguments.repository else None
    with session.working(f"looking at {connection.label}"):
        findings = check_verb.check(
            connection=connection,
            server=the_server(session),
            repository=repository,
            scan_rows=session.arguments.scan_rows,
            context=session.context,
        )
    if any(finding.severity == "error" for finding in findings):
        session.status = EXIT_STATUS["not good"]
    lines = [str(finding) for finding in findings]
    session.result([f.as_json() for f in findings], *(lines or ["nothing is in the way of a backup"]))


def dump(session: Session) -> None:
    given = session.arguments
    repository, connection = the_repository(session), the_connection(session)
    check_level(given.verify)
    common: dict[str, Any] = {
        "connection": connection,
        "server": the_server(session),
        "repository": repository,
        "context": session.context,
    }
    with session.working(f"dumping {connection.label}"):
        if given.cluster:
            options, beside = options_of(DumpAllOptions, given.option, also=("compress",))
            reference = dump_verb.dump_cluster(options=options, compress=beside.get("compress"), **common)
        else:
            options_, _ = options_of(DumpOptions, given.option)
            reference = dump_verb.dump_database(options=options_, **common)
        if given.verify:
            reference = _verify(session, repository, reference, given.verify)
    session.result(reference, f"{reference['series']} {reference['id']}")


def verify(session: Session) -> None:
    check_level(session.arguments.level)
    repository, evidence, manifest = the_backup_to_verify(session)
    with session.working(f"verifying {manifest.artifact.name}"):
        scratch = the_connection(session) if session.arguments.scratch else None
        level = session.arguments.level
        reference = _verify(session, repository, reference_of(repository, evidence), level, scratch)
    session.result(reference, f"{reference['series']} {reference['id']} is verified at level {reference['verified']}")


def upload(session: Session) -> None:
    minimum = None if session.arguments.minimum_level == "none" else session.arguments.minimum_level
    repository, evidence, manifest = the_backup(session, minimum_level=minimum)
    destination = repository_at(session, session.arguments.destination)
    with session.working(f"uploading {manifest.artifact.name}"):
        reference = upload_verb.upload(
            reference=reference_of(repository, evidence),
            source=repository,
            destination=destination,
            minimum_level=minimum,
            context=session.context,
        )
    session.result(reference, f"{reference['series']} {reference['id']} is in {destination.uri}")


def get(session: Session) -> None:
    repository, _, manifest = the_backup(session)
    folder = Path(session.arguments.into)
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder", hint="make it first, or name another one with --into")
    with session.working(f"reading {manifest.artifact.name}"):
        path = download(repository, manifest, folder, cancel=session.cancel)
    command = restore_command_of(manifest)
    session.result(
        {"path": str(path), "restore_command": command},
        str(path),
        "restore it, in that folder, with:",
        command,
    )


def restore(session: Session) -> None:
    given = session.arguments
    repository, evidence, manifest = the_backup(session)
    connection = the_connection(session)
    if not given.dbname and not connection.dbname and manifest.series.database:
        connection = connection.with_database(manifest.series.database)
    options = RestoreOptions(jobs=given.jobs, no_owner=given.no_owner, no_privileges=given.no_privileges)
    with session.working(f"restoring {manifest.artifact.name}"):
        done = restore_verb.restore(
            reference=reference_of(repository, evidence),
            repository=repository,
            target=RestoreTarget(connection=connection, mode=given.mode),
            options=options,
            dry_run=given.dry_run,
            context=replace(session.context, log=discard) if given.dry_run else session.context,
        )
    session.result(done, *_after_restore(done))


def prune(session: Session) -> None:
    given, repository = session.arguments, the_repository(session)
    policy = Policy(
        **{
            f"keep_{p}": getattr(given, f"keep_{p}") for p in ("last", "hourly", "daily", "weekly", "monthly", "yearly")
        },
        keep_within=parse_duration(given.keep_within) if given.keep_within else None,
        keep_at_least=given.keep_at_least,
        minimum_level=None if given.minimum_level == "none" else given.minimum_level,
        time_zone=given.time_zone,
    )
    with session.working(f"pruning {repository.uri}"):
        done: Any = prune_verb.prune(
            repository=repository,
            policy=policy,
            dry_run=not given.delete,
            series=SeriesSelection(server=given.server),
            context=replace(session.context, log=discard),
        )
    table = Table("", "series", "backup", "why", box=None, pad_edge=False, header_style="bold")
    for decision in done["decisions"]:
        mark = styled("keep", "green") if decision["keep"] else styled("deleted" if given.delete else "delete", "red")
        table.add_row(mark, decision["series"], decision["id"], "; ".join(decision["reasons"]))
    below = f"{done['kept']} kept, {done['removed']} {'deleted' if given.delete else 'would be deleted (--delete)'}"
    swept = [f"removed what a killed process left: {path}" for path in done["swept"]]
    session.result(done, table, *done["notes"], *swept, below)


def adopt(session: Session) -> None:
    given = session.arguments
    with session.working(f"reading {given.folder}"):
        done: Any = adopt_verb.adopt(
            repository=the_repository(session),
            folder=Path(given.folder),
            server=given.server,
            database=given.database,
            time_zone=given.time_zone,
            dry_run=given.dry_run,
            context=session.context,
        )
    lines = [f"{one['path']}: {one['series']} {one['id']}, {one['format']}" for one in done["found"]]
    lines += [f"{one['path']}: passed over, {one['reason']}" for one in done["skipped"]]
    next_ = "verify them: pgbackup verify" if done["adopted"] else "nothing was adopted"
    session.result(done, *lines, next_)


def demo(session: Session) -> None:
    try:
        from airflow_pgbackup.demo.flow import run
    except ImportError as error:
        raise ConfigurationError(f"the demo lacks {error.name}", hint="pip install 'airflow-pgbackup[demo]'") from None
    session.status = run(dump=Path(session.arguments.dump) if session.arguments.dump else None)


def _verify(
    session: Session,
    repository: Repository,
    reference: Mapping[str, object],
    level: str,
    scratch: ConnectionParams | None = None,
) -> dict[str, object]:
    return verify_verb.verify(
        reference=reference,
        repository=repository,
        level=level,
        scratch=scratch,
        context=session.context,
    )


def _age(moment: datetime) -> str:
    minutes = int((datetime.now(timezone.utc) - moment).total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"


def _backup_json(backup: Backup) -> dict[str, object]:
    return {
        "series": backup.series.path,
        "id": backup.id,
        "started_at": backup.started_at.isoformat(),
        "size": backup.size,
        "state": backup.state,
        "verified": backup.level,
        "pinned": backup.pinned,
    }


def _loaded(data: bytes) -> object:
    import json

    value: object = json.loads(data)
    return value


def _after_restore(done: Mapping[str, Any]) -> list[str]:
    """What came of it, and what to do next."""
    if done["dry_run"]:
        return ["this would be done:", *done["plan"]]
    lines = [
        f"restored into {done['target']} in {done['duration_seconds']:.1f} s",
        *(f"warning: {line}" for line in done["warnings"]),
    ]
    if done["replaced"]:
        lines.append(f"what was there is kept as database {done['replaced']}: drop it once you are sure")
    lines.append("next: let an application connect and look; then make the next backup, and verify it")
    return lines
