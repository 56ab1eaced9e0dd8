"""The complete environment of a tool: what its connection needs, and nothing of the worker's that could leak."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.keywords import variables
from airflow_pgbackup.postgres.connection.pgpass import pgpass_file
from airflow_pgbackup.postgres.connection.service import write_service
from airflow_pgbackup.private_directory import PrivateDirectory

# What a tool inherits from the worker: where programs, libraries, name servers, certificates, Kerberos tickets are.
INHERITED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "KRB5CCNAME",
    "KRB5_CONFIG",
    "KRB5_CLIENT_KTNAME",
)

# A client older than the option ignores its variable, but refuses a line of a service file that it does not know.
# The error is better than a connection that require_auth forbids.
_NOT_BY_VARIABLE = frozenset({"require_auth"})

_SERVICE = "pgbackup"


class ClientEnvironment(dict[str, str]):
    """The environment in which PostgreSQL's tools connect as `params` says; the caller can add variables.

    ``HOME``, ``TMPDIR``, the password file and the service file are in a private directory. It exists while a tool
    runs: :class:`~airflow_pgbackup.postgres.tools.process.ToolProcess` makes it for each tool, one at a time, and the
    tool's leader removes it. For any other program, use a ``with``: the directory and the variables that name its
    files exist until its end.

    Three session settings are fixed, because a dump would otherwise differ from a dump of its own restore: the time
    zone is UTC, bytea is written in hexadecimal, and names are quoted only where necessary (pg_dump's option
    ``--quote-all-identifiers`` overrides that).

    :param restoring: leave these settings to the server, database and role. The functions of generated columns,
        constraints, indexes and materialized views use them, and a restore calls these functions.
    :ivar directory: the private directory; None while it does not exist.
    """

    def __init__(self, params: ConnectionParams, *, restoring: bool = False) -> None:
        super().__init__({name: os.environ[name] for name in INHERITED if name in os.environ})
        self.directory: Path | None = None
        self._params = params
        self._files = ExitStack()
        self._written: dict[str, str] = {}
        self._by_service: dict[str, str] = {}
        self["LC_MESSAGES"] = "C"
        keywords = params.keywords_with_defaults()
        if not restoring:
            self["PGTZ"] = "UTC"
            pinned = "-c bytea_output=hex -c quote_all_identifiers=off"
            keywords["options"] = f"{keywords.get('options', '')} {pinned}".strip()
        for keyword, value in keywords.items():
            variable = variables()[keyword]
            if variable and keyword not in _NOT_BY_VARIABLE:
                self[variable] = value
            else:
                self._by_service[keyword] = value

    def __enter__(self) -> ClientEnvironment:
        try:
            self.make_directory()
            self.write_files()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.directory = None
        self._files.close()

    def make_directory(self) -> Path:
        """Make the private directory, still empty, unless it exists; return its path."""
        if self.directory is None:
            self.directory = self._files.enter_context(PrivateDirectory())
            for name in self._written:  # they name files of the previous directory
                del self[name]
            self._written = {}
        return self.directory

    def write_files(self) -> dict[str, str]:
        """Write the files into the directory; return the variables that name them, which are set here too."""
        if self._written or self.directory is None:
            return self._written
        home, temporary, service = (self.directory / name for name in ("home", "tmp", "pg_service.conf"))
        home.mkdir(mode=0o700)
        temporary.mkdir(mode=0o700)
        found = {"HOME": str(home), "TMPDIR": str(temporary)}
        if self._by_service:
            write_service(service, _SERVICE, self._by_service)
            found |= {"PGSERVICEFILE": str(service), "PGSERVICE": _SERVICE}
        if passfile := self._files.enter_context(pgpass_file(self._params, directory=self.directory)):
            found["PGPASSFILE"] = str(passfile)
        elif (password := self._params.get_password()) is not None:
            found["PGPASSWORD"] = password
        self.update(found)
        self._written = found
        return found


def client_environment(
    params: ConnectionParams, *, dbname: str | None = None, restoring: bool = False
) -> ClientEnvironment:
    """Return the complete environment of a tool that connects as `params` says.

    :param dbname: used instead of the database of `params`. pg_dump and psql take ``PGDATABASE`` literally; so does
        pg_restore with ``-d ''``; for pg_dumpall's ``--database`` see :func:`.conninfo.literal_dbname`.
    :param restoring: as for :class:`ClientEnvironment`.
    """
    return ClientEnvironment(params if dbname is None else params.with_database(dbname), restoring=restoring)
