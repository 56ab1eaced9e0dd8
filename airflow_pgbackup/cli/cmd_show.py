"""``pgbackup show``: show one backup, its verifications, and the command that restores it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

from rich.text import Text

from airflow_pgbackup.backup.restore_command import restore_command_of
from airflow_pgbackup.cli.arguments import backup_argument, repository_argument
from airflow_pgbackup.cli.display import age, backup_as_json, facts
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.set_listing import show_backup_set
from airflow_pgbackup.quantities import human_bytes, human_seconds, human_time
from airflow_pgbackup.repository.manifest import DatabaseSource, Manifest
from airflow_pgbackup.repository.state import in_words
from airflow_pgbackup.repository.verification import Verification


def run(session: Session) -> None:
    arguments = session.arguments
    if show_backup_set(session, repository_argument(session), arguments.series, arguments.id):
        return
    _, evidence, manifest = backup_argument(session)
    backup, reports = evidence.backup, evidence.verifications
    command = restore_command_of(manifest)
    state = f"verified at level {backup.level}" if backup.level else backup.standing.removeprefix("is ")
    details = {
        **backup_as_json(backup, manifest),
        "problem": backup.problem,
        "ignored": list(evidence.ignored),
        "manifest": json.loads(replace(manifest, restore_command=command).to_json()),
        "verifications": [json.loads(report.to_json()) for report in reports],
    }
    history = [_history(reports)] if reports else []
    session.result(
        details, *_summary(manifest, state, command), *history, *(f"ignored: {line}" for line in evidence.ignored)
    )


def _summary(manifest: Manifest, state: str, command: str) -> list[Text]:
    """Return one line for each property, of any length: a command that is copied must not be broken."""
    seconds, encryption = manifest.duration_seconds, manifest.artifact.encryption  # an adopted dump has no duration
    shown = (
        ("backup", f"{manifest.series.path} {manifest.id}"),
        ("kind", manifest.series.kind),
        ("labels", ", ".join(manifest.labels) or "none"),
        ("artifact", f"{manifest.artifact.name}, {human_bytes(manifest.artifact.size)}, {manifest.artifact.format}"),
        ("sha256", manifest.artifact.sha256),
        ("encrypted", f"to {', '.join(encryption.recipients)}" if encryption else "no"),
        ("source", source_text(manifest.source)),
        (
            "dumped",
            f"{age(manifest.started_at)} ago{f' in {human_seconds(seconds)}' if seconds else ''}, "
            f"by {manifest.client.tool} {manifest.client.version}",
        ),
        ("options", shlex.join(f"{n}={v}" for n, v in manifest.options.items()) or "none"),
        *((("left out", "; ".join(manifest.left_out)),) if manifest.left_out else ()),
        ("state", state),
        ("restore", command),
    )
    return facts(shown)


def source_text(source: DatabaseSource) -> str:
    """Return one line about a source: ``PostgreSQL 18.4, 12.3 GiB, standby 2.5 s behind, on Amazon RDS …``."""
    parts = [f"PostgreSQL {source.server_version}"]
    if source.size_bytes:  # an adopted dump has none
        parts.append(human_bytes(source.size_bytes))
    if source.replay:
        seconds = source.replay.lag_seconds
        parts.append("standby, lag unknown" if seconds is None else f"standby {seconds:.1f} s behind")
    if source.service:
        parts.append(f"on {source.service}")
    return ", ".join(parts)


def _history(reports: tuple[Verification, ...]) -> Listing:
    listing = Listing(
        ("when", "level", "result", "tables", "rows", "recovery time"), names=3, right=(3, 4), labeled=(3, 4, 5)
    )
    for report in reports:
        seconds = f"{report.restore_seconds:.1f} s" if report.restore_seconds is not None else ""
        tables = (str(len(report.tables)), f"{sum(each.rows for each in report.tables):,}")
        when = human_time(report.finished_at, seconds=True)
        result = in_words(report.result)
        listing.add(when, report.level, result, *(tables if report.lists_tables else ("", "")), seconds)
    return listing
