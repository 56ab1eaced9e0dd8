"""PgBackupVerifyOperator: verify a backup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.assets import VERIFIED
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.operators._base import PgBackupOperator, repository_of

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams


class PgBackupVerifyOperator(PgBackupOperator):
    """Verify a backup and record the result beside it in its repository.

    If the backup fails, the task fails without a retry; if a rehearsal could not run on this worker, it fails and may
    be retried. The task returns the reference, with ``verified`` as the repository has it now, and emits an event of
    the asset that :func:`~airflow_pgbackup.assets.backup_asset` returns for this database and level.

    :param backup: a reference: what a dump, verify or upload task returned, ``backup=dump.output``.
    :param level: ``integrity``: the bytes are those that were dumped; a dump that airflow-pgbackup compressed is
        verified at ``archive`` instead. ``archive``: in addition, PostgreSQL's own reader reads them to the
        end, and the rows of each table are counted. ``restore``: in addition, the backup is restored into a throwaway
        server, and every row and definition is compared.
    :param scratch_conn_id: for level ``restore``: rehearse in a temporary database on this server, as its superuser,
        instead of in a throwaway server on the worker. For databases with extensions that the worker lacks.
    :param checks: for level ``restore`` of a database: SQL checks of the restored copy, each a SELECT that must be
        true, as text or as ``{"name": "recent orders", "sql": "select …", "required": True}``. One that is false
        fails the backup, although it restores; see the guide *SQL checks*.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param identity_conn_id: of an encrypted backup: a connection whose password is the secret key of a recipient; by
        default ``[pgbackup] identity_conn_id``. Without one, levels above ``integrity`` are *not proven*.
    :param deadline: how long reading the archive may take, in seconds or as a timedelta; by default what the
        ``[pgbackup]`` section gives for its size.
    """

    _emits = VERIFIED

    template_fields = ("backup", "level", "scratch_conn_id", "checks", "aws_conn_id", "identity_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"backup": "json", "checks": "json"}

    def __init__(
        self,
        *,
        backup: Mapping[str, object] | XComArg,
        level: str = "archive",
        scratch_conn_id: str | None = None,
        checks: Sequence[Mapping[str, Any] | str] = (),
        aws_conn_id: str | None = "aws_default",
        identity_conn_id: str | None = None,
        deadline: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.outlets = self._with_outlet(self.outlets)
        self.backup = backup
        self.level = level
        self.scratch_conn_id = scratch_conn_id
        self.checks = checks
        self.aws_conn_id = aws_conn_id
        self.identity_conn_id = identity_conn_id
        self.deadline = deadline

    @property
    def _emitted_level(self) -> str:
        return self.level

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.verify import verify
        from airflow_pgbackup.hooks.repository import open_repository

        backup: Any = self.backup  # rendered: the XComArg is a reference now
        repository = open_repository(repository_of(backup), self.aws_conn_id, cancel=run.cancel)
        self._link_to(repository, backup)
        self._note(read=backup)
        return verify(
            reference=backup,
            repository=repository,
            level=self.level,
            scratch=self._scratch(),
            checks=self.checks,
            context=run,
        )

    def _scratch(self) -> ConnectionParams | None:
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook

        conn_id = not_empty("scratch_conn_id", self.scratch_conn_id)
        return None if conn_id is None else PgBackupHook(conn_id).get_conninfo()
