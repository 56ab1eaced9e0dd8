"""pg_cluster_backup: all databases of a server, each on its own, tied together as a backup set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, XComArg, task_group

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.operators.backup_set import PgBackupSetOperator
from airflow_pgbackup.operators.discover import DISCOVERY, REPOSITORY_UUID, PgDiscoverOperator
from airflow_pgbackup.operators.dump import PgDumpAllOperator, PgDumpOperator
from airflow_pgbackup.pipelines.database import (
    AWS_DEFAULT,
    Parameters,
    as_flag,
    given,
    prune_task,
    verified_and_uploaded,
)

AT_ONCE = 4
"""How many databases of a run are dumped, verified or uploaded at once, unless a pool or another limit is given."""

_WHOLE_SERVER: Parameters = {"postgres_conn_id": None, "databases": None, "cluster": False, "scopes": ()}
"""Given to prune, so that none of ``default_args`` selects some series: the connection of the dumps would select one
database."""

_LIMITS = ("pool", "max_active_tis_per_dag", "max_active_tis_per_dagrun")

_OF_GLOBALS_TOO = ("recipients", "labels", "role", "max_replay_lag", "max_bytes_per_second", "deadline")
"""The parameters of a dump that hold for the globals of its set."""


@task_group(tooltip="discover, one dump for each database, backup set")
def pg_cluster_backup(
    *,
    repository: str,
    postgres_conn_id: str | None = None,
    server: str | None = None,
    databases: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    aws_conn_id: str | None = AWS_DEFAULT,
    init_repository: bool | str = False,
    with_globals: bool = True,
    level: str = "archive",
    verify_while_dumping: bool = False,
    verify_deadline: float | timedelta | None = None,
    upload_to: str | None = None,
    upload_aws_conn_id: str | None = AWS_DEFAULT,
    upload_extra_args: Mapping[str, Any] | None = None,
    discover: Parameters | None = None,
    globals: Parameters | None = None,
    verify: Parameters | None = None,
    upload: Parameters | None = None,
    backup_set: Parameters | None = None,
    prune: Parameters | None = None,
    **dump: Any,
) -> BaseOperator:
    """Back up all databases of a server: find them when the run starts, dump roles and tablespaces, dump, verify and
    upload each database in mapped tasks, and tie the backups together as a backup set.

    A database that fails does not hold up the others; the set is then partial, and its task fails with one error that
    names what is missing. The databases of a set are **not one snapshot**: each is dumped at its own time.

    :param repository: the repository for the dumps; every worker must see it.
    :param postgres_conn_id: a connection of type ``postgres``; by default that of ``default_args``, or
        ``postgres_default``.
    :param server: the first part of the series, by default the connection id.
    :param databases: names and patterns of the databases to dump; see
        :class:`~airflow_pgbackup.operators.discover.PgDiscoverOperator`.
    :param exclude: names and patterns of those to leave out.
    :param aws_conn_id: for ``repository``, if it is on S3; by default that of ``default_args``, or ``aws_default``.
    :param init_repository: create the repositories if they do not exist. For the first use only.
    :param with_globals: dump roles and tablespaces too, with ``pg_dumpall --globals-only``; role passwords only if the
        server lets this role read them.
    :param level: the level of the verification; only a verified backup is uploaded and part of the set.
    :param verify_while_dumping: decode each dump while it is written, as in
        :func:`~airflow_pgbackup.pipelines.database.pg_backup`.
    :param verify_deadline: the deadline of each verification.
    :param upload_to: the second repository; it gets a set too. None copies nothing.
    :param upload_aws_conn_id: for ``upload_to``.
    :param upload_extra_args: boto3's ``ExtraArgs`` for the upload.
    :param discover: further parameters of :class:`~airflow_pgbackup.operators.discover.PgDiscoverOperator`.
    :param globals: further parameters of the :class:`~airflow_pgbackup.operators.dump_all.PgDumpAllOperator` for the
        globals.
    :param verify: further parameters of each :class:`~airflow_pgbackup.operators.verify.PgBackupVerifyOperator`;
        ``{"max_active_tis_per_dagrun": 2}`` verifies 2 databases of a run at once, by default 4. ``checks`` apply
        to the databases only.
    :param upload: further parameters of each :class:`~airflow_pgbackup.operators.upload.PgBackupUploadOperator`,
        limited in the same way.
    :param backup_set: further parameters of :class:`~airflow_pgbackup.operators.backup_set.PgBackupSetOperator`.
    :param prune: the retention policy of the server's backups and sets in ``repository``, ``{"keep_daily": 7}``, and
        further parameters of :class:`~airflow_pgbackup.operators.prune.PgBackupPruneOperator`. The task is a teardown:
        it also runs after a failure, and does not fail the run itself. None deletes nothing.
    :param dump: all other parameters of :class:`~airflow_pgbackup.operators.dump.PgDumpOperator`, the same for each
        database: ``format="directory"``, ``jobs=4``, ``pool="pgbackup_main"``, ``max_active_tis_per_dag=2``. Unless one
        of these limits is given, 4 databases of a run are dumped at once. ``recipients``, ``labels``, ``role``,
        ``max_replay_lag``, ``max_bytes_per_second`` and ``deadline`` apply to the globals too.
    :return: the task of the set.
    """
    if "database" in dump:
        raise ConfigurationError("database does not select from a cluster", hint="Pass databases, a list of names.")
    # None is not passed on, so that default_args apply.
    source = {"postgres_conn_id": postgres_conn_id, "server": server}
    source = {name: value for name, value in source.items() if value is not None}
    place = given(repository=repository, aws_conn_id=aws_conn_id)
    copies = given(destination_aws_conn_id=upload_aws_conn_id)
    found = PgDiscoverOperator(
        **{
            "task_id": "discover",
            **source,
            "databases": databases,
            "exclude": exclude,
            **place,
            "destination": upload_to,
            **copies,
            "init_repository": init_repository,
            **(discover or {}),
        }
    )
    common: dict[str, Any] = {
        **source,
        **place,
        "repository_uuid": XComArg(found, REPOSITORY_UUID),
        "verify": "archive" if as_flag("verify_while_dumping", verify_while_dumping) else None,
    }
    after: dict[str, Any] = {
        "level": level,
        "verify": {"deadline": verify_deadline, **(verify or {})},
        "upload_to": upload_to,
        "upload": {**copies, "extra_args": upload_extra_args, **(upload or {})},
    }
    of_set: dict[str, Any] = {}
    ends: list[Any] = []

    if as_flag("with_globals", with_globals):

        @task_group(group_id="globals", tooltip="roles and tablespaces")
        def dump_globals() -> None:
            shared = {name: value for name, value in dump.items() if name in _OF_GLOBALS_TOO}
            parameters = {"globals_only": True, "passwords_if_allowed": True, **common, **shared, **(globals or {})}
            made = PgDumpAllOperator(task_id="dump", **parameters)
            without_checks = {name: value for name, value in after["verify"].items() if name != "checks"}
            rest = verified_and_uploaded(made, **{**after, "verify": without_checks})
            of_set["globals_backup"] = made.output
            of_set["globals_copy"] = rest[1].output if upload_to else None
            ends.append(rest[-1])

        dump_globals()

    @task_group(group_id="databases", tooltip="one database")
    def dump_database(database: str) -> None:
        made = PgDumpOperator(task_id="dump", database=database, **{**common, **_limited(dump)})
        limited = {name: _limited(after[name]) for name in ("verify", "upload")}
        rest = verified_and_uploaded(made, **{**after, **limited})
        of_set["backups"] = made.output
        of_set["copies"] = rest[1].output if upload_to else ()

    ends.append(dump_database.expand_kwargs(found.output))
    tied = PgBackupSetOperator(
        **{
            "task_id": "set",
            "discovery": XComArg(found, DISCOVERY),
            **place,
            "destination": upload_to,
            **copies,
            "with_globals": with_globals,
            "minimum_level": level,
            # Not all_done: without a discovery there is nothing to tie together, and one failure says enough.
            "trigger_rule": "all_done_min_one_success",
            **of_set,
            **(backup_set or {}),
        }
    )
    ends >> tied
    if prune is not None:
        pruned = prune_task(
            prune,
            **place,
            server=found.server or found.postgres_conn_id,
            **_WHOLE_SERVER,
            minimum_level=level,
        )
        # Without on_failure_fail_dagrun: with it, Airflow takes the state of the run from this task and not from the
        # set (DagRun._tis_for_dagrun_state), so that a run without its backups would be a success.
        tied >> pruned.as_teardown()
    return tied


def _limited(parameters: Parameters) -> Parameters:
    """Return the parameters of a mapped task, with the default limit unless they have one."""
    if any(name in parameters for name in _LIMITS):
        return parameters
    return {"max_active_tis_per_dagrun": AT_ONCE, **parameters}
