"""``pgbackup list``: list the backups of a repository."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from airflow_pgbackup.backup.series_selection import require_server
from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.display import age, backup_as_json
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.set_listing import list_backup_sets
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue, read_manifests
from airflow_pgbackup.repository.labels import check_label_patterns, matching_labels
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.state import in_words
from airflow_pgbackup.terminal import styled

_STATE_STYLE = {"verified": "green", "written": "yellow", "notproven": "yellow"}


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    if arguments.sets:
        with session.working(f"listing {repository.uri}"):
            list_backup_sets(session, repository)
        return
    labels = check_label_patterns(arguments.label)
    with session.working(f"listing {repository.uri}"):
        catalogue = read_catalogue(repository, server=arguments.server)
        require_server(repository, arguments.server, catalogue)
        shown = [
            backup
            for members in catalogue.by_series().values()
            for backup in (members if arguments.all or labels else members[:1])
        ]
        manifests = _manifests(repository, shown) if labels else {}
    if labels:
        shown = [one for one in shown if one in manifests and matching_labels(manifests[one].labels, labels)]
    header = ["series", "backup", "kind", "age", "size", *(["labels"] if labels else []), "state"]
    listing = Listing(header, names=2, right=(3, 4), labeled=(3,))
    for backup in shown:
        state = f"verified: {backup.level}" if backup.level else in_words(backup.state)
        manifest = manifests.get(backup)
        listing.add(
            backup.series.path,
            backup.id,
            backup.series.kind,
            age(backup.started_at),
            human_bytes(backup.size),
            *([", ".join(manifest.labels)] if labels and manifest else []),
            Text.assemble(
                styled(state, _STATE_STYLE.get(backup.state, "bold red")), ", pinned" if backup.pinned else ""
            ),
        )
    below = f"{counted(len(catalogue.backups), 'backup')} in {counted(len(catalogue.by_series()), 'series')}"
    if labels:
        below = f"{counted(len(shown), 'backup')} of {below}"
    if catalogue.leftovers:
        below += f"; {counted(len(catalogue.leftovers), 'incomplete folder')}: running dumps, or leftovers for prune"
    by_names = ["states are by file names; show, verify and restore read the files"] if shown else []
    found = [backup_as_json(backup, manifests.get(backup)) for backup in shown]
    session.result(found, *([listing] if shown else []), below, *by_names)


def _manifests(repository: Repository, shown: Sequence[Backup]) -> dict[Backup, Manifest]:
    read = zip(shown, read_manifests(repository, shown), strict=True)
    return {backup: manifest for backup, manifest in read if isinstance(manifest, Manifest)}
