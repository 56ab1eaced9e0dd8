"""PgBackupUploadOperator: copy a backup from one repository into another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.operators._base import PgBackupOperator, is_true, repository_of
from airflow_pgbackup.repository.s3.options import mapping

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_pgbackup.backup.context import RunContext


class PgBackupUploadOperator(PgBackupOperator):
    """Copy a backup and its verifications into another repository, usually from a local disk to S3.

    The bytes are compared with their digests on the way, and the manifest is written last, so the copy is complete or
    invisible. A second run finds the copy. The task returns the reference of the copy.

    :param backup: a reference: what a dump or verify task returned, ``backup=verify.output``.
    :param destination: the other repository, ``s3://bucket/prefix`` or ``file:///directory``.
    :param aws_conn_id: for a source on S3; None is boto3's own chain.
    :param destination_aws_conn_id: the same for the destination.
    :param extra_args: boto3's ``ExtraArgs`` for what is written: ``{"StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": …, "Tagging": "team=data", "ExpectedBucketOwner": …}``.
    :param checksum_algorithm: ``CRC32``, ``CRC32C``, ``CRC64NVME``, ``SHA1`` or ``SHA256``: the checksum by which S3
        checks each part, instead of boto3's default.
    :param minimum_level: refuse a backup that is not verified at this level or a higher one; None accepts any.
    :param init_repository: create the destination repository if it does not exist. For its first use only: while it is
        set, a mistyped URI creates a new repository instead of an error.
    """

    template_fields = (
        "backup",
        "destination",
        "aws_conn_id",
        "destination_aws_conn_id",
        "extra_args",
        "checksum_algorithm",
        "minimum_level",
        "init_repository",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"backup": "json", "extra_args": "json"}

    def __init__(
        self,
        *,
        backup: Mapping[str, object] | XComArg,
        destination: str,
        aws_conn_id: str | None = "aws_default",
        destination_aws_conn_id: str | None = "aws_default",
        extra_args: Mapping[str, Any] | None = None,
        checksum_algorithm: str | None = None,
        minimum_level: str | None = "archive",
        init_repository: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup = backup
        self.destination = destination
        self.aws_conn_id = aws_conn_id
        self.destination_aws_conn_id = destination_aws_conn_id
        self.extra_args = extra_args
        self.checksum_algorithm = checksum_algorithm
        self.minimum_level = minimum_level
        self.init_repository = init_repository

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.upload import upload
        from airflow_pgbackup.hooks.repository import Repositories

        extra_args: Mapping[str, Any] = self.extra_args or {}
        if self.checksum_algorithm is not None:
            extra_args = {**mapping("extra_args", extra_args), "ChecksumAlgorithm": self.checksum_algorithm}
        repositories = Repositories(cancel=run.cancel)
        destination = repositories.open(self.destination, self.destination_aws_conn_id, extra_args=extra_args)
        if is_true("init_repository", self.init_repository):
            destination.init()
        self._note(read=self.backup)
        uploaded = upload(
            reference=self.backup,  # type: ignore[arg-type]  # rendered: the XComArg is a reference now
            source=repositories.open(repository_of(self.backup), self.aws_conn_id),
            destination=destination,
            minimum_level=self.minimum_level,
            context=run,
        )
        self._link_to(destination, uploaded)
        self._note(wrote=uploaded)
        return uploaded
