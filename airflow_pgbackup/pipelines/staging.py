"""pg_refresh: give a database the contents of a verified backup, after a rehearsal if one is asked for."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, task_group

from airflow_pgbackup.operators._choose_backup import ChooseBackupOperator
from airflow_pgbackup.operators.refresh import PgRefreshOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator
from airflow_pgbackup.pipelines.database import Parameters


@task_group(tooltip="choose a backup, verify it, refresh a database from it")
def pg_refresh(*, level: str | None = None, verify: Parameters | None = None, **refresh: Any) -> BaseOperator:
    """Refresh a database from a verified backup.

    In a DAG whose ``schedule`` is :func:`~airflow_pgbackup.assets.backup_asset`, that is the backup whose event started
    the run; in another one, and in a run started by hand, ``repository`` and ``series`` choose it.

    :param level: verify the backup at this level first, such as ``restore``, and refresh from it only if it passes;
        None: the verification that it has counts.
    :param verify: further parameters of :class:`~airflow_pgbackup.operators.verify.PgBackupVerifyOperator`.
    :param refresh: all parameters of :class:`~airflow_pgbackup.operators.refresh.PgRefreshOperator`.
    :return: the task ``refresh``.
    """
    if level is None:
        return PgRefreshOperator(**{"task_id": "refresh", **refresh})
    choosing = ("repository", "series", "backup_id", "minimum_level", "aws_conn_id")
    backup = refresh.get("backup")
    if backup is None:
        chosen = {name: refresh[name] for name in choosing if name in refresh}
        backup = ChooseBackupOperator(task_id="choose", **chosen).output
    both = ("aws_conn_id", "identity_conn_id")
    shared: dict[str, Any] = {name: refresh[name] for name in both if name in refresh}
    of_verify: dict[str, Any] = {"task_id": "verify", "backup": backup, "level": level, **shared, **(verify or {})}
    verified = PgBackupVerifyOperator(**of_verify)
    given = {"task_id": "refresh", "minimum_level": level, **refresh, "backup": verified.output}
    return PgRefreshOperator(**given)
