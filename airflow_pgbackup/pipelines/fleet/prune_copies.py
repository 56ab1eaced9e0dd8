"""The task of a mapping that prunes the copies of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.operators.prune import PgBackupPruneOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext


class PruneCopiesOperator(PgBackupPruneOperator):
    """Prune the copies of a server, but refuse to prune the repository of the originals, which has its own policy.

    Another URI may lead to the same repository, so their UUIDs are compared. The module is not in ``operators``, so
    that the metrics of this task are those of prune.

    :param originals: the repository of the originals.
    :param originals_aws_conn_id: for ``originals``.
    """

    template_fields = (*PgBackupPruneOperator.template_fields, "originals", "originals_aws_conn_id")

    def __init__(self, *, originals: str, originals_aws_conn_id: str | None = "aws_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.originals = originals
        self.originals_aws_conn_id = originals_aws_conn_id

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.hooks.repository import open_repository

        copies = open_repository(self.repository, self.aws_conn_id, cancel=run.cancel)
        if copies.uuid == open_repository(self.originals, self.originals_aws_conn_id, cancel=run.cancel).uuid:
            raise ConfigurationError(
                f"the copies' repository {self.repository} is that of the originals; nothing was deleted",
                hint="Give upload_to another repository.",
            )
        return super()._run(context, run)
