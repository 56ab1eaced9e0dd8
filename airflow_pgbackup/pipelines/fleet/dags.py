"""Make the DAGs of a server: its backup, and, where the mapping asks for them, its drill and its freshness check."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param

from airflow_pgbackup.operators._choose_drill import ChooseDrillOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator
from airflow_pgbackup.pipelines.cluster import pg_cluster_backup
from airflow_pgbackup.pipelines.fleet.describe import describe_backup, describe_drill, describe_freshness
from airflow_pgbackup.pipelines.fleet.model import Retention, Server, pool_of
from airflow_pgbackup.pipelines.fleet.prune_copies import PruneCopiesOperator
from airflow_pgbackup.pipelines.fleet.selection import excluded_series, named_databases
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor

RETRY_DELAY = timedelta(minutes=10)
CHECK_TIMEOUT = timedelta(hours=1)
"""Of a freshness check, not counting the delays before its retries. One that hangs, as on a hard mount, would never
fail, and would keep all later ones from running."""


def server_dags(name: str, server: Server, source: str) -> Iterator[DAG]:
    """Make the DAGs of a server.

    :param source: the name of the file with the mapping, for the DAGs' pages.
    """
    yield _backup(name, server, source)
    if server.drill is not None:
        yield _drill(name, server, source)
    if server.freshness is not None:
        yield _freshness(name, server, source)


def _backup(name: str, server: Server, source: str) -> DAG:
    init = Param(False, type="boolean", description="create the repositories: for the first run only")
    doc_md = describe_backup(name, server, source)
    with _dag(name, server, server.schedule, doc_md, params={"init": init}) as dag:
        # The load of a server is that of its dumps; verifications and copies work elsewhere.
        pool: dict[str, Any] = {} if server.pool is None else {"pool": pool_of(server.pool, name)}
        backup = pg_cluster_backup.override(group_id="backup")(
            postgres_conn_id=server.postgres_conn_id,
            server=name,
            repository=str(server.repository),
            aws_conn_id=server.aws_conn_id,
            databases=server.databases,
            exclude=server.exclude,
            level=server.level,
            verify_while_dumping=server.verify_while_dumping,
            upload_to=server.upload_to,
            upload_aws_conn_id=server.upload_aws_conn_id,
            max_active_tis_per_dagrun=server.parallel,
            deadline=server.deadline,
            init_repository="{{ params.init }}",
            globals=pool,
            prune=_policy(server.retention, server),
            **pool,
            **server.dump,
        )
        policy = _policy(server.upload_retention or server.retention, server)
        if server.upload_to is not None and policy is not None:
            prune = PruneCopiesOperator(
                task_id="prune_copies",
                repository=server.upload_to,
                aws_conn_id=server.upload_aws_conn_id,
                originals=str(server.repository),
                originals_aws_conn_id=server.aws_conn_id,
                server=name,
                delete=True,
                **policy,
            )
            # Without on_failure_fail_dagrun, which would hide a failed backup: see pg_cluster_backup.
            backup >> prune.as_teardown()
    return dag


def _policy(retention: Retention | None, server: Server) -> dict[str, Any] | None:
    """Return the parameters of PgBackupPruneOperator."""
    if retention is None:
        return None
    given = {name: getattr(retention, name) for name in retention.model_fields_set}
    # A prune that fails does not fail the run, so it alerts on its own.
    alert = {"on_failure_callback": server.alerts.on_failure} if server.alerts.on_failure else {}
    return {"minimum_level": server.level, "time_zone": server.time_zone, **alert, **given}


def _drill(name: str, server: Server, source: str) -> DAG:
    drill = server.drill
    assert drill is not None  # noqa: S101
    with _dag(f"{name}_drill", server, drill.schedule, describe_drill(name, server, source)) as dag:
        choose = ChooseDrillOperator(
            task_id="choose",
            repository=str(server.repository),
            aws_conn_id=server.aws_conn_id,
            server=name,
            max_bytes=drill.max_size,
        )
        where = {"queue": drill.queue, "pool": drill.pool and pool_of(drill.pool, name)}
        PgBackupVerifyOperator.partial(
            task_id="rehearse",
            level="restore",
            aws_conn_id=server.aws_conn_id,
            scratch_conn_id=drill.scratch_conn_id,
            max_active_tis_per_dagrun=1,  # each takes the disk and the processors of its worker
            **{key: value for key, value in where.items() if value is not None},
        ).expand(backup=choose.output)
    return dag


def _freshness(name: str, server: Server, source: str) -> DAG:
    freshness = server.freshness
    assert freshness is not None  # noqa: S101
    # A database that is named must have a backup; patterns match what has one.
    named = named_databases(server.databases, server.exclude)
    left_out = [] if named else excluded_series(name, server.exclude)
    doc_md = describe_freshness(name, server, source)
    timeout = CHECK_TIMEOUT + server.retries * RETRY_DELAY
    with _dag(f"{name}_freshness", server, freshness.schedule, doc_md, dagrun_timeout=timeout) as dag:
        PgBackupFreshnessSensor(
            task_id="fresh",
            repository=str(server.repository),
            aws_conn_id=server.aws_conn_id,
            server=name,
            databases=named,
            scopes=["globals"] if named else [],
            exclude=[*freshness.exclude, *left_out],
            allow_drop=freshness.allow_drop,
            max_drop=freshness.max_drop,
            sets=True,
            max_age=freshness.max_age,
            minimum_level=server.level,
        )
    return dag


def _dag(name: str, server: Server, schedule: str | None, doc_md: str, **arguments: Any) -> DAG:
    default_args = {"retries": server.retries, "retry_delay": RETRY_DELAY, "queue": server.queue}
    return DAG(
        dag_id=f"pgbackup_{name}",
        schedule=None if schedule is None else CronTriggerTimetable(schedule, timezone=server.time_zone),
        catchup=False,
        max_active_runs=1,
        default_args={key: value for key, value in default_args.items() if value is not None},
        tags=server.tags,
        doc_md=doc_md,
        # Once for each run, however many of its tasks fail.
        on_failure_callback=server.alerts.on_failure or None,
        on_success_callback=server.alerts.on_success or None,
        **arguments,
    )
