"""``airflow pgbackup``: Airflow's settings and connections."""

from __future__ import annotations

import argparse

from airflow_pgbackup.cli.program import Program
from airflow_pgbackup.cli.vocabulary import Command
from airflow_pgbackup.cli.wording import CommandWording
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.settings import Settings, load
from airflow_pgbackup.wording import Wording

_FOUND_OTHERWISE = ("host", "port", "username", "service")


class AirflowProgram(Program):
    """``airflow pgbackup``."""

    name = "airflow pgbackup"

    def wording(self, command: Command, arguments: argparse.Namespace) -> Wording:
        given = vars(arguments)
        postgres, aws = bool(given.get("postgres_conn_id")), bool(given.get("aws_conn_id"))
        return CommandWording(command, program=self.name, airflow=True, postgres=postgres, aws=aws)

    def settings(self) -> Settings:
        return load(airflow=True)

    def connection(self, arguments: argparse.Namespace) -> ConnectionParams | None:
        """Return the connection of ``--postgres-conn-id``.

        :raises ConfigurationError: there is none with that id, or it cannot be combined with another argument.
        """
        id: str | None = arguments.postgres_conn_id
        if id is None:
            return None
        if given := [name for name in _FOUND_OTHERWISE if getattr(arguments, name)]:
            raise ConfigurationError(
                f"--{given[0]} cannot be combined with --postgres-conn-id", hint="Omit one of them: both name a server."
            )
        from airflow_pgbackup.hooks.pgbackup import PgBackupHook

        require_connection(id)
        return PgBackupHook(id, database=arguments.dbname).get_conninfo()

    def repository(self, uri: str, arguments: argparse.Namespace, cancel: Cancel) -> Repository | None:
        """Return the ``s3://`` repository of ``--aws-conn-id``, or for the other one of ``upload`` of its own option.

        :raises ConfigurationError: there is no connection with that id.
        """
        given = vars(arguments)
        id = given.get("aws_conn_id")
        if uri == given.get("destination"):
            id = given["destination_aws_conn_id"] or id
        if id is None or not uri.lower().startswith("s3://"):
            return None
        from airflow_pgbackup.hooks.repository import open_repository

        require_connection(id)
        return open_repository(uri, id, cancel=cancel)


def require_connection(id: str) -> None:
    """Check that Airflow has a connection.

    :raises ConfigurationError: it has none with that id, or cannot look it up.
    """
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        BaseHook.get_connection(id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"Airflow has no connection {id!r}", hint="Run airflow connections list to see the connections."
        ) from None
    except (AirflowException, SQLAlchemyError) as error:
        # The first line only: others quote the statement and its parameters.
        why = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise ConfigurationError(
            f"cannot look up connection {id!r} in Airflow: {why}", hint="Check Airflow's database and secrets backend."
        ) from None
