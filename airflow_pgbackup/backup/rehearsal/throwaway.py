"""Start the throwaway PostgreSQL server of a rehearsal, with the settings that the dump needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_pgbackup.backup.databases.extensions import DATABASE_SETTINGS
from airflow_pgbackup.backup.rehearsal.disk_space import check_disk_space
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.processors import usable_processors
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings

# For bulk loading, with memory for a machine that also runs other programs.
BULK_LOAD = {
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_connections": "30",
    "jit": "off",
    "allow_in_place_tablespaces": "on",
    "log_line_prefix": "%e ",  # the SQLSTATE, which separates errors of the backup from errors of the server
}

_LEAST_LOCKS = 512  # for each of the connections

# Extensions that work, or can be created, only if their library is preloaded, each with the settings that turn off its
# background work. Tested, or taken from their documentation.
PRELOADED: dict[str, dict[str, str]] = {
    "age": {},
    "anon": {},
    "citus": {},
    "documentdb_core": {},
    "pg_cron": {"cron.launch_active_jobs": "off"},
    "pg_hint_plan": {},
    "pg_net": {},
    "pg_partman_bgw": {},
    "pg_qualstats": {},
    "pg_squeeze": {},
    "pg_stat_kcache": {},
    "pg_stat_monitor": {},
    "pg_stat_statements": {},
    "pg_wait_sampling": {},
    "pgaudit": {},
    "pglogical": {},
    "pgsodium": {},
    "set_user": {},
    "timescaledb": {"timescaledb.telemetry_level": "off", "timescaledb.max_background_workers": "0"},
}


@contextmanager
def throwaway_server(
    manifest: Manifest, programs: Client, settings: Settings, *, extensions: Collection[str] = (), tables: int = 0
) -> Iterator[PostgresServer]:
    """Start a private server, which is removed at the end.

    :param extensions: the extensions in the dump. Those that need it are preloaded, if this machine has them.
    :param tables: how many tables the dump has: the dump of the copy locks all of them.
    :raises NotProven: not enough disk space.
    """
    check_disk_space(manifest, settings)
    directory = Path(settings.temp_dir) if settings.temp_dir else None
    jobs = str(usable_processors())
    locks = str(max(_LEAST_LOCKS, tables // int(BULK_LOAD["max_connections"]) + 64))
    settings_ = {
        **BULK_LOAD,
        "max_locks_per_transaction": locks,
        "max_parallel_maintenance_workers": jobs,
        **_preload(programs, manifest, extensions),
    }
    with PostgresServer(programs.bin_dir, directory=directory, settings=settings_, contained=True) as server:
        yield server


def _preload(programs: Client, manifest: Manifest, extensions: Collection[str]) -> dict[str, str]:
    """Return the settings that preload extensions."""
    found = [name for name in sorted(PRELOADED.keys() & set(extensions)) if programs.has_library(name)]
    if not found:
        return {}
    settings = {"shared_preload_libraries": ",".join(found)}
    for name in found:
        settings |= PRELOADED[name]
        if (setting := DATABASE_SETTINGS.get(name)) and manifest.series.database:
            settings[setting] = manifest.series.database
    return settings
