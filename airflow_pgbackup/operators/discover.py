"""PgDiscoverOperator: find the databases of a server when the run starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.operators._base import PgBackupOperator, is_true, with_lists

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext

DISCOVERY = "discovery"
REPOSITORY_UUID = "repository_uuid"


class PgDiscoverOperator(PgBackupOperator):
    """Find which databases of a server to dump. The task returns one dict for each, the largest first, to expand over::

        found = PgDiscoverOperator(task_id="discover", postgres_conn_id="main", repository=REPOSITORY)
        dump = PgDumpOperator.partial(task_id="dump", postgres_conn_id="main", repository=REPOSITORY)
        dump.expand_kwargs(found.output)

    ``[{"database": "app"}, {"database": "crm"}]``. Under the XCom key ``discovery`` it also records what
    :class:`~airflow_pgbackup.operators.backup_set.PgBackupSetOperator` needs: sizes, and the databases that are left
    out or missing, with reasons; under ``repository_uuid`` the identity of the repository, for the dump operators.

    Left out are templates, databases that accept no connections and the internal ones of managed services, unless named
    exactly, and those that the patterns do not select. A database that the role may not connect to is missing, and so
    is a name in ``databases`` of one that does not exist or accepts no connections; all other databases are dumped.

    The repository is opened and written to before any dump. If it is missing, the task fails.

    :param postgres_conn_id: a connection of type ``postgres``. Its own database is the one to connect to.
    :param databases: names and patterns, as in ``pg_dumpall --exclude-database``: ``*`` and ``?`` are wildcards,
        letters are lower case unless in double quotes. A name that exists always means itself.
    :param exclude: names and patterns of databases to leave out.
    :param repository: where the dumps will go; None checks none.
    :param aws_conn_id: for an ``s3://`` repository; None is boto3's own chain.
    :param destination: a second repository that is checked as well.
    :param destination_aws_conn_id: the same for the destination.
    :param server: the first part of the series of the dumps, by default the connection id.
    :param init_repository: create the repositories if they do not exist. For the first use only.
    """

    template_fields = (
        "postgres_conn_id",
        "databases",
        "exclude",
        "repository",
        "aws_conn_id",
        "destination",
        "destination_aws_conn_id",
        "server",
        "init_repository",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"databases": "json", "exclude": "json"}

    def __init__(
        self,
        *,
        postgres_conn_id: str = "postgres_default",
        databases: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        repository: str | None = None,
        aws_conn_id: str | None = "aws_default",
        destination: str | None = None,
        destination_aws_conn_id: str | None = "aws_default",
        server: str | None = None,
        init_repository: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.postgres_conn_id = postgres_conn_id
        self.databases = databases
        self.exclude = exclude
        self.repository = repository
        self.aws_conn_id = aws_conn_id
        self.destination = destination
        self.destination_aws_conn_id = destination_aws_conn_id
        self.server = server
        self.init_repository = init_repository

    def execute(self, context: Context) -> list[dict[str, object]]:  # type: ignore[override]  # to expand over
        found: Any = super().execute(context)
        ti = context["ti"]
        ti.xcom_push(REPOSITORY_UUID, found.pop(REPOSITORY_UUID))
        ti.xcom_push(DISCOVERY, found)
        return [{"database": each["database"]} for each in found["databases"]]

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow.sdk.configuration import conf

        from airflow_pgbackup.backup.sets.discover import discover
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook

        uuid = self._ready(self.repository, self.aws_conn_id, run)
        copies = self._ready(self.destination, self.destination_aws_conn_id, run)
        if copies is not None and copies == uuid:
            raise ConfigurationError(
                f"the destination {self.destination} is the repository itself", hint="Choose another destination."
            )
        found = discover(
            connection=PgBackupHook(self.postgres_conn_id).get_conninfo(),
            **with_lists({"databases": self.databases, "exclude": self.exclude}),
            context=run,
        )
        if len(found.databases) > (limit := conf.getint("core", "max_map_length", fallback=1024)):
            # The limit of the API server counts. Where it is exceeded, Airflow's error does not name the setting.
            run.log(
                f"warning: {len(found.databases)} databases exceed [core] max_map_length {limit}; raise it on the API "
                "server, or select fewer databases"
            )
        return {"server": self.server or self.postgres_conn_id, **found.as_json(), REPOSITORY_UUID: uuid}

    def _ready(self, uri: str | None, aws_conn_id: str | None, run: RunContext) -> str | None:
        """Check that a repository exists and can be written to; return its UUID."""
        from airflow_pgbackup.hooks.repository import open_repository

        if uri is None:
            return None
        repository = open_repository(uri, aws_conn_id, cancel=run.cancel)
        uuid = repository.init() if is_true("init_repository", self.init_repository) else repository.uuid
        repository.probe(run.log)
        return uuid
