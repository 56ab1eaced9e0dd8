"""The whole environment of a child: what its connection needs, nothing of the worker's that could leak or misdirect."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_pgbackup.postgres.connection.keywords import variables
from airflow_pgbackup.postgres.connection.pgpass import pgpass_file
from airflow_pgbackup.postgres.connection.service import write_service
from airflow_pgbackup.private_directory import PrivateDirectory

if TYPE_CHECKING:
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

# Of the worker's own: where programs and libraries are, and how names, certificates and Kerberos tickets are found.
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

# A client that is older than the option ignores its variable; it does not ignore a line of a service file. That it
# must not connect in a way that require_auth forbids is worth the error.
_NOT_BY_VARIABLE = frozenset({"require_auth"})

_SERVICE = "pgbackup"


class ClientEnvironment(dict[str, str]):
    """The environment in which PostgreSQL's tools reach what `params` says; add what you like to it.

    ``HOME``, ``TMPDIR``, the password file and the service file lie in a private directory. It exists while a tool
    runs: :class:`~airflow_pgbackup.postgres.tools.process.ToolProcess` makes it for each tool, one at a time, and the
    leader of the tool removes it. For any other program it exists for the length of a ``with``, as do the variables.

    The session is pinned where a dump would differ from the dump of its own restore: UTC, hexadecimal bytea.

    :ivar directory: the private directory, None while there is none.
    """

    def __init__(self, params: ConnectionParams) -> None:
        super().__init__({name: os.environ[name] for name in INHERITED if name in os.environ})
        self.directory: Path | None = None
        self._params = params
        self._files = ExitStack()
        self._written: dict[str, str] = {}
        self._by_service: dict[str, str] = {}
        self.update(LC_MESSAGES="C", PGTZ="UTC")
        keywords = params.keywords_with_defaults()
        keywords["options"] = f"{keywords.get('options', '')} -c bytea_output=hex".strip()
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
        """Make the private directory, still empty, unless it exists."""
        if self.directory is None:
            self.directory = self._files.enter_context(PrivateDirectory())
            for name in self._written:  # of another directory before
                del self[name]
            self._written = {}
        return self.directory

    def write_files(self) -> dict[str, str]:
        """Fill the directory; the variables that name what is in it, which are set here, too."""
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


def client_environment(params: ConnectionParams, *, dbname: str | None = None) -> ClientEnvironment:
    """Return the whole environment for a tool that goes to what `params` says.

    :param dbname: instead of the database of `params`. ``PGDATABASE`` is taken literally by pg_dump and psql, by
        pg_restore when it gets ``-d ''`` beside it; for pg_dumpall's ``--database`` see :func:`literal_dbname`.
    """
    return ClientEnvironment(params if dbname is None else params.with_database(dbname))
