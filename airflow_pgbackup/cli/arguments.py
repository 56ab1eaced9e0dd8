"""Turn command-line arguments into what the verbs take: repository, backup, connection, server name."""

from __future__ import annotations

import json
import os
import re
import socket
import sys

from airflow_pgbackup.backup.choose_backup import LATEST, choose_evidence, newest_backup, parse_series
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import Series, check_level
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import STORE_SETTINGS, S3Options

S3_VARIABLE = "PGBACKUP_S3"


def repository_argument(session: Session) -> Repository:
    """Return the repository that REPOSITORY names."""
    return repository_at(session, session.arguments.repository)


def repository_at(session: Session, uri: str) -> Repository:
    """Return the repository at a URI.

    :raises ConfigurationError: not a repository's URI, or PGBACKUP_S3 is invalid.
    """
    if (named := session.program.repository(uri, session.arguments, session.cancel)) is not None:
        return named
    store: object = {}
    if text := os.environ.get(S3_VARIABLE):
        try:
            store = json.loads(text)
        except (ValueError, RecursionError):
            store = None
    if not isinstance(store, dict):
        raise ConfigurationError(f"the variable {S3_VARIABLE} is not a JSON object", hint=_S3_HINT)
    if unknown := sorted(store.keys() - {*STORE_SETTINGS}):
        raise ConfigurationError(f"the variable {S3_VARIABLE} has unknown keys: {', '.join(unknown)}", hint=_S3_HINT)
    lock_for, lock_mode = session.settings.lock_for, session.settings.lock_mode
    options = S3Options.of_store(store, lock_for=lock_for, lock_mode=lock_mode)
    return open_repository(uri, s3=options, cancel=session.cancel)


_S3_HINT = (
    'Write {"extra_args": {"StorageClass": "…"}, "max_parts": 1000}; the known keys are '
    f"{', '.join(sorted(STORE_SETTINGS))}."
)


def backup_argument(
    session: Session, *, minimum_level: str | None = "integrity"
) -> tuple[Repository, Evidence, Manifest]:
    """Return the backup that SERIES and ID name, with the evidence of its state.

    :param minimum_level: for the ID ``latest``; see :func:`.choose_backup.choose_evidence`.
    """
    arguments, repository = session.arguments, repository_argument(session)
    evidence = choose_evidence(repository, arguments.series, arguments.id, minimum_level=minimum_level, log=session.log)
    return repository, evidence, evidence.require_manifest()


def backup_to_verify_argument(session: Session) -> tuple[Repository, Evidence, Manifest]:
    """Return the backup as :func:`backup_argument` does, but ``latest`` is the newest in any state: verify looks for
    what is not verified yet."""
    arguments, repository = session.arguments, repository_argument(session)
    if arguments.id != LATEST:
        return backup_argument(session)
    evidence = newest_backup(repository, arguments.series)
    return repository, evidence, evidence.require_manifest()


def connection_argument(session: Session) -> ConnectionParams:
    """Return the connection that the arguments, the environment and the service file name, in psql's order.

    :raises ConfigurationError: ``--dbname`` is a connection string.
    """
    arguments = session.arguments
    name = not_empty("dbname", arguments.dbname) or ""
    if "://" in name or "password=" in name:
        raise ConfigurationError(
            "--dbname takes a database name, not a connection string",
            hint="Use --host, --port, --username, or --service; passwords come from ~/.pgpass or PGPASSWORD.",
        )
    if (named := session.program.connection(arguments)) is not None:
        return named
    found = {
        "host": arguments.host,
        "port": arguments.port,
        "user": arguments.username,
        "dbname": arguments.dbname,
        "service": arguments.service,
    }
    return ConnectionParams.from_environment(**{keyword: value for keyword, value in found.items() if value})


def server_argument(session: Session) -> str:
    """Return the first part of the series: ``--server``, else the id of an Airflow connection, else the host's name;
    this machine's for a socket."""
    given = vars(session.arguments)
    named: str | None = given["server"] or given.get("postgres_conn_id")
    if named:
        return named
    host = connection_argument(session).host.partition(",")[0]
    return host if host and not host.startswith("/") else socket.gethostname()


def minimum_level_argument(session: Session) -> str | None:
    """Return ``--minimum-level``; None for ``none``.

    :raises ConfigurationError: not a level.
    """
    level: str = session.arguments.minimum_level
    if level == "none":
        return None
    check_level(level, "--minimum-level", none="none")
    return level


def confirm_replacing(session: Session, what: str, database: str) -> None:
    """Let the user type the name of a database that will be replaced, unless ``--yes`` was given.

    :param what: what will be done, ``replacing database "crm" with a backup of "app"``.
    :raises ConfigurationError: the name was not typed, or nobody can be asked.
    """
    if session.arguments.yes:
        return
    if not (sys.stdin.isatty() and session.err.is_terminal):
        raise ConfigurationError(f"{what} needs a confirmation", hint="Add --yes if that is meant.")
    session.err.say(f"{what}: type the name of the database that will be replaced")
    if sys.stdin.readline().rstrip("\n") != database:
        raise ConfigurationError(
            f'the name typed is not "{database}"; nothing was changed',
            hint="Run the command again and type the name, or restore under another name.",
        )


_SIZE = re.compile(r"(\d{1,9})(KiB|MiB|GiB|TiB)?", re.ASCII)
_BYTES = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def size_argument(flag: str, text: str) -> int:
    """Return a size in bytes.

    :raises ConfigurationError: not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"invalid {flag} {text!r}", hint="Write 500MiB, 50GiB or 2TiB.")
    return int(match[1]) * _BYTES[match[2]]


def rate_argument(session: Session) -> int | None:
    """Return the bytes per second of ``--max-bytes-per-second``; None without it."""
    rate: str | None = session.arguments.max_bytes_per_second
    return None if rate is None else size_argument("--max-bytes-per-second", rate)


def series_argument(session: Session) -> list[Series] | None:
    """Return the one SERIES that is given; None for all."""
    return [parse_series(session.arguments.series)] if session.arguments.series else None
