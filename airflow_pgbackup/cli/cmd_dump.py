"""``pgbackup dump``: dump a database, or a cluster, and optionally verify the backup."""

from __future__ import annotations

from typing import Any

from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli.arguments import (
    connection_argument,
    rate_argument,
    repository_argument,
    server_argument,
)
from airflow_pgbackup.cli.options import options_of
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.repository.layout import check_level, reaches


def run(session: Session) -> None:
    arguments = session.arguments
    repository, connection = repository_argument(session), connection_argument(session)
    if arguments.verify is not None:
        check_level(arguments.verify, "--verify", required=True)
    common: dict[str, Any] = {
        "connection": connection,
        "server": server_argument(session),
        "labels": arguments.label,
        "repository": repository,
        "max_replay_lag": arguments.max_replay_lag,
        "max_bytes_per_second": rate_argument(session),
        "read_along": arguments.verify in ("integrity", "archive"),
        "context": session.context,
    }
    with session.working(f"dumping {connection.label}", makes=True):
        if arguments.cluster:
            cluster_options, beside = options_of(DumpAllOptions, arguments.option, also=("compress",))
            reference = dump_cluster(options=cluster_options, compress=beside.get("compress"), **common)
        else:
            options, _ = options_of(DumpOptions, arguments.option)
            reference = dump_database(options=options, **common)
        if arguments.verify and not reaches(reference["verified"], arguments.verify):
            reference = verify(
                reference=reference, repository=repository, level=arguments.verify, context=session.context
            )
    session.result(reference, f"{reference['series']} {reference['id']}")
