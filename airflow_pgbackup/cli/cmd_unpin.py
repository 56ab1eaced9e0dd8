"""``pgbackup unpin``: let prune delete a backup again."""

from __future__ import annotations

from airflow_pgbackup.backup.choose_backup import parse_series
from airflow_pgbackup.backup.pin import unpin
from airflow_pgbackup.cli.arguments import backup_argument, repository_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.repository.layout import parse_backup_id


def run(session: Session) -> None:
    arguments = session.arguments
    if parse_backup_id(arguments.id):  # no manifest is needed: a prune that was killed may have left only the pin
        repository, series, id = repository_argument(session), parse_series(arguments.series), arguments.id
    else:
        repository, evidence, _ = backup_argument(session)
        series, id = evidence.backup.series, evidence.backup.id
    try:
        unpin(repository=repository, series=series, id=id)
    except BackupNotFound:
        backup_argument(session)  # its error names the nearest backups
        raise
    session.result({"series": series.path, "id": id, "pinned": False}, f"{series}/{id} is not pinned")
