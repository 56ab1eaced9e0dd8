"""Check that the repository can store the backup, and find databases that have none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import psycopg

from airflow_pgbackup.backup.check.protection import check_protection
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.findings import Findings, first_named
from airflow_pgbackup.errors import ConfigurationError, ConnectError, DiskError, RepositoryError, RepositoryNotFound
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.sql.patterns import pattern_regexes
from airflow_pgbackup.private_directory import temporary_directory
from airflow_pgbackup.quantities import human_bytes
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue, read_manifests
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings
from airflow_pgbackup.wording import setting

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_DATABASES: LiteralString = """
select datname from pg_catalog.pg_database
 where datallowconn and not datistemplate and datconnlimit <> -2 order by datname
"""
_MATCHING: LiteralString = """
select datname from pg_catalog.pg_database where datname operator(pg_catalog.~) any (%s::text[])
"""
_HAS_RELATIONS: LiteralString = """
select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname !~ '^pg_' and n.nspname <> 'information_schema')
"""
# Options of dumps without rows.
_WITHOUT_ROWS = ("globals_only", "roles_only", "tablespaces_only", "schema_only", "no_data", "statistics_only")
_MANIFESTS = 20
"""The number of cluster backups, the newest first, whose manifests are read."""


def check_repository(
    repository: Repository, server: str, findings: Findings, say: Callable[[str], None]
) -> list[Backup] | None:
    """Check that the repository exists and can be written to, and say whether these credentials may delete from it.

    :return: the backups of this server, newest first in each series; None if they cannot be listed.
    """
    backups = None
    try:
        backups = list(read_catalogue(repository, server=server).backups)
    except (RepositoryError, ConfigurationError) as error:
        findings.add_error("repository", error, "Check the repository's URI and credentials, and the server's name.")
        if not isinstance(error, RepositoryNotFound):
            return None
    try:
        if repository.probe(say):
            say(f"these credentials may write and delete in {repository.uri}")
        check_protection(repository, findings, say)
    except (RepositoryError, ConfigurationError) as error:
        if backups is None and isinstance(error, RepositoryNotFound):
            return None  # already reported
        findings.add_error("repository_write", error, "Grant write access to the user that runs the tasks.")
    return backups


def check_space(
    repository: Repository,
    series: Series,
    backups: Collection[Backup],
    size: int | None,
    options: DumpOptions | DumpAllOptions,
    settings: Settings,
    findings: Findings,
) -> None:
    """Check the free space for the next backup.

    :param size: bytes of the database on disk; None if unknown.
    """
    if any(getattr(options, name, False) for name in _WITHOUT_ROWS):
        size = None
    last = next((backup.size for backup in backups if backup.series == series), None)
    try:
        free = repository.free_bytes(series.path)
    except RepositoryError as error:
        findings.add_error("repository", error, "Check the repository's file system.")
        return
    if free is not None:
        hint = "Prune old backups, add disk space, or use an s3:// repository."
        _compare_space("repository_full", repository.uri, free, last, size, hint, findings)
    elif isinstance(options, DumpOptions) and options.format == "directory":
        hint = f"Free some space, or set {setting('temp_dir')} to a directory on a larger disk."
        try:
            directory = settings.temp_dir or temporary_directory()
        except DiskError as error:
            findings.add_error("temp_full", error, hint)
            return
        try:
            free = shutil.disk_usage(directory).free
        except OSError as error:
            findings.error("temp_full", f"cannot use the temporary directory {directory}: {error.strerror}", hint)
            return
        _compare_space("temp_full", f"the temporary directory {directory}", free, last, size, hint, findings)


def _compare_space(
    code: str, where: str, free: int, last: int | None, size: int | None, hint: str, findings: Findings
) -> None:
    if last is not None and free < last:
        findings.error(
            code,
            f"{where} has {human_bytes(free)} free, but the last backup of this series takes {human_bytes(last)}",
            hint,
        )
    elif last is None and size is not None and free < size:
        findings.warning(
            code,
            f"{where} has {human_bytes(free)} free, but the database takes {human_bytes(size)} on disk",
            "A compressed dump often takes a fifth of that; as there is no earlier backup to compare with, make sure "
            "that it fits.",
        )


def server_databases(db: InspectedDatabase) -> list[str]:
    """Return the databases of the server that users can connect to, without templates."""
    return [name for (name,) in db.rows(_DATABASES)]


def check_coverage(
    databases: Collection[str],
    connection: ConnectionParams,
    repository: Repository,
    backups: Collection[Backup],
    dumped: Collection[str],
    findings: Findings,
) -> None:
    """Report databases of the server that have no backup in the repository.

    :param databases: see :func:`server_databases`.
    :param dumped: the databases that the dump being checked contains.
    """
    covered = {backup.series.database for backup in backups} | set(dumped)
    cluster = [backup for backup in backups if backup.series.kind == "cluster"][:_MANIFESTS]
    newest = next((each for each in read_manifests(repository, cluster) if _has_rows(each)), None)
    if isinstance(newest, Manifest):
        covered |= set(databases) - _excluded(newest, connection)
    missing = [name for name in databases if name not in covered]
    # initdb creates it for users to connect to, and most leave it empty.
    if "postgres" in missing and not _has_relations(connection.with_database("postgres")):
        missing.remove("postgres")
    if missing:
        findings.warning(
            "not_covered",
            f"{repository.uri} has no backup of {first_named(missing)}",
            "Dump these databases too, or dump the cluster with pg_dumpall.",
            missing,
        )


def _has_rows(manifest: Manifest | RepositoryError) -> bool:
    return isinstance(manifest, Manifest) and not any(manifest.options.get(name) for name in _WITHOUT_ROWS)


def _excluded(manifest: Manifest, connection: ConnectionParams) -> set[str]:
    excluded = manifest.options.get("exclude_databases")
    patterns = excluded if isinstance(excluded, list) else []
    regexes = [pattern_regexes(each)[-1] for each in patterns if isinstance(each, str)]
    if not regexes:
        return set()
    try:
        with connection.open_session() as session:
            return {name for (name,) in session.execute(_MATCHING, (regexes,))}
    except (ConnectError, psycopg.Error, UnicodeEncodeError):
        return set()


def _has_relations(connection: ConnectionParams) -> bool:
    try:
        with connection.open_session() as session:
            row = session.execute(_HAS_RELATIONS).fetchone()
    except (ConnectError, psycopg.Error):
        return True  # it may hold something, so it is reported
    return row != (False,)
