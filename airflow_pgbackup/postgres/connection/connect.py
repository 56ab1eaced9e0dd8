"""Opening a session: with the connection's own parameters only, never with the worker's PG* variables."""

from __future__ import annotations

import os
import pwd
import re
import socket
import struct
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.connection.keywords import compiled_defaults, variables
from airflow_pgbackup.postgres.connection.open_sessions import OpenSessions
from airflow_pgbackup.postgres.connection.worker_environment import NO_KEYWORD_OVERRIDES, for_libpq

if TYPE_CHECKING:
    import psycopg

# The server ends a session a moment after the client has closed it. For a role with few connections, that moment can
# be the reason why the next one is refused.
_NO_SLOT = re.compile(
    r"too many connections for (?:role|database)|too many clients already|connection slots are reserved"
)
_SLOT_PAUSES = (0.1, 0.4, 1.6)  # seconds


def connect(
    keywords: Mapping[str, str],
    *,
    label: str,
    password: str | None = None,
    autocommit: bool = True,
    peer_uid: int | None = None,
    sessions: OpenSessions | None = None,
) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a session without server-side prepared statements, so that it works through poolers.

    The database name is a name, never a connection string. Text can have any bytes, see
    :mod:`airflow_pgbackup.postgres.sql.anybytes`.

    :param keywords: libpq keywords; ``client_encoding`` among them is for the tools and is replaced by UTF8.
    :param label: the connection's name in messages.
    :param peer_uid: uid that the process at the other end of the Unix socket must have.
    :param sessions: where the session is registered, so that it can be broken off.
    :raises ConnectError: the server cannot be reached, refuses the connection, or does not run as `peer_uid`.
    :raises ConfigurationError: libpq refuses the keywords, or no user is given and this uid has no name.
    """
    import psycopg

    from airflow_pgbackup.postgres.sql.anybytes import accept_any_bytes

    complete = _complete(keywords, password)
    for pause in (*_SLOT_PAUSES, None):
        if sessions:
            sessions.check()
        try:
            with for_libpq(system_certificates=complete.get("sslrootcert") == "system"):
                session = psycopg.connect(**complete, autocommit=True, prepare_threshold=None)  # type: ignore[arg-type]
            try:
                if sessions:
                    sessions.add(session)
                if peer_uid is not None:
                    _check_peer(session, peer_uid, label)
                accept_any_bytes(session)
                session.autocommit = autocommit
            except BaseException:
                session.close()
                raise
            return session
        except psycopg.OperationalError as error:
            text = str(error)
        except psycopg.Error as error:
            raise ConfigurationError(f"invalid connection parameters for {label}: {_reason(str(error))}") from None
        if pause is None or not _NO_SLOT.search(text):
            break
        time.sleep(pause)
    raise ConnectError(f"cannot connect to {label}: {_reason(text)}", hint=hint_for(text))


def _complete(keywords: Mapping[str, str], password: str | None) -> dict[str, str]:
    """Add what keeps libpq from reading the worker's variables: a value for each keyword whose variable is set."""
    complete = {"fallback_application_name": "airflow-pgbackup", **keywords, "client_encoding": "UTF8"}
    if "user" not in complete:
        complete["user"] = _system_user()
    if password is not None:
        complete["password"] = password
    for keyword, variable in variables().items():
        if variable in os.environ and variable not in NO_KEYWORD_OVERRIDES:
            complete.setdefault(keyword, compiled_defaults().get(keyword, ""))
    return complete


def _system_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ConfigurationError(
            f"the connection has no user, and uid {os.geteuid()} has no name on this machine",
            hint="Give the connection a login.",
        ) from None


def _check_peer(session: psycopg.Connection[tuple[Any, ...]], expected: int, label: str) -> None:
    """Check that the server runs as the expected user, by SO_PEERCRED of unix(7).

    :raises ConnectError: it runs as another user.
    """
    with socket.socket(fileno=os.dup(session.fileno())) as pipe:
        _, uid, _ = struct.unpack("3i", pipe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid != expected:
        raise ConnectError(f"the socket of {label} belongs to uid {uid}, expected uid {expected}")


def _reason(text: str) -> str:
    """Return psycopg's message on one line, with each different failure once."""
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
