"""Would the repository take the backup, and which databases does it know nothing of?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from typing import TYPE_CHECKING

import psycopg

from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.findings import Findings, named
from airflow_pgbackup.backup.progress import human_bytes
from airflow_pgbackup.errors import ConfigurationError, ConnectError, RepositoryError, RepositoryNotFound
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue, read_manifests
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_DATABASES: LiteralString = """
select datname from pg_catalog.pg_database
 where datallowconn and not datistemplate and datconnlimit <> -2 order by datname
"""
_HOLDS_SOMETHING: LiteralString = """
select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname !~ '^pg_' and n.nspname <> 'information_schema')
"""
# With one of these a dump does not have the databases' rows.
_NOT_WHOLE = ("globals_only", "roles_only", "tablespaces_only", "schema_only", "no_data", "statistics_only")
_MANIFESTS = 20


def check_repository(repository: Repository, server: str, findings: Findings) -> list[Backup] | None:
    """Is it there, does it take files?

    :return: the backups it has of this server, newest first in each series; None where that is not to be known.
    """
    backups = None
    try:
        backups = list(read_catalogue(repository, server=server).backups)
    except (RepositoryError, ConfigurationError) as error:
        findings.failed("repository", error, "look at its address and credentials, and at the server's name")
        if not isinstance(error, RepositoryNotFound):
            return None
    try:
        repository.probe()
    except RepositoryError as error:
        if backups is None and isinstance(error, RepositoryNotFound):
            return None  # has been said
        findings.failed("repository_write", error, "the user that runs the tasks must be able to write there")
    return backups


def check_room(
    repository: Repository,
    series: Series,
    backups: Collection[Backup],
    size: int | None,
    options: DumpOptions | DumpAllOptions,
    findings: Findings,
) -> None:
    """Is there room for the next backup?

    :param size: bytes of the database on disk; None where that is not known.
    """
    if any(getattr(options, name, False) for name in _NOT_WHOLE):
        size = None
    last = next((backup.size for backup in backups if backup.series == series), None)
    try:
        free = repository.free_bytes()
    except RepositoryError as error:
        findings.failed("repository", error, "look at its file system")
        return
    if free is not None:
        _room("repository_full", f"{repository.uri}", free, last, size, findings)
    elif isinstance(options, DumpOptions) and options.format == "directory":
        folder = tempfile.gettempdir()
        _room(
            "temp_full",
            f"the folder for temporary files {folder}",
            shutil.disk_usage(folder).free,
            last,
            size,
            findings,
        )


def _room(code: str, where: str, free: int, last: int | None, size: int | None, findings: Findings) -> None:
    if last is not None and free < last:
        findings.error(
            code,
            f"{where} has {human_bytes(free)} free, the last backup of this series takes {human_bytes(last)}",
            "prune old backups, give it more room, or write to an s3:// repository",
        )
    elif last is None and size is not None and free < size:
        findings.warning(
            code,
            f"{where} has {human_bytes(free)} free, the data takes {human_bytes(size)} on the server's disk",
            "a compressed dump is often a fifth of that, but nobody has made one yet",
        )


def server_databases(db: InspectedDatabase) -> list[str]:
    """The databases of the server that may hold something of somebody's."""
    return [name for (name,) in db.rows(_DATABASES)]


def check_coverage(
    databases: Collection[str],
    connection: ConnectionParams,
    repository: Repository,
    backups: Collection[Backup],
    about_to_be: Collection[str],
    findings: Findings,
) -> None:
    """Databases of the server that no series in the repository has a backup of.

    :param databases: see :func:`server_databases`.
    :param about_to_be: those which the dump that is checked for will cover.
    """
    covered = {backup.series.database for backup in backups} | set(about_to_be)
    cluster = [backup for backup in backups if backup.series.database is None][:_MANIFESTS]
    if any(_has_rows(manifest) for manifest in read_manifests(repository, cluster)):
        return
    missing = [name for name in databases if name not in covered]
    # initdb makes it for people to connect to, and most never put anything there.
    if "postgres" in missing and not _holds_something(connection.with_database("postgres")):
        missing.remove("postgres")
    if missing:
        findings.warning(
            "not_covered",
            f"{repository.uri} has no backup of {named(missing)}",
            "add them to the DAG, or dump the cluster with pg_dumpall",
            missing,
        )


def _has_rows(manifest: Manifest | RepositoryError) -> bool:
    return isinstance(manifest, Manifest) and not any(manifest.options.get(name) for name in _NOT_WHOLE)


def _holds_something(connection: ConnectionParams) -> bool:
    try:
        with connection.connect() as session:
            row = session.execute(_HOLDS_SOMETHING).fetchone()
    except (ConnectError, psycopg.Error):
        return True  # nobody knows, so somebody should look
    return row != (False,)
