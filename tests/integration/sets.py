"""What the tests of backup sets share: a set of real backups."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.backup_set import Absent, BackupSet, SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.set_files import write_set


def member(repository: Repository, reference: dict[str, object]) -> SetMember:
    """Return a backup as a member of a set."""
    return SetMember.of(load_manifest(repository, reference), None)


def back_up_set(
    server: PostgresServer,
    repository: Repository,
    databases: Sequence[str],
    missing: Sequence[Absent] = (),
    plain: Sequence[str] = (),
) -> BackupSet:
    """Dump the globals and these databases of a server, called ``prod``, and write their set.

    :param plain: those of them to dump as scripts.
    """
    roles = dump_cluster(
        connection=server.params, repository=repository, options=DumpAllOptions(globals_only=True), server="prod"
    )
    dumps = [
        dump_database(
            connection=server.params.with_database(name),
            repository=repository,
            options=DumpOptions(format="plain" if name in plain else "custom"),
            server="prod",
        )
        for name in databases
    ]
    now = datetime.now(timezone.utc).replace(microsecond=0)
    return write_set(
        repository,
        BackupSet(
            id=f"{now:%Y%m%dT%H%M%SZ}-{len(missing):06x}",
            server="prod",
            status="partial" if missing else "complete",
            started_at=now,
            finished_at=now,
            server_version="18.4",
            globals=member(repository, roles),
            databases=tuple(member(repository, each) for each in dumps),
            missing=tuple(missing),
        ),
    )
