"""``pgbackup dump-set``: back up all databases of a server, and tie the backups together as a set."""

from __future__ import annotations

from airflow_pgbackup.backup.sets.discover import ALL
from airflow_pgbackup.backup.sets.dump_set import dump_set
from airflow_pgbackup.backup.sets.write_set import as_json, require_complete
from airflow_pgbackup.cli.arguments import (
    connection_argument,
    rate_argument,
    repository_argument,
    server_argument,
)
from airflow_pgbackup.cli.options import options_of
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.set_listing import set_lines
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.repository.layout import check_level


def run(session: Session) -> None:
    arguments = session.arguments
    repository, connection = repository_argument(session), connection_argument(session)
    level = None if arguments.verify == "none" else arguments.verify
    check_level(level, "--verify", none="none")
    options, _ = options_of(DumpOptions, arguments.option)
    with session.working(f"dumping the databases of {connection.label}", makes=True):
        made = dump_set(
            connection=connection,
            server=server_argument(session),
            repository=repository,
            options=options,
            databases=arguments.database or ALL,
            exclude=arguments.exclude,
            with_globals=not arguments.no_globals,
            level=level,
            jobs=arguments.jobs,
            labels=arguments.label,
            max_replay_lag=arguments.max_replay_lag,
            max_bytes_per_second=rate_argument(session),
            context=session.context,
        )
    require_complete((repository, made))
    session.result(as_json(repository, made), *set_lines(made))
