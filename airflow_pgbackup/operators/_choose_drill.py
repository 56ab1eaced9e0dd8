"""The task that chooses which backups a fleet's drill rehearses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_pgbackup.operators._base import PgBackupOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext


class ChooseDrillOperator(PgBackupOperator):
    """Choose which series of a server to rehearse now, and return references to their newest backups, to expand over.

    The parameters are those of :func:`airflow_pgbackup.backup.drill.choose_drill`.
    """

    template_fields = ("repository", "aws_conn_id", "server")

    def __init__(
        self, *, repository: str, aws_conn_id: str | None = "aws_default", server: str, max_bytes: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.aws_conn_id = aws_conn_id
        self.server = server
        self.max_bytes = max_bytes

    def execute(self, context: Context) -> Any:  # a list, to expand over
        return super().execute(context)["chosen"]

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.drill import choose_drill
        from airflow_pgbackup.hooks.repository import open_repository

        repository = open_repository(self.repository, self.aws_conn_id, cancel=run.cancel)
        return {"chosen": choose_drill(repository, server=self.server, max_bytes=self.max_bytes, log=run.log)}
