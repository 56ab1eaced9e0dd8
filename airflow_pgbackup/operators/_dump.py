"""The common base of PgDumpOperator and PgDumpAllOperator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_pgbackup.assets import DUMPED, VERIFIED, emit, with_alias
from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.operators._base import PgBackupOperator, is_true, with_lists
from airflow_pgbackup.time_spans import seconds_of_lag

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.postgres.options.tool import ToolOptions
    from airflow_pgbackup.repository.base import Repository

    Options = TypeVar("Options", bound=ToolOptions)

COMMON_FIELDS = (
    "postgres_conn_id",
    "database",
    "repository",
    "aws_conn_id",
    "server",
    "artifact_template",
    "labels",
    "init_repository",
    "max_replay_lag",
    "repository_uuid",
    "max_bytes_per_second",
    "recipients",
    "verify",
)


class DumpOperator(PgBackupOperator):
    """The base of the two dump operators."""

    _emits = DUMPED

    postgres_conn_id: str
    database: str | None
    repository: str
    aws_conn_id: str | None
    server: str | None
    artifact_template: str
    labels: Sequence[str]
    deadline: float | timedelta | None
    init_repository: bool | str
    max_replay_lag: float | str | timedelta | None
    repository_uuid: str | None
    max_bytes_per_second: float | str | None
    verify: str | None

    def _repository(self) -> Repository:
        from airflow_pgbackup.hooks.repository import open_repository

        repository = open_repository(self.repository, self.aws_conn_id, cancel=self._cancel)
        if is_true("init_repository", self.init_repository):
            repository.init()
        if (uuid := not_empty("repository_uuid", self.repository_uuid)) is not None:
            repository.require(uuid)
        return repository

    def _options(self, kind: type[Options]) -> Options:
        """Return the tool's options, from the attributes of the same names."""
        from airflow_pgbackup.backup.throttle import rate_of
        from airflow_pgbackup.settings import Settings

        if self.verify not in (None, "archive"):
            raise OptionError(
                f"a dump cannot be verified at level {self.verify!r} while it is written",
                hint="Choose verify='archive', or verify it in a task of its own (PgBackupVerifyOperator).",
            )
        options = kind(**with_lists({name: getattr(self, name) for name in (*kind.table(), "extra_args")}))
        # Invalid ones are refused before a server is asked or a repository created.
        options.validate()
        rate_of(self.max_bytes_per_second, Settings(), format=getattr(options, "format", "plain"))
        seconds_of_lag(self.max_replay_lag)
        return options

    def _make_backup(self, verb: Callable[..., dict[str, object]], **arguments: Any) -> dict[str, object]:
        """Call the verb, and let the task's page link to the backup that it made.

        If the dump was not verified while it was written, for example because an earlier attempt had already committed
        it, it is verified afterwards.
        """
        from airflow_pgbackup.backup.verify import verify
        from airflow_pgbackup.repository.layout import reaches

        backup = verb(read_along=self.verify is not None, **arguments)
        self._link_to(arguments["repository"], backup)
        self._note(wrote=backup)
        if self.verify is not None and not reaches(backup["verified"], self.verify):
            backup = verify(reference=backup, repository=arguments["repository"], context=arguments["context"])
        return backup

    def _emit(self, context: Context, result: dict[str, object]) -> None:
        super()._emit(context, result)
        if self.verify is not None and VERIFIED in self.outlets:
            emit(context, VERIFIED, result, self.verify, asdict(self._figures))

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        made = super().partial(**kwargs)
        made.kwargs["outlets"] = cls._with_outlets(made.kwargs["outlets"], made.kwargs.get("verify"))
        return made

    @classmethod
    def _with_outlets(cls, outlets: Any, verify: object) -> list[Any]:
        """Return the outlets of a dump: the dumped asset's, and the verified one's if the dump verifies."""
        outlets = cls._with_outlet(outlets)
        return outlets if verify is None else with_alias(outlets, VERIFIED)

    def _common(self, run: RunContext) -> dict[str, Any]:
        """Return the arguments that ``dump_database`` and ``dump_cluster`` share."""
        return {
            "server": self.server or self.postgres_conn_id,
            "repository": self._repository(),
            "artifact_template": self.artifact_template,
            "labels": self.labels,
            "max_bytes_per_second": self.max_bytes_per_second,
            "max_replay_lag": self.max_replay_lag,
            "context": run,
        }
