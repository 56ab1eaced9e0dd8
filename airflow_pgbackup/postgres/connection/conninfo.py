"""Connection parameters, which PostgreSQL's own tools and our sessions share.

Everything that libpq would look up itself (service files, files in the home directory) is looked up once, in
:meth:`ConnectionParams.resolve`, so that every libpq, whatever its build and home directory, gets the same parameters.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.connect import connect
from airflow_pgbackup.postgres.connection.keywords import check_text, clean, secret_keywords, variables
from airflow_pgbackup.postgres.connection.open_sessions import OpenSessions
from airflow_pgbackup.postgres.connection.service import read_service
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    import psycopg

Password = str | Callable[[], str] | None

CONNECT_TIMEOUT = "10"
"""Seconds for each address. Without a limit, a host that drops packets costs two minutes."""

KEEPALIVES: Mapping[str, str] = {
    "keepalives": "1",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}
"""For TCP connections, which are silent for hours while an index is built: firewalls forget them, and Linux sends its
first keepalive only after two hours. With these values a dead server is noticed after two minutes.

No ``tcp_user_timeout``: it would end a restore whose server reads no data for that long because it waits for a lock.
It also counts while data is not sent because the window is closed, tcp(7)."""

# libpq's own defaults in the home directory, by keyword (libpq, "SSL Support", "The Password File").
_HOME_FILES = {
    "passfile": ".pgpass",
    "sslcert": ".postgresql/postgresql.crt",
    "sslkey": ".postgresql/postgresql.key",
    "sslrootcert": ".postgresql/root.crt",
    "sslcrl": ".postgresql/root.crl",
}
_URI = re.compile(r"://|(?:^|,)[^/@,][^/,]*@")  # not @name, a socket in the abstract namespace
# Each build of libpq has one of these as its default.
_SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")  # noqa: S108


@dataclass(frozen=True, repr=False)
class ConnectionParams:
    """A resolved connection. Make it with :meth:`resolve` or :meth:`from_environment`.

    :param keywords: libpq keyword to value; never ``password``, never ``service``.
    :param password: a string, or a function that returns a short-lived one and is called at each use.
    :param renew_every: seconds after which a tool's password file is rewritten while the tool runs.
    :param peer_uid: a session is refused unless the server process runs as this uid, by SO_PEERCRED of unix(7). For a
        socket in a directory that others can write to. libpq's ``requirepeer`` takes only user names.
    :param sessions: where our sessions are registered, so that they can be interrupted.
    """

    keywords: Mapping[str, str]
    password: Password = field(default=None, repr=False)
    renew_every: float | None = None
    peer_uid: int | None = None
    sessions: OpenSessions | None = None

    @classmethod
    def resolve(
        cls,
        keywords: Mapping[str, object],
        *,
        password: Password = None,
        renew_every: float | None = None,
        environ: Mapping[str, str] | None = None,
        home: Path | None = None,
    ) -> ConnectionParams:
        """Return the connection that these libpq keywords describe; empty ones count as unset.

        A ``service`` among them is replaced by its keywords, which are weaker than `keywords`; a ``password`` among
        them is weaker than `password`. Files of the home directory are filled in where libpq would use them.

        :param environ: read only for the places of service files (``PGSERVICEFILE``, ``PGSYSCONFDIR``) and ``HOME``.
        :raises ConfigurationError: an unknown keyword, an invalid value, or a service that is not defined.
        """
        return cls._resolve(keywords, {}, password, renew_every, os.environ if environ is None else environ, home)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **keywords: object) -> ConnectionParams:
        """Return the connection as libpq's own programs find it: `keywords`, then the service, then PG* variables.

        :param environ: with the PG* variables; default the process's own.
        :raises ConfigurationError: as for :meth:`resolve`.
        """
        environ = os.environ if environ is None else environ
        given = {keyword: environ.get(variable) for keyword, variable in variables().items() if variable}
        if given.pop("service", None) and not keywords.get("service"):
            keywords["service"] = environ["PGSERVICE"]
        return cls._resolve(keywords, given, None, None, environ, None)

    @classmethod
    def _resolve(
        cls,
        keywords: Mapping[str, object],
        weakest: Mapping[str, object],
        password: Password,
        renew_every: float | None,
        environ: Mapping[str, str],
        home: Path | None,
    ) -> ConnectionParams:
        home = home or _home(environ)
        found = clean(keywords)
        service = found.pop("service", None)
        if service is not None:
            found = {**clean(read_service(service, environ=environ, home=home)), **found}
        found = {**clean(weakest), **found}
        stored = found.pop("password", None)
        password = password or stored or None
        if isinstance(password, str):
            check_text("password", password)
        _check_lists(found)
        for keyword, name in _HOME_FILES.items():
            given = keyword in found or (keyword == "sslcrl" and "sslcrldir" in found)
            if not given and not (keyword == "passfile" and password) and (home / name).exists():
                found[keyword] = str(home / name)
        if found.get("sslrootcert") == "system":
            # As libpq 16 and newer do. An older one takes "system" for a file, and by default connects without it.
            found.setdefault("sslmode", "verify-full")
        if "host" not in found and "hostaddr" not in found:
            name = f".s.PGSQL.{found.get('port', '5432')}"
            if directory := next((path for path in _SOCKET_DIRECTORIES if Path(path, name).exists()), None):
                found["host"] = directory
        return cls(keywords=found, password=password, renew_every=renew_every)

    @property
    def dbname(self) -> str:
        """'' where unset, as for the other properties."""
        return self.keywords.get("dbname", "")

    @property
    def user(self) -> str:
        return self.keywords.get("user", "")

    @property
    def host(self) -> str:
        """One host, or several separated by commas."""
        return self.keywords.get("host", "")

    @property
    def port(self) -> str:
        """One port, or several separated by commas."""
        return self.keywords.get("port", "")

    @property
    def label(self) -> str:
        """``user@host:port/dbname``, for logs and messages."""
        host = self.host or self.keywords.get("hostaddr") or "[local]"
        if ":" in host and "/" not in host and "," not in host:
            host = f"[{host}]"
        text = f"{self.user}@{host}" if self.user else host
        text += f":{self.port}" if self.port else ""
        text += f"/{self.dbname}" if self.dbname else ""
        return printable(text)

    def __repr__(self) -> str:
        return f"<ConnectionParams {self.label}>"  # keywords can hold secrets too: sslpassword

    @property
    def secrets(self) -> list[str]:
        """Every secret value, such as sslpassword; not the password that a function returns."""
        hidden = [value for keyword, value in self.keywords.items() if keyword in secret_keywords()]
        return [self.password, *hidden] if isinstance(self.password, str) else hidden

    def with_database(self, dbname: str) -> ConnectionParams:
        """Return the parameters for another database of the same server."""
        others = {keyword: value for keyword, value in self.keywords.items() if keyword != "dbname"}
        return replace(self, keywords={**others, **clean({"dbname": dbname})})

    def get_password(self) -> str | None:
        """Return a valid password; calls the function that makes a short-lived one."""
        if callable(self.password):
            return check_text("password", self.password()) or None
        return self.password or None

    def keywords_with_defaults(self) -> dict[str, str]:
        """Return the keywords, with our defaults where libpq's own do not suit unattended work."""
        keepalives = KEEPALIVES if self._is_tcp() else {}
        return {"connect_timeout": CONNECT_TIMEOUT, **keepalives, **self.keywords}

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a session as an application does: with the search_path of the role and the database.

        Whoever owns the database can so define what an operator, a function or a type without a schema is, and thus run
        code as this role. For the statements of others only; for our own, see :meth:`open_session`.
        See :func:`airflow_pgbackup.postgres.connection.connect.connect`.

        :raises ConnectError: the server cannot be reached, or refuses the connection.
        """
        return connect(
            self.keywords_with_defaults(),
            label=self.label,
            password=self.get_password(),
            autocommit=autocommit,
            peer_uid=self.peer_uid,
            sessions=self.sessions,
        )

    def open_session(self, *, autocommit: bool = True) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a session with an empty search_path, so that no unqualified name resolves to an object of the database's
        owner.

        See :mod:`airflow_pgbackup.postgres.connection.search_path`.

        :raises ConnectError: the server cannot be reached, or refuses the connection.
        :raises MixedSessions: there is a connection pooler between, which mixes sessions.
        """
        from airflow_pgbackup.postgres.connection.search_path import open_session

        session = open_session(self)
        session.autocommit = autocommit
        return session

    def _is_tcp(self) -> bool:
        hosts = self.keywords.get("hostaddr") or self.host
        return any(not host.startswith(("/", "@")) for host in hosts.split(",")) if hosts else False


def literal_dbname(name: str) -> str:
    """Quote a database name for an option that libpq reads as a connection string, such as pg_dumpall's --database."""
    return "dbname='" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _home(environ: Mapping[str, str]) -> Path:
    """Return the home directory as libpq finds it: pqGetHomeDirectory() in src/interfaces/libpq/fe-connect.c."""
    if given := environ.get("HOME"):
        return Path(given)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:  # this uid has none, and so no files in it
        return Path("/nonexistent")


def _check_lists(keywords: Mapping[str, str]) -> None:
    for name in ("host", "hostaddr", "port"):
        if not keywords.get(name, "").isprintable():
            raise ConfigurationError(f"connection option {name!r} has a control character")
        if _URI.search(keywords.get(name, "")):  # not quoted: it can have the password
            raise ConfigurationError(
                f"connection option {name!r} is a URI, or a part of one",
                hint="Give the name of the host only, and the port, user, password and database in their own fields.",
            )
    counts = {name: keywords[name].count(",") + 1 for name in ("host", "hostaddr", "port") if name in keywords}
    hosts = {counts[name] for name in ("host", "hostaddr") if name in counts}
    if len(hosts) > 1 or (counts.get("port", 1) > 1 and counts["port"] not in (hosts or {1})):
        raise ConfigurationError(
            "the numbers of hosts, addresses and ports differ: "
            + ", ".join(f"{n} {name}" for name, n in counts.items()),
            hint="Give one port for each host, or one for all, and one address for each name.",
        )
