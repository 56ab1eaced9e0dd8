"""How a PostgreSQL server is reached: the same for its own tools and for sessions of ours.

Everything that libpq would look up by itself (service files, files in the home folder) is looked up once, in
:meth:`ConnectionParams.resolve`, so that each libpq here, whatever its build and home folder, sees the same.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.connection.keywords import (
    check_text,
    clean,
    compiled_defaults,
    secret_keywords,
    variables,
)
from airflow_pgbackup.postgres.connection.open_sessions import OpenSessions
from airflow_pgbackup.postgres.connection.service import read_service
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    import psycopg

Password = str | Callable[[], str] | None

CONNECT_TIMEOUT = "10"
"""Seconds for each address; without a limit a host that drops packets costs two minutes."""

KEEPALIVES: Mapping[str, str] = {
    "keepalives": "1",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}
"""For connections by TCP, which is silent for hours while an index is built: a firewall forgets it, and Linux by itself
asks after two hours only. So a server that is gone is known after two minutes.

No ``tcp_user_timeout``: it would end a restore whose server takes no data for that long, as it waits for a lock. It
also counts while data is not sent because the window is closed, tcp(7)."""

# libpq's own defaults in the home folder, by keyword (libpq, "SSL Support", "The Password File").
_HOME_FILES = {
    "passfile": ".pgpass",
    "sslcert": ".postgresql/postgresql.crt",
    "sslkey": ".postgresql/postgresql.key",
    "sslrootcert": ".postgresql/root.crt",
    "sslcrl": ".postgresql/root.crl",
}
# Each build of libpq has one of these for its default.
_SOCKET_FOLDERS = ("/var/run/postgresql", "/tmp")  # noqa: S108
# Variables that a libpq of this process obeys though every keyword is given (libpq, "Environment Variables"): PGSERVICE
# wants to be found; the next three are sent to the server; for the keywords of the others '' is not "as if unset".
_NO_KEYWORD_OVERRIDES = (
    *("PGSERVICE", "PGTZ", "PGDATESTYLE", "PGGEQO"),
    *("PGREQUIREAUTH", "PGSSLCERTMODE", "PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION"),
)

_environ_lock = threading.Lock()
_connecting = 0
_taken_away: dict[str, str] = {}


@dataclass(frozen=True, repr=False)
class ConnectionParams:
    """A resolved connection. Make it with :meth:`resolve` or :meth:`from_environment`.

    :ivar keywords: libpq keyword to value; never ``password``, never ``service``.
    :ivar password: text; or a function that makes a short-lived one, asked anew for every use.
    :ivar renew_every: seconds; that often a tool's password file is rewritten while the tool runs.
    :ivar peer_uid: a session of ours is with a process of this user, by SO_PEERCRED of unix(7), or it is refused. For
        a socket in a directory that somebody else writes to, as libpq's ``requirepeer``, which takes names only.
    :ivar sessions: where sessions of ours are noted, to be broken off.
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
        """From libpq keywords; empty ones count as unset.

        A ``service`` is folded in, weaker than `keywords`; so is a ``password`` among them. Files of the home folder
        are filled in where libpq would take them.

        :param environ: only for where service files are (``PGSERVICEFILE``, ``PGSYSCONFDIR``) and ``HOME``.
        :raises ConfigurationError: an unknown keyword or impossible value, a service that is nowhere defined.
        """
        return cls._resolve(keywords, {}, password, renew_every, os.environ if environ is None else environ, home)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **keywords: object) -> ConnectionParams:
        """As libpq's own programs find it: `keywords`, then the service, then the PG* variables of `environ`.

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
        home = home or Path(environ.get("HOME") or "~").expanduser()
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
            taken = keyword in found or (keyword == "sslcrl" and "sslcrldir" in found)
            if not taken and not (keyword == "passfile" and password) and (home / name).exists():
                found[keyword] = str(home / name)
        if "host" not in found and "hostaddr" not in found:
            name = f".s.PGSQL.{found.get('port', '5432')}"
            if folder := next((path for path in _SOCKET_FOLDERS if Path(path, name).exists()), None):
                found["host"] = folder
        return cls(keywords=found, password=password, renew_every=renew_every)

    # -- what it says

    @property
    def dbname(self) -> str:
        """'' where unset, as are the others."""
        return self.keywords.get("dbname", "")

    @property
    def user(self) -> str:
        return self.keywords.get("user", "")

    @property
    def host(self) -> str:
        """A list has commas."""
        return self.keywords.get("host", "")

    @property
    def port(self) -> str:
        """A list has commas."""
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
        return f"<ConnectionParams {self.label}>"  # keywords may have secrets too: sslpassword

    @property
    def secrets(self) -> list[str]:
        """Secret texts in here, as sslpassword; a password that a function makes is not among them."""
        hidden = [value for keyword, value in self.keywords.items() if keyword in secret_keywords()]
        return [self.password, *hidden] if isinstance(self.password, str) else hidden

    def with_database(self, dbname: str) -> ConnectionParams:
        """The same server, another database."""
        others = {keyword: value for keyword, value in self.keywords.items() if keyword != "dbname"}
        return replace(self, keywords={**others, **clean({"dbname": dbname})})

    def get_password(self) -> str | None:
        """A valid password; a short-lived one is made now."""
        if callable(self.password):
            return check_text("password", self.password()) or None
        return self.password or None

    def keywords_with_defaults(self) -> dict[str, str]:
        """The keywords, and what we say where libpq's own default is not good for unattended work."""
        keepalives = KEEPALIVES if self._is_tcp() else {}
        return {"connect_timeout": CONNECT_TIMEOUT, **keepalives, **self.keywords}

    def _is_tcp(self) -> bool:
        hosts = self.keywords.get("hostaddr") or self.host
        return any(not host.startswith(("/", "@")) for host in hosts.split(",")) if hosts else False

    # -- a session

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[tuple[Any, ...]]:
        """A session of ours. The worker's PG* variables have no influence, and the database's name is just a name.

        Without server-side prepared statements, so it works through poolers. Text may have any bytes, see
        :mod:`.anybytes`.

        :raises ConnectError: the server cannot be reached, or refuses us.
        """
        import psycopg

        from airflow_pgbackup.postgres.sql.anybytes import accept_any_bytes

        keywords: dict[str, str] = {
            "fallback_application_name": "airflow-pgbackup",
            **self.keywords_with_defaults(),
            "client_encoding": "UTF8",  # what the connection says is for the tools
        }
        if "user" not in keywords:
            keywords["user"] = _system_user()
        password = self.get_password()
        if password is not None:
            keywords["password"] = password
        for keyword, variable in variables().items():
            if variable in os.environ and variable not in _NO_KEYWORD_OVERRIDES:
                keywords.setdefault(keyword, compiled_defaults().get(keyword, ""))
        for pause in (*_SLOT_PAUSES, None):
            if self.sessions:
                self.sessions.check()
            try:
                with _without_variables():
                    session = psycopg.connect(**keywords, autocommit=True, prepare_threshold=None)  # type: ignore[arg-type]
                try:
                    if self.sessions:
                        self.sessions.add(session)
                    self._check_peer(session)
                    accept_any_bytes(session)
                    session.autocommit = autocommit
                except BaseException:
                    session.close()
                    raise
                return session
            except psycopg.OperationalError as error:
                text = str(error)
            except psycopg.Error as error:
                raise ConfigurationError(
                    f"invalid connection parameters for {self.label}: {_reason(str(error))}"
                ) from None
            if pause is None or not _NO_SLOT.search(text):
                break
            time.sleep(pause)
        raise ConnectError(f"cannot connect to {self.label}: {_reason(text)}", hint=hint_for(text))

    def _check_peer(self, session: psycopg.Connection[tuple[Any, ...]]) -> None:
        if self.peer_uid is None:
            return
        with socket.socket(fileno=os.dup(session.fileno())) as pipe:
            _, uid, _ = struct.unpack(
                "3i", pipe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            )
        if uid != self.peer_uid:
            raise ConnectError(
                f"the socket of {self.label} belongs to uid {uid}, not to the server's uid {self.peer_uid}"
            )


# The server ends a session a moment after we have closed it: of a role with few connections that may be the last one.
_NO_SLOT = re.compile(r"too many connections for role|too many clients already|connection slots are reserved")
_SLOT_PAUSES = (0.1, 0.4, 1.6)  # seconds


def literal_dbname(name: str) -> str:
    """A database's name for an option that libpq would else read as a connection string, as pg_dumpall's --database."""
    return "dbname='" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _check_lists(keywords: Mapping[str, str]) -> None:
    for name in ("host", "hostaddr", "port"):
        if not keywords.get(name, "").isprintable():
            raise ConfigurationError(f"connection option {name!r} has a control character")
    counts = {name: keywords[name].count(",") + 1 for name in ("host", "hostaddr", "port") if name in keywords}
    hosts = {counts[name] for name in ("host", "hostaddr") if name in counts}
    if len(hosts) > 1 or (counts.get("port", 1) > 1 and counts["port"] not in (hosts or {1})):
        raise ConfigurationError(
            "the lists of the connection differ in length: " + ", ".join(f"{n} {name}" for name, n in counts.items()),
            hint="give a port for each host, or one for all, and an address for each name",
        )


def _system_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ConfigurationError(
            f"the connection names no user, and uid {os.geteuid()} has no name here", hint="give the connection a login"
        ) from None


@contextmanager
def _without_variables() -> Iterator[None]:
    """While any thread of ours connects, the variables that no keyword overrides are away; seldom is one set."""
    global _connecting
    with _environ_lock:
        _connecting += 1
        _taken_away.update({name: os.environ.pop(name) for name in _NO_KEYWORD_OVERRIDES if name in os.environ})
    try:
        yield
    finally:
        with _environ_lock:
            _connecting -= 1
            if not _connecting:
                os.environ.update(_taken_away)
                _taken_away.clear()


def _reason(text: str) -> str:
    """One line of what psycopg says, each different failure once."""
    head, _, failures = text.partition("Multiple connection attempts failed. All failures were:\n")
    reasons = []
    for line in (failures or head).splitlines():
        if line.startswith("\t"):
            continue
        if line.startswith("- host: "):
            line = line[line.find("hostaddr: ") :].partition(": ")[2].partition(": ")[2]
        line = line.removeprefix("connection failed: ").removeprefix("connection is bad: ").strip()
        reasons.append(line.rstrip("."))
    return "; ".join(dict.fromkeys(filter(None, reasons)))
