"""PgBackupRewrapOperator: encrypt a backup to other recipients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.operators._base import PgBackupOperator, repository_of

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_pgbackup.backup.context import RunContext


class PgBackupRewrapOperator(PgBackupOperator):
    """Encrypt a backup to other recipients, as a new backup beside the old one; a plain one becomes encrypted.

    Each file is decrypted, compared with the manifest and encrypted to the new recipients in one pass; verifications of
    the dump are carried over. The old backup stays until it is pruned. A second run finds the new one. The task returns
    its reference.

    :param backup: a reference: what a dump, verify or upload task returned, ``backup=verify.output``.
    :param recipients: the new public keys of age, ``["age1…"]`` or SSH keys; by default ``[pgbackup] recipients``.
    :param identity_conn_id: of an encrypted backup: a connection whose password is the secret key of an old recipient;
        by default ``[pgbackup] identity_conn_id``.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    """

    template_fields = ("backup", "recipients", "identity_conn_id", "aws_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"backup": "json", "recipients": "json"}

    def __init__(
        self,
        *,
        backup: Mapping[str, object] | XComArg,
        recipients: Sequence[str] | None = None,
        identity_conn_id: str | None = None,
        aws_conn_id: str | None = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup = backup
        self.recipients = recipients
        self.identity_conn_id = identity_conn_id
        self.aws_conn_id = aws_conn_id

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.rewrap import rewrap
        from airflow_pgbackup.hooks.repository import open_repository

        backup: Any = self.backup  # rendered: the XComArg is a reference now
        repository = open_repository(repository_of(backup), self.aws_conn_id, cancel=run.cancel)
        self._note(read=backup)
        rewrapped = rewrap(reference=backup, repository=repository, context=run)
        self._link_to(repository, rewrapped)
        self._note(wrote=rewrapped)
        return rewrapped
