"""PgBackupCheckOperator: what would stop or spoil a backup, before it does."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConfigurationError, OptionError, PgBackupError
from airflow_pgbackup.operators._base import PgBackupOperator, is_true
from airflow_pgbackup.text import printing

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository

_FAIL_ON = ("error", "warning", "never")


class PgBackupCheckOperator(PgBackupOperator):
    """Look for everything that would stop or spoil a backup: rights, locks, versions, room, what nobody backs up.

    Every finding is in the log with its hint, all of them at once. The task fails on errors. It returns
    ``{"errors": 0, "warnings": 2, "findings": [{"severity", "code", "message", "hint", "objects", "database"}, …]}``.
    Nothing is dumped; the repository gets a small file and loses it again.

    :param postgres_conn_id: as for the dump that is checked for.
    :param database: instead of the connection's own.
    :param repository: where the dump would go; None looks at the server only.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param server: the server's name in the repository, by default the connection id.
    :param cluster: check for a dump of all databases by pg_dumpall, not for one of a single database by pg_dump.
    :param options: of that dump, by the names that the dump operators have: ``{"schemas": ["app"], "jobs": 4}``.
    :param scan_rows: also read every table, for rows that no restore takes: as long and as much load as a few dumps.
    :param fail_on: ``error``; or ``warning``, for those too; or ``never``.
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
        "fail_on",
    )

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
        self.fail_on = fail_on

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook

        if self.fail_on not in _FAIL_ON:
            raise ConfigurationError(f"fail_on is {self.fail_on!r}", hint=f"choose one of {', '.join(_FAIL_ON)}")
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
            self.log.info("nothing is in the way of a backup")
        counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _FAIL_ON[:2]}
        failing = [one for one in findings if one.severity == "error" or self.fail_on == "warning"]
        if failing and self.fail_on != "never":
            raise PgBackupError(
                "check found "
                + " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count)
                + f": {'; '.join(finding.message for finding in failing)}",
                hint=failing[0].hint if len(failing) == 1 else "the log has a hint for each",
            )
        return {
            "errors": counts["error"],
            "warnings": counts["warning"],
            "findings": [finding.as_json() for finding in findings],
        }

    def _repository(self, cancel: Cancel) -> Repository | None:
        from airflow_pgbackup.hooks.repository import open_repository

        return open_repository(self.repository, self.aws_conn_id, cancel=cancel) if self.repository else None

    def _dump_options(self) -> DumpOptions | DumpAllOptions:
        from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions

        kind = DumpAllOptions if is_true("cluster", self.cluster) else DumpOptions
        known = [*kind.table(), "extra_args"]
        given: dict[str, Any] = {}
        for name, value in (self.options or {}).items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise OptionError(
                    f"options has {name!r}, which {kind.tool} does not have",
                    hint=f"did you mean {near[0]!r}?" if near else "the dump operator's page lists them",
                )
            # What a mapped task returned arrives as a lazy sequence.
            lazy = isinstance(value, Sequence) and not isinstance(value, str | list | tuple)
            given[name] = list(value) if lazy else value
        return kind(**given)
