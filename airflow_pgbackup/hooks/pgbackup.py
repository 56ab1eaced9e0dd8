"""PgBackupHook: an Airflow connection of type ``postgres``, as PostgreSQL's own tools need it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.hooks._missing import no_connection
from airflow_pgbackup.not_empty import not_empty

if TYPE_CHECKING:
    import psycopg
    from airflow.providers.postgres.hooks.postgres import PostgresHook
    from airflow.sdk import Connection

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.backup.findings import Finding
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
    from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
    from airflow_pgbackup.repository.base import Repository

# Connection.connect() of psycopg 3 takes these itself, so they never reach libpq; PostgresHook derives row_factory from
# the extra "cursor". https://www.psycopg.org/psycopg3/docs/api/connections.html
_PSYCOPG = frozenset({"autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"})

# RDS and Redshift tokens are valid for 15 minutes, Azure's for at least 60. pg_dumpall connects once per database.
TOKEN_RENEW_SECONDS = 600.0


class PgBackupHook(BaseHook):
    """An Airflow connection for pg_dump, pg_dumpall and pg_restore.

    The connection is read exactly as the official ``PostgresHook`` reads it: its schema is the database, its extras
    are libpq parameters except those that ``PostgresHook`` handles itself, and ``"iam": true`` requests a token from
    AWS or Azure. From then on Airflow's logs mask the password in every form in which a tool could print it.

    :param postgres_conn_id: a connection of type ``postgres``.
    :param database: the database, instead of the connection's own.
    """

    conn_name_attr = "postgres_conn_id"
    default_conn_name = "postgres_default"

    def __init__(self, postgres_conn_id: str = default_conn_name, database: str | None = None) -> None:
        super().__init__()
        self.postgres_conn_id = postgres_conn_id
        self.database = database

    def get_conninfo(self) -> ConnectionParams:
        """Return the connection as libpq parameters; Airflow is asked once.

        :raises ConfigurationError: Airflow finds no connection with that id, libpq does not know an extra, or a service
            is not defined.
        :raises ConnectError: no IAM token was issued.
        """
        return self._conninfo

    def get_conn(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a psycopg 3 connection in autocommit mode; the caller closes it.

        :raises ConnectError: the server is unreachable, refuses the connection, or has no such database.
        """
        return self._conninfo.connect()

    def pgpass(self) -> AbstractContextManager[Path | None]:
        """Give a password file while the ``with`` lasts: mode 0600, in its own directory with mode 0700.

        .. code-block:: python

            with PgBackupHook("dvdrental").pgpass() as path:
                subprocess.run([..., "--no-password"], env={"PGPASSFILE": str(path), ...})

        It is None if there is no password, or if such a file cannot hold it (a password with a line break).
        """
        from airflow_pgbackup.postgres.connection.pgpass import pgpass_file

        return pgpass_file(self._conninfo)

    def client_environment(self, *, dbname: str | None = None) -> AbstractContextManager[dict[str, str]]:
        """Give the environment for one of PostgreSQL's programs, with a password file, while the ``with`` lasts.

        Its sessions have the time zone and the other settings of the server, the database and the role.

        :param dbname: the database, instead of the connection's own.
        """
        from airflow_pgbackup.postgres.connection.environment import client_environment

        return client_environment(self._conninfo, dbname=dbname, restoring=True)

    def check(
        self,
        *,
        repository: Repository | None = None,
        options: DumpOptions | DumpAllOptions | None = None,
        scan_rows: bool = False,
        server: str | None = None,
        context: RunContext | None = None,
    ) -> list[Finding]:
        """Find everything that would prevent or compromise a backup; see :func:`airflow_pgbackup.backup.check.check`.

        :param server: by default the connection id, as for the dump operators.
        :param context: by default with Airflow's settings. Its log takes lines that quote names unescaped;
            :func:`airflow_pgbackup.text.printing` escapes them.
        """
        from airflow_pgbackup.backup.check import check
        from airflow_pgbackup.backup.context import RunContext
        from airflow_pgbackup.settings import load

        return check(
            connection=self._conninfo,
            server=server or self.postgres_conn_id,
            repository=repository,
            options=options,
            scan_rows=scan_rows,
            context=context or RunContext(settings=load(airflow=True)),
        )

    @cached_property
    def _conninfo(self) -> ConnectionParams:
        from airflow.providers.postgres.hooks.postgres import PostgresHook

        from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

        database = not_empty("database", self.database)
        if database is not None and not isinstance(database, str):  # rendered from a template
            raise ConfigurationError(f"invalid database {database!r}", hint="Pass the name of a database.")
        hook = PostgresHook(postgres_conn_id=self.postgres_conn_id, database=database)
        try:
            connection = hook.connection
        except AirflowNotFoundException:
            hint = "Create a connection of type Postgres with this id, or give another one as postgres_conn_id."
            raise no_connection(self.postgres_conn_id, hint) from None
        extras: Any = connection.extra_dejson
        if not isinstance(extras, dict):
            raise ConfigurationError(
                f"the extra of connection {self.postgres_conn_id} is not a JSON object",
                hint='Write an object, such as {"sslmode": "verify-full"}, or leave it empty.',
            )
        user, port, password = connection.login, connection.port, connection.password
        token: Callable[[], str] | None = None
        if extras.get("iam", False):
            user, _, port = self._ask_token(hook, connection)
            token = lambda: self._ask_token(hook, connection)[1]  # noqa: E731
        keywords = {
            "host": connection.host,
            "port": port,
            "user": user,
            "dbname": connection.schema if database is None else database,
        }
        # As in PostgresHook.get_conn(), an extra wins over the connection's field of the same meaning.
        keywords |= {name: extras[name] for name in extras.keys() - hook.ignored_extra_options - _PSYCOPG}
        if "password" in keywords:
            password = token = None
        params = ConnectionParams.resolve(
            keywords, password=token or password, renew_every=TOKEN_RENEW_SECONDS if token else None
        )
        _mask(*params.secrets)
        return params

    @staticmethod
    def _ask_token(hook: PostgresHook, connection: Connection) -> tuple[str, str, int]:
        """Return the user, a new token as the password, and the port."""
        try:
            user, token, port = hook.get_iam_token(connection)
        except Exception as error:  # noqa: BLE001  each library of AWS and Azure has its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConnectError(
                f"no IAM token for connection {connection.conn_id}: {reason}",
                hint="Check aws_conn_id or azure_conn_id in its extras, and the permissions of that role.",
            ) from None
        _mask(token)
        return user, token, port


def _mask(*secrets: str) -> None:
    """Mask secrets in Airflow's logs, in every form in which a tool or a library could write them."""
    from airflow.sdk.log import mask_secret

    from airflow_pgbackup.postgres.connection.pgpass import secret_forms

    for secret in secrets:
        for form in secret_forms(secret):
            mask_secret(form)
