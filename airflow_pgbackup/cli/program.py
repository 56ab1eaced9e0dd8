"""The program whose command line was typed: ``pgbackup``, or ``airflow pgbackup`` with settings and connections."""

from __future__ import annotations

import argparse

from airflow_pgbackup.cli.vocabulary import Command
from airflow_pgbackup.cli.wording import CommandWording
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.settings import Settings, load
from airflow_pgbackup.wording import Wording


class Program:
    """``pgbackup``."""

    name = "pgbackup"

    def wording(self, command: Command, arguments: argparse.Namespace) -> Wording:
        """Return how errors write what the user can change."""
        return CommandWording(command, program=self.name)

    def settings(self) -> Settings:
        """Return the settings that hold here."""
        return load()

    def connection(self, arguments: argparse.Namespace) -> ConnectionParams | None:
        """Return the connection that the arguments name by an id, None without one."""
        return None

    def repository(self, uri: str, arguments: argparse.Namespace, cancel: Cancel) -> Repository | None:
        """Return the repository at a URI if the arguments name a connection for it, else None."""
        return None
