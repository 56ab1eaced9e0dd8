"""The password for PostgreSQL's tools: a private file in pgpass format, which exists only while a tool runs.

libpq's side of it is passwordFromFile() in src/interfaces/libpq/fe-connect.c: a line counts when host, port, database
and user equal the connection's own text, or are ``*``; the first that does is taken.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from airflow_pgbackup.private_directory import PrivateDirectory

if TYPE_CHECKING:
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

log = logging.getLogger(__name__)

ANY = "*"


@contextmanager
def pgpass_file(params: ConnectionParams, *, directory: Path | None = None) -> Iterator[Path | None]:
    """Write a file of mode 0600 that holds the password for every database of this server; removed at the end.

    Where ``params.renew_every`` is set, it is rewritten that often with a fresh password. None when there is no
    password, or none that such a file can hold: then it has to go by ``PGPASSWORD``.

    :param directory: a private directory of the caller's, which removes the file; default one of its own.
    """
    password = params.get_password()
    if password is None or not fits_pgpass(password):
        yield None
        return
    with PrivateDirectory() if directory is None else nullcontext(directory) as place:
        path = place / "pgpass"
        _write(path, pgpass_text(params, password))
        with _renewed(path, params):
            yield path


def fits_pgpass(password: str) -> bool:
    """False for what a pgpass line cannot hold: a line break, or a carriage return at the end, which libpq strips."""
    return "\n" not in password and not password.endswith("\r")


def pgpass_text(params: ConnectionParams, password: str) -> str:
    """One line for each host of the connection, with its port; ``*`` for what the connection leaves open."""
    user = params.user
    # Nothing but this connection's tools reads the file, so a user with a line break may be any.
    user_field = escape(user) if user and "\n" not in user and "\r" not in user else ANY
    lines = []
    for host, port in _hosts(params):
        port_field = escape(port) if port else ANY
        for name in _names(host):
            lines.append(":".join([escape(name), port_field, ANY, user_field, _escape(password)]) + "\n")
    return "".join(dict.fromkeys(lines))


def escape(field: str) -> str:
    """A field of a pgpass line that means just this text."""
    if field == ANY:
        return "\\*"
    # A line that begins with # is a comment.
    return ("\\" if field.startswith("#") else "") + _escape(field)


def secret_forms(password: str | None) -> list[str]:
    """Every form in which the password may be written somewhere, for a log masker; the longest first."""
    if not password:
        return []
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    forms = {password, _escape(password), quote(password, safe=""), quote(password), quote_plus(password), quoted}
    return sorted(forms, key=lambda form: (-len(form), form))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _hosts(params: ConnectionParams) -> list[tuple[str, str]]:
    """What libpq looks up for each host of the list: its name, or the address where it has none; and its port."""
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
    # libpq calls its own default socket folder, which is another one in each build, localhost.
    if not host:
        return ["localhost"]
    if host.startswith(("/", "@")):
        return [host, "localhost"]
    return [host]


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  a descriptor has no path
        file.write(text)


@contextmanager
def _renewed(path: Path, params: ConnectionParams) -> Iterator[None]:
    """Replace the file every ``renew_every`` seconds: pg_dumpall connects anew for every database."""
    if not params.renew_every:
        yield
        return
    ended = threading.Event()
    writing = threading.Lock()

    def renew() -> None:
        while not ended.wait(params.renew_every) and path.exists():  # a tool's leader removes it when the tool ends
            try:
                text = _renewed_text(params)
            except Exception as error:  # noqa: BLE001  the old one may still do; if not, the tool says so
                log.warning("could not renew the password of %s: %s", params.label, type(error).__name__)
                continue
            with writing:
                if not ended.is_set():
                    _replace(path, text)

    threading.Thread(target=renew, name="pgpass", daemon=True).start()
    try:
        yield
    finally:
        with writing:  # but not for a token service that is slow
            ended.set()


def _renewed_text(params: ConnectionParams) -> str:
    password = params.get_password()
    if password is None or not fits_pgpass(password):
        raise ValueError("the new password does not fit into a pgpass file")
    return pgpass_text(params, password)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name("pgpass.new")
    try:
        fresh.unlink(missing_ok=True)
        _write(fresh, text)
        fresh.replace(path)
    except FileNotFoundError:  # the tool has just ended
        return
    except OSError as error:
        log.warning("could not renew the password file: %s", error.strerror)
