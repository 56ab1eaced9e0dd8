"""``pgbackup list``: list the backups of a repository."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.display import age, backup_as_json, count
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.terminal import styled

_STATE_STYLE = {"verified": "green", "written": "yellow", "notproven": "yellow"}


def run(session: Session) -> None:
    repository = repository_argument(session)
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
            age(backup.started_at),
            human_bytes(backup.size),
            Text.assemble(styled(state, style), pinned),
        )
    below = f"{count(len(catalogue.backups), 'backup')} in {count(len(catalogue.by_series()), 'series')}"
    if catalogue.leftovers:
        below += f"; {count(len(catalogue.leftovers), 'incomplete folder')}: running dumps, or leftovers for prune"
    by_names = ["states are by file names; show, verify and restore read the files"] if shown else []
    session.result([backup_as_json(backup) for backup in shown], *([table] if shown else []), below, *by_names)
