"""PgBackupPruneOperator: delete the backups that the retention policy does not keep."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.links import PlaceOnPage
from airflow_pgbackup.operators._base import PgBackupOperator, is_true
from airflow_pgbackup.operators._map_label import as_label

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.repository.retention import Policy


_RULES = (
    "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within",
    "keep_labels",
)  # fmt: skip


class PgBackupPruneOperator(PgBackupOperator):
    """Delete the backups that no rule keeps, for each series separately, and sweep the leftovers of crashes.

    Only backups verified at ``minimum_level`` count; until one counts, none is deleted. Never deleted are the newest
    backup of a series, the newest ``keep_at_least`` that count, what is pinned or locked by the store, and what is in
    the newest complete backup set of a server. ``docs/reference/retention.md`` explains the rules.

    The task returns the plan without the backups that are kept:
    ``{"kept": 12, "removed": 3, "bytes": 4096, "decisions": [{"series", "id", "started_at", "size", "state",
    "verified", "keep", "reasons"}], "leftovers": […], "notes": […], …}``.
    With ``delete=False`` each decision is logged with its reasons.

    :param repository: ``s3://bucket/prefix`` or ``file:///directory``.
    :param delete: True deletes; False only reports what would be deleted. There is no default. (It is not called
        ``dry_run``, which is a method of every operator.)
    :param sweep_only: delete no backup, only sweep the leftovers of crashes; takes no ``keep_…``. For a task that does
        not wait for a freshness sensor.
    :param server: only the series of this server, as the dump operators name it: a connection id by default.
    :param databases: only these databases of ``server``; an empty list selects none.
    :param postgres_conn_id: only the database of this connection, if ``databases`` is None, and by default its
        ``server``. Nothing connects to it.
    :param cluster: only, or also, the pg_dumpall backups of ``server``.
    :param scopes: only, or also, its pg_dumpall backups of ``globals``, ``roles`` or ``tablespaces`` alone.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param keep_last: keep this many of the newest backups.
    :param keep_hourly: keep the newest backup of each of the last N hours that have one. ``keep_daily``,
        ``keep_weekly`` (ISO weeks), ``keep_monthly`` and ``keep_yearly`` do the same for their periods.
    :param keep_within: keep backups within this timedelta of the newest.
    :param replace_after: delete a backup only when those that replace it have been stored for this timedelta, by the
        store's clock; see ``docs/guides/append-only.md``.
    :param keep_at_least: keep at least this many backups that count.
    :param keep_labels: also keep every backup with one of these labels; ``*`` and ``?`` are wildcards.
    :param minimum_level: the level at which a backup must be verified to count: ``integrity``, ``archive`` or
        ``restore``; None: every backup counts that has not failed.
    :param time_zone: the time zone in which days and hours begin, ``Europe/Berlin``.
    :param grace: how long a leftover must not have grown before it is swept; at least an hour.
    """

    template_fields: Sequence[str] = (
        "repository",
        "delete",
        "sweep_only",
        "server",
        "databases",
        "postgres_conn_id",
        "cluster",
        "scopes",
        "keep_labels",
        "aws_conn_id",
        "minimum_level",
        "time_zone",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(("databases", "scopes", "keep_labels"), "json")

    def __init__(
        self,
        *,
        repository: str,
        delete: bool | str,
        sweep_only: bool | str = False,
        server: str | None = None,
        databases: Sequence[str] | XComArg | None = None,
        postgres_conn_id: str | None = None,
        cluster: bool | str = False,
        scopes: Sequence[str] = (),
        aws_conn_id: str | None = "aws_default",
        keep_last: int = 0,
        keep_hourly: int = 0,
        keep_daily: int = 0,
        keep_weekly: int = 0,
        keep_monthly: int = 0,
        keep_yearly: int = 0,
        keep_within: timedelta | None = None,
        replace_after: timedelta | None = None,
        keep_at_least: int = 1,
        keep_labels: Sequence[str] = (),
        minimum_level: str | None = "archive",
        time_zone: str = "UTC",
        grace: timedelta = timedelta(hours=24),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.delete = delete
        self.sweep_only = sweep_only
        self.server = server
        self.databases = databases
        self.postgres_conn_id = postgres_conn_id
        self.cluster = cluster
        self.scopes = scopes
        self.aws_conn_id = aws_conn_id
        self.keep_last = keep_last
        self.keep_hourly = keep_hourly
        self.keep_daily = keep_daily
        self.keep_weekly = keep_weekly
        self.keep_monthly = keep_monthly
        self.keep_yearly = keep_yearly
        self.keep_within = keep_within
        self.replace_after = replace_after
        self.keep_at_least = keep_at_least
        self.keep_labels = keep_labels
        self.minimum_level = minimum_level
        self.time_zone = time_zone
        self.grace = grace

    @property
    def map_label(self) -> str:
        return as_label(self.server or self.postgres_conn_id or self.repository)

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.prune import prune
        from airflow_pgbackup.backup.series_selection import SeriesSelection
        from airflow_pgbackup.hooks.repository import open_repository

        repository = open_repository(self.repository, self.aws_conn_id, cancel=run.cancel)
        selected = SeriesSelection(
            server=self.server or self.postgres_conn_id,
            databases=self._databases(),
            cluster=is_true("cluster", self.cluster),
            scopes=self.scopes,
        )
        named = selected.named() or []
        self.place_on_page = PlaceOnPage(repository.uri, named[0].path if len(named) == 1 else None)
        plan = prune(
            repository=repository,
            policy=self._policy(),
            dry_run=not is_true("delete", self.delete),
            series=selected,
            grace=self.grace,
            context=run,
        )
        # Most backups are kept, and the same every day: they do not belong in Airflow's database.
        decisions: list[dict[str, object]] = plan.pop("decisions")  # type: ignore[assignment]
        return {**plan, "decisions": [decision for decision in decisions if not decision["keep"]]}

    def _databases(self) -> Sequence[str] | None:
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook

        if self.databases is not None or self.postgres_conn_id is None:
            return self.databases  # type: ignore[return-value]  # rendered: an XComArg is a list now
        if database := PgBackupHook(self.postgres_conn_id).get_conninfo().dbname:
            return [database]
        raise ConfigurationError(
            f"no database given for connection {self.postgres_conn_id}, so its backups cannot be pruned",
            hint="Set databases, or the connection's schema.",
        )

    def _policy(self) -> Policy | None:
        from airflow_pgbackup.repository.retention import Policy

        if is_true("sweep_only", self.sweep_only):
            if given := sorted(name for name in _RULES if getattr(self, name)):
                raise ConfigurationError(
                    f"{given[0]} cannot be combined with sweep_only",
                    hint="Leave it out, or use a separate task: sweep_only deletes no backup.",
                )
            return None
        return Policy(
            keep_last=self.keep_last,
            keep_hourly=self.keep_hourly,
            keep_daily=self.keep_daily,
            keep_weekly=self.keep_weekly,
            keep_monthly=self.keep_monthly,
            keep_yearly=self.keep_yearly,
            keep_within=self.keep_within,
            replace_after=self.replace_after,
            keep_at_least=self.keep_at_least,
            keep_labels=self.keep_labels,
            minimum_level=self.minimum_level,
            time_zone=self.time_zone,
        )
