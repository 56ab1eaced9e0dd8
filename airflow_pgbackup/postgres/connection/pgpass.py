"""The password for PostgreSQL's tools: a private file in pgpass format that exists only while a tool runs.

libpq reads it in passwordFromFile() of src/interfaces/libpq/fe-connect.c: it takes the first line whose host, port,
database and user equal the connection's own, character by character, or are ``*``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote, quote_plus

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.renewal import renewed_password
from airflow_pgbackup.private_directory import PrivateDirectory

log = logging.getLogger(__name__)

ANY = "*"


@contextmanager
def pgpass_file(params: ConnectionParams, *, directory: Path | None = None) -> Iterator[Path | None]:
    """Write a file of mode 0600 with the password for every database of this server; remove it at the end.

    With ``params.renew_every`` the file is rewritten with a new password at that interval. The value is None if there
    is no password, or if a pgpass file cannot hold it: then use ``PGPASSWORD``.

    :param directory: an existing private directory, whose owner removes the file; default a new one.
    """
    password = params.get_password()
    if password is None or not fits_pgpass(password):
        yield None
        return
    with PrivateDirectory() if directory is None else nullcontext(directory) as place:
        path = place / "pgpass"
        _write(path, pgpass_text(params, password))

        def take(new: str) -> None:
            if not fits_pgpass(new):
                raise ValueError("a pgpass file cannot hold the new password")
            _replace(path, pgpass_text(params, new))

        # pg_dumpall opens a new connection for each database. The tool's leader removes the file.
        with renewed_password(params, take, needed=path.exists):
            yield path


def fits_pgpass(password: str) -> bool:
    """Return False for a password with a line break, or a carriage return at its end, which libpq strips."""
    return "\n" not in password and not password.endswith("\r")


def pgpass_text(params: ConnectionParams, password: str) -> str:
    """Return one line for each host of the connection with its port, and ``*`` for each field that is not set."""
    user = params.user
    # Only this connection's tools read the file, so ``*`` is safe for a user name that a line cannot hold.
    user_field = escape(user) if user and "\n" not in user and "\r" not in user else ANY
    lines = []
    for host, port in _hosts(params):
        port_field = escape(port) if port else ANY
        for name in _names(host):
            lines.append(":".join([escape(name), port_field, ANY, user_field, _escape(password)]) + "\n")
    return "".join(dict.fromkeys(lines))


def escape(field: str) -> str:
    """Return the field of a pgpass line that matches exactly this text."""
    if field == ANY:
        return "\\*"
    # A line that begins with # is a comment.
    return ("\\" if field.startswith("#") else "") + _escape(field)


def secret_forms(password: str | None) -> list[str]:
    """Return every form in which the password can appear in a log, longest first, for a log masker."""
    if not password:
        return []
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    forms = {password, _escape(password), quote(password, safe=""), quote(password), quote_plus(password), quoted}
    return sorted(forms, key=lambda form: (-len(form), form))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _hosts(params: ConnectionParams) -> list[tuple[str, str]]:
    """Return what libpq looks up for each host of the list: its name, else its address; and its port."""
    names = params.host.split(",")
    addresses = params.keywords.get("hostaddr", "").split(",")
    ports = params.port.split(",")
    count = max(len(names), len(addresses))
    names += [""] * (count - len(names))
    addresses += [""] * (count - len(addresses))
    if len(ports) == 1:
        ports *= count
    return [(name or address, port) for name, address, port in zip(names, addresses, ports, strict=False)]


def _names(host: str) -> list[str]:
    # libpq looks up localhost for its default socket directory, which differs between builds.
    if not host:
        return ["localhost"]
    if host.startswith(("/", "@")):
        return [host, "localhost"]
    return [host]


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  a descriptor has no path
        file.write(text)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name("pgpass.new")
    try:
        fresh.unlink(missing_ok=True)
        _write(fresh, text)
        fresh.replace(path)
    except FileNotFoundError:  # the tool has just ended, and its leader removed the directory
        return
    except OSError as error:
        log.warning("could not renew the password file: %s", error.strerror)
