"""pg_backup: check, dump, verify, upload and prune one database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, task_group

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.operators.check import PgBackupCheckOperator
from airflow_pgbackup.operators.dump import PgDumpAllOperator, PgDumpOperator
from airflow_pgbackup.operators.prune import PgBackupPruneOperator
from airflow_pgbackup.operators.upload import PgBackupUploadOperator
from airflow_pgbackup.operators.verify import PgBackupVerifyOperator
from airflow_pgbackup.postgres.options import DumpOptions

Parameters = Mapping[str, Any]
"""Further parameters of the operator of one task: ``{"retries": 0, "pool": "small"}``."""


class NotGiven(str):
    """The default of a connection id: not passed on, so that ``default_args`` apply. None has a meaning of its own."""

    __slots__ = ()


AWS_DEFAULT = NotGiven("aws_default")


@task_group(tooltip="check, pg_dump, verify, upload, prune")
def pg_backup(
    *,
    repository: str,
    aws_conn_id: str | None = AWS_DEFAULT,
    check: bool | Parameters = True,
    level: str = "archive",
    verify_while_dumping: bool = False,
    verify_deadline: float | timedelta | None = None,
    verify: Parameters | None = None,
    upload_to: str | None = None,
    upload_aws_conn_id: str | None = AWS_DEFAULT,
    upload_extra_args: Mapping[str, Any] | None = None,
    upload: Parameters | None = None,
    prune: Parameters | None = None,
    **dump: Any,
) -> BaseOperator:
    """Check the server and the repository, dump one database, verify the backup, copy it to a second repository if one
    is given, and prune its series if a policy is given.

    The task ``prune`` is a teardown: it also runs after a failure, to sweep what a killed dump left behind. While no
    backup counts, it deletes none.

    :param repository: the repository for the dump.
    :param aws_conn_id: for ``repository``, if it is on S3; by default that of ``default_args``, or ``aws_default``.
    :param check: False omits the check; a mapping gives further parameters of
        :class:`~airflow_pgbackup.operators.check.PgBackupCheckOperator`, ``{"fail_on": "never"}``.
    :param level: the level of the verification; only a verified backup is uploaded.
    :param verify_while_dumping: decode the dump while it is written, see the parameter ``verify`` of
        :class:`~airflow_pgbackup.operators.dump.PgDumpOperator`. Unless the level is ``restore``, a template or
        mapped, there is no task ``verify`` then, and ``verify`` and ``verify_deadline`` have no effect.
    :param verify_deadline: the deadline of the verification.
    :param verify: further parameters of :class:`~airflow_pgbackup.operators.verify.PgBackupVerifyOperator`.
    :param upload_to: the second repository; None copies nothing.
    :param upload_aws_conn_id: for ``upload_to``.
    :param upload_extra_args: boto3's ``ExtraArgs`` for the upload.
    :param upload: further parameters of :class:`~airflow_pgbackup.operators.upload.PgBackupUploadOperator`.
    :param prune: the retention policy of the database's backups in ``repository``, ``{"keep_daily": 7}``, and further
        parameters of :class:`~airflow_pgbackup.operators.prune.PgBackupPruneOperator`; None deletes nothing.
    :param dump: all other parameters of :class:`~airflow_pgbackup.operators.dump.PgDumpOperator`.
    :return: the last task but the pruning; its ``.output`` is the reference of the backup.
    """
    along = "archive" if as_flag("verify_while_dumping", verify_while_dumping) else None
    source = given(repository=repository, aws_conn_id=aws_conn_id)
    made = PgDumpOperator(task_id="dump", verify=along, **source, **dump)
    if check is not False:
        # From the task and not from dump: default_args give options too.
        usual = DumpOptions()
        options = {name: getattr(made, name) for name in (*DumpOptions.table(), "extra_args")}
        options = {name: value for name, value in options.items() if value != getattr(usual, name)}
        checked = PgBackupCheckOperator(
            **{
                "task_id": "check",
                "postgres_conn_id": made.postgres_conn_id,
                "database": made.database,
                **source,
                "server": made.server,
                "options": options,
                "init_repository": made.init_repository,
                **({} if check is True else check),
            }
        )
        checked >> made
    last = verified_and_uploaded(
        made,
        level=level,
        verify={"deadline": verify_deadline, **(verify or {})},
        upload_to=upload_to,
        upload={
            **given(destination_aws_conn_id=upload_aws_conn_id, extra_args=upload_extra_args),
            **(upload or {}),
        },
    )[-1]
    if prune is not None:
        pruned = prune_task(
            prune,
            **source,
            server=made.server,
            postgres_conn_id=made.postgres_conn_id,
            databases=None if made.database is None else [made.database],
            minimum_level=level,
        )
        # Without on_failure_fail_dagrun, which would hide a failed backup: see pg_cluster_backup.
        last >> pruned.as_teardown()
    return last


def given(**arguments: Any) -> dict[str, Any]:
    """Return the arguments without those that were not given."""
    return {name: value for name, value in arguments.items() if not isinstance(value, NotGiven)}


def prune_task(prune: Any, **usual: Any) -> PgBackupPruneOperator:
    """Return the task that prunes by a policy, which takes precedence over the other arguments.

    :raises ConfigurationError: the policy is not a mapping, or invalid together with default_args. As a teardown, the
        task would fail each night without failing its run.
    """
    from airflow_pgbackup.repository.retention import Policy

    if not isinstance(prune, Mapping):
        hint = "Pass a policy, {'keep_daily': 7}; None deletes nothing."
        raise ConfigurationError(f"invalid prune {prune!r}", hint=hint)
    task = PgBackupPruneOperator(**{"task_id": "prune", **usual, "delete": True, **prune})
    if not task.sweep_only:
        known = [field.name for field in fields(Policy) if field.name not in task.template_fields]
        Policy(**{name: getattr(task, name) for name in known})
    return task


def as_flag(name: str, value: Any) -> bool:
    """Return a flag that decides which tasks a DAG has.

    :raises ConfigurationError: it is a template, mapped, or something else.
    """
    if isinstance(value, bool):
        return value
    raise ConfigurationError(
        f"invalid {name} {value!r}",
        hint="Pass True or False: it decides which tasks the DAG has, so it cannot be a template or mapped.",
    )


def verified_and_uploaded(
    made: PgDumpOperator | PgDumpAllOperator,
    *,
    level: str,
    verify: Parameters,
    upload_to: str | None,
    upload: Parameters,
) -> list[BaseOperator]:
    """Verify and upload what a dump task makes.

    :param verify: further parameters of the verification.
    :param upload: those of the upload.
    :return: the task that verifies, which may be the dump itself, and ``upload`` if there is a second repository.
    """
    verified: BaseOperator = made
    # A template or a mapped argument may become "restore".
    if made.verify is None or level not in ("integrity", "archive"):
        verified = PgBackupVerifyOperator(
            **{
                "task_id": "verify",
                "backup": made.output,
                "level": level,
                "aws_conn_id": made.aws_conn_id,
                **verify,
            }
        )
    if upload_to is None:
        return [verified]
    uploaded = PgBackupUploadOperator(
        **{
            "task_id": "upload",
            "backup": verified.output,
            "destination": upload_to,
            "aws_conn_id": made.aws_conn_id,
            "minimum_level": level,
            "init_repository": made.init_repository,
            **upload,
        }
    )
    return [verified, uploaded]
