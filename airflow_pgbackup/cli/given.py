"""From what stands on the command line to what the verbs take."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

from airflow_pgbackup.backup.find import LATEST, find_evidence, find_newest
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import LEVELS
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import STORE_LIMITS, S3Options

if TYPE_CHECKING:
    from airflow_pgbackup.cli.run import Session


S3_VARIABLE = "PGBACKUP_S3"


def the_repository(session: Session) -> Repository:
    return repository_at(session, session.arguments.repository)


def repository_at(session: Session, uri: str) -> Repository:
    """:raises ConfigurationError: not a repository's URI; PGBACKUP_S3 is not what it should be."""
    store: object = {}
    if text := os.environ.get(S3_VARIABLE):
        try:
            store = json.loads(text)
        except (ValueError, RecursionError):
            store = None
    if not isinstance(store, dict) or (unknown := sorted(store.keys() - {*STORE_LIMITS, "extra_args"})):
        found = f"has {', '.join(unknown)}" if isinstance(store, dict) else "is no JSON object"
        raise ConfigurationError(
            f"the variable {S3_VARIABLE} {found}",
            hint=f'write {{"extra_args": {{"StorageClass": "…"}}, "max_parts": 1000}}; known are '
            f"extra_args, {', '.join(STORE_LIMITS)}",
        )
    return open_repository(uri, s3=S3Options.of_store(store), cancel=session.cancel)


def the_backup(session: Session, *, minimum_level: str | None = "integrity") -> tuple[Repository, Evidence, Manifest]:
    """The backup that SERIES and ID name, with what its files prove; the rule for ``latest`` is
    :func:`.find.find_evidence`'s, by default at whatever level."""
    given, repository = session.arguments, the_repository(session)
    evidence = find_evidence(repository, given.series, given.id, minimum_level=minimum_level, log=session.log)
    return repository, evidence, evidence.require_manifest()


def the_backup_to_verify(session: Session) -> tuple[Repository, Evidence, Manifest]:
    """As :func:`the_backup`, but ``latest`` is the newest: it is verified because it is not yet, or not any more."""
    given, repository = session.arguments, the_repository(session)
    if given.id != LATEST:
        return the_backup(session)
    evidence = find_newest(repository, given.series)
    return repository, evidence, evidence.require_manifest()


def the_connection(session: Session) -> ConnectionParams:
    given = session.arguments
    name = given.dbname or ""
    if "://" in name or "password=" in name:
        raise ConfigurationError(
            "--dbname takes the name of a database, and no connection string",
            hint="use --host, --port, --username, or a service; passwords come from ~/.pgpass or PGPASSWORD",
        )
    found = {
        "host": given.host,
        "port": given.port,
        "user": given.username,
        "dbname": given.dbname,
        "service": given.service,
    }
    return ConnectionParams.from_environment(**{keyword: value for keyword, value in found.items() if value})


def the_server(session: Session) -> str:
    connection = the_connection(session)
    host = connection.host.partition(",")[0]
    name: str = session.arguments.server or (host if host and not host.startswith("/") else socket.gethostname())
    return name


def check_level(level: str | None) -> None:
    if level is not None and level not in LEVELS:
        raise ConfigurationError(f"level is {level!r}", hint=f"choose one of {', '.join(LEVELS)}")
