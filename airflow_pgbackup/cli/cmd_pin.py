"""``pgbackup pin``: keep prune from deleting a backup."""

from __future__ import annotations

from airflow_pgbackup.backup.pin import pin
from airflow_pgbackup.cli.arguments import backup_argument
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    repository, evidence, _ = backup_argument(session)
    series, id = evidence.backup.series, evidence.backup.id
    already = evidence.backup.pinned
    why_no_hold = pin(repository=repository, series=series, id=id, reason=session.arguments.reason)
    shown = f"{series}/{id} is pinned"
    if already:
        shown += " already; its pin and the reason in it were not changed"
    if why_no_hold is None:
        shown += "; its files have a legal hold"
    elif repository.uri.startswith("s3://"):
        shown += f"; no legal hold: {why_no_hold}"
    session.result(
        {"series": series.path, "id": id, "pinned": True, "changed": not already, "legal_hold": why_no_hold is None},
        shown,
    )
