"""``pgbackup undelete``: list and restore backups that were deleted or overwritten in a versioned bucket."""

from __future__ import annotations

from airflow_pgbackup.backup.choose_backup import parse_series
from airflow_pgbackup.backup.lost import find_lost
from airflow_pgbackup.backup.undelete import undelete
from airflow_pgbackup.cli.arguments import backup_argument, repository_argument
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.quantities import counted, human_time
from airflow_pgbackup.repository.layout import parse_backup_id


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    series = parse_series(arguments.series) if arguments.series else None
    if arguments.id is None or series is None:
        repository.uuid  # noqa: B018  raises where there is no repository
        found = find_lost(repository, series.path if series else "")
        listing = Listing(("series", "backup", "was", "at", "locked"), names=2)
        for one in found:
            listing.add(one.series.path, one.id, one.why, human_time(one.at), one.locked or "")
        shown = [listing] if found else []
        session.result([one.as_json() for one in found], *shown, f"{counted(len(found), 'backup')} can be restored")
        return
    if not parse_backup_id(arguments.id):
        raise ConfigurationError(
            f"invalid backup id {arguments.id!r}", hint="Give a complete id, as undelete without one lists it."
        )
    with session.working(f"restoring {series}/{arguments.id}"):
        try:
            lost = undelete(repository=repository, series=series, id=arguments.id, context=session.context)
        except BackupNotFound:
            backup_argument(session)  # if it does not exist, its error names the nearest backups
            raise
    session.result(lost.as_json(), f"{series}/{lost.id} is restored; pin it, or the next prune may delete it again")
