"""Open repositories with Airflow connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.hooks._missing import no_connection
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from mypy_boto3_s3.client import S3Client

    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository
    from airflow_pgbackup.repository.s3.options import S3Options

DEFAULT_CONN_ID = "aws_default"


class Repositories:
    """Open the repositories of one task.

    Those of one connection share it: Airflow is asked for it once, and boto3 makes one client, which takes longer than
    the requests of a small backup.

    :param cancel: stops listings and, in S3, reads.
    """

    def __init__(self, *, cancel: Cancel | None = None) -> None:
        self._cancel = cancel
        self._hooks: dict[str, S3Hook] = {}
        self._opened: dict[str | None, Repository] = {}

    def open(
        self, uri: str, aws_conn_id: str | None = DEFAULT_CONN_ID, *, extra_args: Mapping[str, Any] | None = None
    ) -> Repository:
        """Open a repository; parameters and errors as for :func:`open_repository`."""
        from airflow_pgbackup.repository.open import open_repository as open_uri
        from airflow_pgbackup.repository.s3.options import S3Options

        if not isinstance(uri, str):
            raise ConfigurationError(
                f"invalid repository {printable(repr(uri)[:200])}",
                hint="Pass s3://bucket/prefix or file:///directory. A variable that it comes from may not be set.",
            )
        in_s3 = uri.lower().startswith("s3://")
        options = self._options(aws_conn_id, extra_args) if in_s3 else S3Options(extra_args=extra_args or {})
        opened = open_uri(uri, s3=options, cancel=self._cancel, client_of=self._opened.get(aws_conn_id))
        if in_s3:
            self._opened.setdefault(aws_conn_id, opened)
        return opened

    def _options(self, aws_conn_id: str | None, extra_args: Mapping[str, Any] | None) -> S3Options:
        from airflow_pgbackup.repository.s3.options import S3Options
        from airflow_pgbackup.settings import load

        settings = load(airflow=True)
        lock: dict[str, Any] = {"lock_for": settings.lock_for, "lock_mode": settings.lock_mode}
        if aws_conn_id is None:
            return S3Options.of_store({}, extra_args=extra_args, **lock)
        if aws_conn_id not in self._hooks:
            self._hooks[aws_conn_id] = _s3_hook(aws_conn_id)
        hook = self._hooks[aws_conn_id]
        unused = [hook]  # a hook makes its client once, and Airflow is asked for the connection once per hook

        def client() -> S3Client:
            made: S3Client = (unused.pop() if unused else _s3_hook(aws_conn_id)).get_conn()
            return made

        return S3Options.of_store(hook.service_config, extra_args=extra_args, client_factory=client, **lock)


def _s3_hook(aws_conn_id: str) -> S3Hook:
    """Return a hook with its connection, for which Airflow is asked now.

    Without the connection, S3Hook uses the worker's own credentials, and another store. Only the default id may mean
    them: the managed services of AWS have no connection of that name.
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=aws_conn_id)
    if not hook.conn_config and aws_conn_id not in ("", DEFAULT_CONN_ID):
        hint = "Create a connection of type aws with this id. For the worker's own credentials, pass None as the id."
        raise no_connection(aws_conn_id, hint)
    return hook


def open_repository(
    uri: str,
    aws_conn_id: str | None = DEFAULT_CONN_ID,
    *,
    extra_args: Mapping[str, Any] | None = None,
    cancel: Cancel | None = None,
) -> Repository:
    """Open ``file:///directory`` or ``s3://bucket/prefix``. No request is sent to S3 yet.

    The official ``S3Hook`` makes the client, so everything in the connection applies: endpoint_url, region_name,
    role_arn, verify, config_kwargs, service_config. A new client is made when its credentials have expired. The
    connection also describes the store. All tasks with that connection use it::

        {"service_config": {"s3": {"max_parts": 1000, "extra_args": {"ServerSideEncryption": "aws:kms"}}}}

    ``"lock_for": "30d"`` and ``"lock_mode"`` there take precedence over the settings of those names.

    :param aws_conn_id: a connection of type ``aws``; None is boto3's own chain. ``file://`` does not use it.
    :param extra_args: boto3's ``ExtraArgs`` (encryption, storage class, tags, ``ChecksumAlgorithm`` …); they take
        precedence over those of the connection.
    :param cancel: stops listings and, in S3, reads.
    :raises ConfigurationError: an unknown kind of URI or extra argument, or a limit out of range; no connection with
        that id, unless it is ``aws_default``, which then means boto3's own chain.
    """
    return Repositories(cancel=cancel).open(uri, aws_conn_id, extra_args=extra_args)
