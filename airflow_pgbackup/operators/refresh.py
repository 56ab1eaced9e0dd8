"""PgRefreshOperator: give a database the contents of a verified backup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.assets import REFRESHED, emit_refreshed, refreshed_asset
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.operators._base import PgBackupOperator, is_true, whole_number
from airflow_pgbackup.operators._choose_backup import backup_of_event, chosen_backup
from airflow_pgbackup.operators._map_label import as_label, series_label

if TYPE_CHECKING:
    from airflow.sdk import AssetAlias, Context, XComArg

    from airflow_pgbackup.backup.context import RunContext


class PgRefreshOperator(PgBackupOperator):
    """Give a database, such as staging, the contents of a verified backup; the old contents stay in use until the swap.

    The backup is restored into a new database beside the old one, under a temporary name, and nobody else may connect
    to it. At the end one transaction swaps the two. The owners, grants, default privileges, settings, limits and
    comment of the old database are re-applied; those of the backup are not restored. A failure or a kill at any time
    leaves the old database serving. The task returns what :func:`airflow_pgbackup.backup.refresh.refresh` does, and
    emits an event of :func:`~airflow_pgbackup.assets.refreshed_asset`.

    :param backup: a reference: what a dump, verify or upload task returned, ``backup=verify.output``. Without one, the
        backup of the asset event that started the run; without such an event, ``repository`` and ``series`` choose.
    :param repository: the repository to choose a backup from, ``s3://bucket/prefix`` or ``file:///directory``. An
        event of a backup in another repository fails the task; without this parameter, any repository will do.
    :param series: its series, ``prod/dvdrental``; events of other series are ignored.
    :param backup_id: its id or the unique beginning of one, a date (``2026-11-20``: the newest of that day, UTC), or
        ``latest``, the newest that is verified at ``minimum_level``.
    :param minimum_level: the level at which the backup must be verified, as its repository proves: ``integrity``,
        ``archive`` or ``restore``.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param postgres_conn_id: the server; the connection's database is the one to refresh. Its user must be able to
        create databases, and own the database or be a superuser.
    :param database: the database to refresh, instead of the connection's own. It must exist.
    :param rules: a file of masking rules, which the worker reads; see the guide *Masking*. None copies rows
        as they are; an empty string is an error.
    :param masking_key_conn_id: a connection whose password is the key of the masks; by default
        ``[pgbackup] masking_key_file``. It needs ``rules``.
    :param subset: restore a part of the backup: a mapping with ``where`` (tables to SQL expressions that select rows),
        ``schemas``, ``tables``, ``exclude_tables`` (lists of patterns); an empty mapping
        restores all of it. See the guide *Staging from a verified backup*.
    :param checks: SQL that must be true in the new database before the swap, as in
        :class:`~airflow_pgbackup.operators.verify.PgBackupVerifyOperator`.
    :param identity_conn_id: of an encrypted backup: a connection whose password is the secret key of a recipient; by
        default ``[pgbackup] identity_conn_id``.
    :param keep: earlier copies to keep, under names such as ``staging_before_20261127T020000Z``; older ones are
        dropped.
    :param jobs: processes of pg_restore for rows and indexes; custom and directory formats.
    :param terminate_sessions: end the sessions in the old database at the swap; False fails if there are any.
    :param maintenance_database: the database to connect to while databases are created and renamed; None tries
        ``postgres``, then ``template1``.
    :param allow_older_server: restore a dump of a newer major version of PostgreSQL, which may fail.
    :param plan_only: a dry run: read and check the backup and the target, log and return what would be done, and change
        nothing. It does not check masking rules and the expressions of a subset, which need the restored definitions.
    :param deadline: a limit for the refresh as a whole, in seconds or as a timedelta; None means no limit.
    """

    template_fields = (
        "backup", "repository", "series", "backup_id", "minimum_level", "aws_conn_id", "postgres_conn_id", "database",
        "rules", "masking_key_conn_id", "subset", "checks", "identity_conn_id", "keep", "jobs", "terminate_sessions",
        "maintenance_database", "allow_older_server", "plan_only",
    )  # fmt: skip

    template_fields_renderers: ClassVar[dict[str, str]] = {"backup": "json", "subset": "json", "checks": "json"}

    _emits: ClassVar[AssetAlias | None] = REFRESHED

    def __init__(
        self,
        *,
        backup: Mapping[str, object] | XComArg | None = None,
        repository: str | None = None,
        series: str | None = None,
        backup_id: str = "latest",
        minimum_level: str = "archive",
        aws_conn_id: str | None = "aws_default",
        postgres_conn_id: str = "postgres_default",
        database: str | None = None,
        rules: str | None = None,
        masking_key_conn_id: str | None = None,
        subset: Mapping[str, object] | None = None,
        checks: Sequence[Mapping[str, Any] | str] = (),
        identity_conn_id: str | None = None,
        keep: int | str = 1,
        jobs: int | str | None = None,
        terminate_sessions: bool | str = True,
        maintenance_database: str | None = None,
        allow_older_server: bool | str = False,
        plan_only: bool | str = False,
        deadline: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.outlets = self._with_outlet(self.outlets)
        self.backup = backup
        self.repository = repository
        self.series = series
        self.backup_id = backup_id
        self.minimum_level = minimum_level
        self.aws_conn_id = aws_conn_id
        self.postgres_conn_id = postgres_conn_id
        self.database = database
        self.rules = rules
        self.masking_key_conn_id = masking_key_conn_id
        self.subset = subset
        self.checks = checks
        self.identity_conn_id = identity_conn_id
        self.keep = keep
        self.jobs = jobs
        self.terminate_sessions = terminate_sessions
        self.maintenance_database = maintenance_database
        self.allow_older_server = allow_older_server
        self.plan_only = plan_only
        self.deadline = deadline

    @property
    def map_label(self) -> str:
        return as_label(self.postgres_conn_id, self.database) if self.database else as_label(series_label(self.series))

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.masking import load_rules
        from airflow_pgbackup.backup.refresh import refresh
        from airflow_pgbackup.backup.subset import Subset
        from airflow_pgbackup.hooks.identities import masking_key_of
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook

        rules = key = None
        if (file := not_empty("rules", self.rules)) is not None:
            rules = load_rules(Path(file))
        if (conn_id := not_empty("masking_key_conn_id", self.masking_key_conn_id)) is not None:
            key = masking_key_of(conn_id)
        subset = not_empty("subset", self.subset)

        if self.backup is None:
            self.backup = backup_of_event(self, context, run.cancel)
        repository, reference = chosen_backup(self, run.cancel)
        self._link_to(repository, reference)
        self._note(read=reference)
        return refresh(
            reference=reference,
            repository=repository,
            target=self._connected(PgBackupHook(self.postgres_conn_id, self.database).get_conninfo(), reads=False),
            rules=rules,
            masking_key=key,
            subset=None if subset is None else Subset.of(subset),
            checks=self.checks,
            minimum_level=self.minimum_level,
            keep=whole_number("keep", self.keep, 0),
            jobs=None if self.jobs is None else whole_number("jobs", self.jobs, 1),
            terminate_sessions=is_true("terminate_sessions", self.terminate_sessions),
            maintenance_database=self.maintenance_database,
            allow_older_server=is_true("allow_older_server", self.allow_older_server),
            dry_run=is_true("plan_only", self.plan_only),
            context=run,
        )

    def _emit(self, context: Context, result: dict[str, object]) -> None:
        if not result["dry_run"]:
            emit_refreshed(context, refreshed_asset(self.postgres_conn_id, str(result["database"])), result)
