"""PgRestoreSetOperator: restore the roles and databases of a backup set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.operators._base import PgBackupOperator, is_true, whole_number, with_lists

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext


class PgRestoreSetOperator(PgBackupOperator):
    """Restore a backup set: the roles and tablespaces, then its databases, several at a time.

    Nothing is replaced: a database of the same name on the server fails the task before anything is changed. Each
    database is restored completely or not at all, and one that fails does not hold up the others; a retry, or a second
    run, restores the rest. The databases of a set are not one snapshot. The task returns what
    :func:`airflow_pgbackup.backup.sets.restore_set.restore_set` does.

    :param repository: the repository, ``s3://bucket/prefix`` or ``file:///directory``.
    :param server: the server's name in the repository: the first part of its series.
    :param set_id: the set's id or the unique beginning of one, a date (``2026-11-20``: the newest of that day, UTC), or
        ``latest``, the newest complete set of which no backup has failed.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param identity_conn_id: of an encrypted backup: a connection whose password is the secret key of a recipient; by
        default ``[pgbackup] identity_conn_id``.
    :param postgres_conn_id: the server to restore into, with a user that may create databases, and roles for the
        globals.
    :param prefix: put before the names of the databases; with ``restored_`` they are restored beside those that exist.
    :param databases: only these databases of the set; by default all.
    :param with_globals: restore the roles and tablespaces first; those that exist are reported and not changed.
    :param update_passwords: set the passwords of existing roles to those of the backup, except that of the
        connection's own user.
    :param no_tablespaces: create no tablespaces, and put everything into the default one.
    :param parallel_databases: databases to restore at the same time.
    :param jobs: processes of pg_restore for each new database.
    :param allow_older_server: restore dumps of a newer major version of PostgreSQL, which may fail.
    :param analyze: run ANALYZE in each database, for the planner's statistics.
    :param plan_only: a dry run: check everything, log and return the plan, and change nothing.
    :param deadline: a limit for each database, in seconds or as a timedelta; None means no limit.
    """

    template_fields = (
        "repository", "server", "set_id", "aws_conn_id", "identity_conn_id", "postgres_conn_id", "prefix", "databases",
        "with_globals", "update_passwords", "no_tablespaces", "parallel_databases", "jobs", "allow_older_server",
        "analyze", "plan_only",
    )  # fmt: skip

    template_fields_renderers: ClassVar[dict[str, str]] = {"databases": "json"}

    def __init__(
        self,
        *,
        repository: str,
        server: str,
        set_id: str = "latest",
        aws_conn_id: str | None = "aws_default",
        identity_conn_id: str | None = None,
        postgres_conn_id: str = "postgres_default",
        prefix: str = "",
        databases: Sequence[str] = (),
        with_globals: bool | str = True,
        update_passwords: bool | str = False,
        no_tablespaces: bool | str = False,
        parallel_databases: int | str = 2,
        jobs: int | str = 1,
        allow_older_server: bool | str = False,
        analyze: bool | str = True,
        plan_only: bool | str = False,
        deadline: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.server = server
        self.set_id = set_id
        self.aws_conn_id = aws_conn_id
        self.identity_conn_id = identity_conn_id
        self.postgres_conn_id = postgres_conn_id
        self.prefix = prefix
        self.databases = databases
        self.with_globals = with_globals
        self.update_passwords = update_passwords
        self.no_tablespaces = no_tablespaces
        self.parallel_databases = parallel_databases
        self.jobs = jobs
        self.allow_older_server = allow_older_server
        self.analyze = analyze
        self.plan_only = plan_only
        self.deadline = deadline

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.sets.restore_set import restore_set
        from airflow_pgbackup.backup.sets.restore_set_plan import SetTarget
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook
        from airflow_pgbackup.hooks.repository import open_repository

        target = SetTarget(
            connection=self._connected(PgBackupHook(self.postgres_conn_id).get_conninfo(), reads=False),
            prefix=self.prefix,
            **with_lists({"databases": self.databases}),
            with_globals=is_true("with_globals", self.with_globals),
            update_passwords=is_true("update_passwords", self.update_passwords),
            no_tablespaces=is_true("no_tablespaces", self.no_tablespaces),
            jobs=whole_number("parallel_databases", self.parallel_databases, 1),
            jobs_per_database=whole_number("jobs", self.jobs, 1),
            allow_older_server=is_true("allow_older_server", self.allow_older_server),
        )
        return restore_set(
            repository=open_repository(self.repository, self.aws_conn_id, cancel=run.cancel),
            server=self.server,
            selector=self.set_id,
            target=target,
            analyze=is_true("analyze", self.analyze),
            dry_run=is_true("plan_only", self.plan_only),
            context=run,
        )
