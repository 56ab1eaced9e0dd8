"""What libpq and its OpenSSL read from the environment of this process, corrected while a session is opened."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Variables that libpq obeys even when every keyword is given (libpq, "Environment Variables"). PGSERVICE makes it look
# for a service; PGTZ, PGDATESTYLE and PGGEQO are sent to the server; for the keywords of the others '' is not "unset".
# PGREQUIRESSL has no keyword: conninfo_add_defaults() in src/interfaces/libpq/fe-connect.c.
NO_KEYWORD_OVERRIDES = (
    *("PGSERVICE", "PGTZ", "PGDATESTYLE", "PGGEQO", "PGREQUIRESSL"),
    *("PGREQUIREAUTH", "PGSSLCERTMODE", "PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION"),
)

# Where distributions keep their certificates: Debian, Red Hat, SUSE, Alpine.
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_lock = threading.Lock()
_connecting = 0
_removed: dict[str, str] = {}
_added: list[str] = []


@contextmanager
def for_libpq(*, system_certificates: bool) -> Iterator[None]:
    """Correct the environment while any thread of this process connects.

    The variables that no keyword overrides are removed; they are rarely set.

    :param system_certificates: the connection has ``sslrootcert=system``. OpenSSL in psycopg's binary wheels looks for
        them in a directory of its own, which does not exist; so name the system's own.
    """
    global _connecting
    with _lock:
        _connecting += 1
        _removed.update({name: os.environ.pop(name) for name in NO_KEYWORD_OVERRIDES if name in os.environ})
        if system_certificates and not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys():
            found = _system_certificates()
            os.environ.update(found)
            _added.extend(found)
    try:
        yield
    finally:
        with _lock:
            _connecting -= 1
            if not _connecting:
                os.environ.update(_removed)
                _removed.clear()
                for name in _added:
                    os.environ.pop(name, None)
                _added.clear()


def _system_certificates() -> dict[str, str]:
    """Return the variables that name the system's certificates; {} for a libpq that finds them itself."""
    from psycopg import pq

    if pq.__impl__ != "binary":
        return {}
    paths = ssl.get_default_verify_paths()
    file = paths.cafile or next((path for path in _CERTIFICATES if Path(path).exists()), None)
    found = {"SSL_CERT_FILE": file, "SSL_CERT_DIR": paths.capath}
    return {name: path for name, path in found.items() if path}
