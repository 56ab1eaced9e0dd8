"""dump_set: find the databases of a server, dump each and the globals, and write the set; without Airflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.sets.discover import ALL, discover
from airflow_pgbackup.backup.sets.write_set import write_set
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.errors import Canceled, ConfigurationError, PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import check_level, reaches
from airflow_pgbackup.threads import run_each


def dump_set(
    *,
    connection: ConnectionParams,
    server: str,
    repository: Repository,
    options: DumpOptions,
    databases: Sequence[str] = ALL,
    exclude: Sequence[str] = (),
    with_globals: bool = True,
    level: str | None = "archive",
    jobs: int = 1,
    labels: Sequence[str] = (),
    max_replay_lag: float | None = None,
    max_bytes_per_second: float | None = None,
    context: RunContext | None = None,
) -> BackupSet:
    """Back up all databases of a server, one after the other or several at a time, and tie them together as a set.

    A database that fails does not hold up the others; the set lists it as missing, with the reason. The databases are
    not one snapshot.

    :param connection: its database is the one to connect to for the list, by default ``postgres``.
    :param server: the first part of the series.
    :param options: of each dump. Its ``role`` also dumps the globals.
    :param labels: for each backup.
    :param databases: names and patterns; see :func:`.discover.discover`.
    :param exclude: of those to leave out.
    :param with_globals: also dump roles and tablespaces, with role passwords if the server lets this role read them.
    :param level: verify each backup at this level; None verifies none.
    :param jobs: how many databases at a time.
    :param max_replay_lag: as for :func:`.dump.dump_database`.
    :param max_bytes_per_second: the same, of each dump.
    :return: the set, which may be partial; see :func:`.write_set.require_complete`.
    :raises ConfigurationError: an invalid request, or there is no database to dump.
    :raises ConnectError: the server is unreachable.
    :raises RepositoryError: the repository is not initialized.
    :raises Canceled: asked to stop; no set is written.
    """
    check_level(level, "level")
    if jobs < 1:
        raise ConfigurationError(f"invalid number of jobs {jobs}", hint="Give one or more.")
    context = context or RunContext()
    repository.uuid  # noqa: B018  raises where there is no repository, before anything is dumped
    repository.probe(context.log)
    found = discover(connection=connection, databases=databases, exclude=exclude, context=context)
    common: dict[str, Any] = {
        "server": server,
        "repository": repository,
        "labels": labels,
        "max_replay_lag": max_replay_lag,
        "max_bytes_per_second": max_bytes_per_second,
        "read_along": level in ("integrity", "archive"),
        "context": context,
    }
    reasons: dict[str | None, str] = {}

    def attempt(name: str | None, dump: Callable[[], dict[str, object]]) -> Mapping[str, object] | None:
        context.cancel.check()
        try:
            reference = dump()
            if level is None or reaches(reference["verified"], level):
                return reference
            return verify(reference=reference, repository=repository, level=level, context=context)
        except Canceled:
            raise
        except PgBackupError as error:
            reasons[name] = error.message
            context.log(f"{name or 'the globals'} failed: {error}")
            return None

    def dump_globals() -> dict[str, object]:
        only = DumpAllOptions(globals_only=True, role=options.role)
        return dump_cluster(connection=connection, options=only, passwords_if_allowed=True, **common)

    def dump_one(name: str) -> dict[str, object]:
        return dump_database(connection=connection.with_database(name), options=options, **common)

    roles = attempt(None, dump_globals) if with_globals else None
    names = [each.name for each in found.databases]
    with (
        context.step("dumping databases", items_total=len(names), noun="database") as step,
        ThreadPoolExecutor(jobs, thread_name_prefix="pgbackup-dump") as pool,
        context.cancel.set_on_error(),
    ):

        def work(name: str) -> Mapping[str, object] | None:
            step.begin_item()
            return attempt(name, lambda: dump_one(name))

        made = run_each(pool, work, names)
    return write_set(
        repository=repository,
        server=server,
        discovery=found,
        backups=[reference for reference in made if reference is not None],
        globals_backup=roles,
        with_globals=with_globals,
        minimum_level=level,
        reasons=reasons,
        context=context,
    )
