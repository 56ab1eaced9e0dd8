"""Task groups for the usual pipeline: dump, verify, upload.

.. code-block:: python

    pg_backup.override(group_id="dvdrental")(
        postgres_conn_id="dvdrental", repository="file:///var/backups/pg", upload_to="s3://backups/pg"
    )
    pg_backup.partial(repository="s3://backups/pg").expand(database=["app", "billing"])  # one pipeline per database

Each call returns its last task; that task's ``.output`` is the reference of the backup.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, task_group

from airflow_pgbackup.operators.dump import PgDumpAllOperator, PgDumpOperator
from airflow_pgbackup.operators.upload import PgBackupUploadOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator


@task_group(tooltip="pg_dump, verify, upload")
def pg_backup(
    *,
    repository: str,
    aws_conn_id: str | None = "aws_default",
    level: str = "archive",
    verify_deadline: float | timedelta | None = None,
    upload_to: str | None = None,
    upload_aws_conn_id: str | None = "aws_default",
    upload_extra_args: Mapping[str, Any] | None = None,
    **dump: Any,
) -> BaseOperator:
    """Dump one database, verify the backup, and copy it to a second repository if one is given.

    :param repository: the repository for the dump.
    :param aws_conn_id: for ``repository``, if it is on S3.
    :param level: the level of the verification; only a verified backup is uploaded.
    :param verify_deadline: the deadline of the verification.
    :param upload_to: the second repository; None copies nothing.
    :param upload_aws_conn_id: for ``upload_to``.
    :param upload_extra_args: boto3's ``ExtraArgs`` for the upload.
    :param dump: all other parameters of :class:`~airflow_pgbackup.operators.dump.PgDumpOperator`.
    """
    first = PgDumpOperator(task_id="dump", repository=repository, aws_conn_id=aws_conn_id, **dump)
    return _verified(first, level, verify_deadline, upload_to, upload_aws_conn_id, upload_extra_args)


@task_group(tooltip="pg_dumpall, verify, upload")
def pg_cluster_backup(
    *,
    repository: str,
    aws_conn_id: str | None = "aws_default",
    level: str = "archive",
    verify_deadline: float | timedelta | None = None,
    upload_to: str | None = None,
    upload_aws_conn_id: str | None = "aws_default",
    upload_extra_args: Mapping[str, Any] | None = None,
    **dump: Any,
) -> BaseOperator:
    """Dump all databases of a cluster with pg_dumpall, verify the backup, and copy it to a second repository if one is
    given.

    The parameters are those of :func:`pg_backup`.

    :param dump: all other parameters of :class:`~airflow_pgbackup.operators.dump_all.PgDumpAllOperator`.
    """
    first = PgDumpAllOperator(task_id="dump", repository=repository, aws_conn_id=aws_conn_id, **dump)
    return _verified(first, level, verify_deadline, upload_to, upload_aws_conn_id, upload_extra_args)


def _verified(
    dump: PgDumpOperator | PgDumpAllOperator,
    level: str,
    deadline: float | timedelta | None,
    upload_to: str | None,
    upload_aws_conn_id: str | None,
    extra_args: Mapping[str, Any] | None,
) -> BaseOperator:
    verify = PgBackupVerifyOperator(
        task_id="verify", backup=dump.output, level=level, aws_conn_id=dump.aws_conn_id, deadline=deadline
    )
    if upload_to is None:
        return verify
    return PgBackupUploadOperator(
        task_id="upload",
        backup=verify.output,
        destination=upload_to,
        aws_conn_id=dump.aws_conn_id,
        destination_aws_conn_id=upload_aws_conn_id,
        extra_args=extra_args,
        minimum_level=level,
        init_repository=dump.init_repository,
    )
