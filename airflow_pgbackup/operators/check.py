"""PgBackupCheckOperator: find what would prevent or compromise a backup, before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.errors import ConfigurationError, OptionError, PgBackupError
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.operators._base import PgBackupOperator, is_true, with_lists
from airflow_pgbackup.operators._map_label import as_label
from airflow_pgbackup.text import did_you_mean, printing

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository

_SEVERITIES = ("error", "warning")
_FAIL_ON = (*_SEVERITIES, "never")


class PgBackupCheckOperator(PgBackupOperator):
    """Find everything that would prevent or compromise a backup: privileges, locks, versions, disk space, databases
    without a backup.

    The log lists every finding with its hint. The task fails on errors. It returns
    ``{"errors": 0, "warnings": 2, "findings": [{"severity", "code", "message", "hint", "objects", "database"}, …]}``.
    Nothing is dumped; a small test file is written to the repository and deleted.

    :param postgres_conn_id: as for the dump.
    :param database: the database to check, instead of the connection's own.
    :param repository: where the dump would go; None checks only the server.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param server: the first part of the series name, by default the connection id.
    :param cluster: check for a dump of all databases by pg_dumpall instead of one database by pg_dump.
    :param options: of the dump, named as in the dump operators: ``{"schemas": ["app"], "jobs": 4}``.
    :param scan_rows: also read every table, for rows that no restore accepts; this takes as long and loads the server
        as much as a few dumps.
    :param init_repository: create the repository if it does not exist, as the dump would. For its first use only.
    :param fail_on: ``error``: fail on errors; ``warning``: also on warnings; ``never``.
    """

    template_fields = (
        "postgres_conn_id",
        "database",
        "repository",
        "aws_conn_id",
        "server",
        "cluster",
        "options",
        "scan_rows",
        "init_repository",
        "fail_on",
    )

    template_fields_renderers: ClassVar[dict[str, str]] = {"options": "json"}

    def __init__(
        self,
        *,
        postgres_conn_id: str = "postgres_default",
        database: str | None = None,
        repository: str | None = None,
        aws_conn_id: str | None = "aws_default",
        server: str | None = None,
        cluster: bool | str = False,
        options: Mapping[str, Any] | None = None,
        scan_rows: bool | str = False,
        init_repository: bool | str = False,
        fail_on: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.postgres_conn_id = postgres_conn_id
        self.database = database
        self.repository = repository
        self.aws_conn_id = aws_conn_id
        self.server = server
        self.cluster = cluster
        self.options = options
        self.scan_rows = scan_rows
        self.init_repository = init_repository
        self.fail_on = fail_on

    @property
    def map_label(self) -> str:
        return as_label(self.server or self.postgres_conn_id, self.database)

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook
        from airflow_pgbackup.quantities import counted

        if self.fail_on not in _FAIL_ON:
            raise ConfigurationError(f"invalid fail_on {self.fail_on!r}", hint=f"Choose one of {', '.join(_FAIL_ON)}.")
        findings = PgBackupHook(self.postgres_conn_id, self.database).check(
            repository=self._repository(run.cancel),
            options=self._dump_options(),
            scan_rows=is_true("scan_rows", self.scan_rows),
            server=self.server,
            context=run,
        )
        for finding in findings:
            printing(self.log.error if finding.severity == "error" else self.log.warning)(str(finding))
        if not findings:
            self.log.info("no problems found")
        counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _SEVERITIES}
        failing = [one for one in findings if one.severity == "error" or self.fail_on == "warning"]
        if failing and self.fail_on != "never":
            raise PgBackupError(
                "check found "
                + " and ".join(counted(count, name) for name, count in counts.items() if count)
                + f": {'; '.join(finding.message for finding in failing)}",
                hint=failing[0].hint if len(failing) == 1 else "The log has a hint for each.",
            )
        return {
            "errors": counts["error"],
            "warnings": counts["warning"],
            "findings": [finding.as_json() for finding in findings],
        }

    def _repository(self, cancel: Cancel) -> Repository | None:
        from airflow_pgbackup.hooks.repository import open_repository

        uri = not_empty("repository", self.repository)
        if uri is None:
            return None
        repository = open_repository(uri, self.aws_conn_id, cancel=cancel)
        if is_true("init_repository", self.init_repository):
            repository.init()
        return repository

    def _dump_options(self) -> DumpOptions | DumpAllOptions:
        from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions

        kind = DumpAllOptions if is_true("cluster", self.cluster) else DumpOptions
        known = [*kind.table(), "extra_args"]
        for name in self.options or {}:
            if name not in known:
                raise OptionError(
                    f"unknown {kind.tool} option {name!r} in options",
                    hint=did_you_mean(name, known, "The dump operator's page lists the options."),
                )
        return kind(**with_lists(self.options or {}))
