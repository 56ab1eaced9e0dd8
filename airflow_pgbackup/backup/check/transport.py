"""Who could stand between this worker and the server: is the server's identity proved before a password is sent?

Source: the libpq manual, sections SSL Support and Database Connection Control Functions.
"""

from __future__ import annotations

import ipaddress

from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

_WHAT_IT_DOES = {
    "disable": "nothing is encrypted: who is on the way reads and changes all of it",
    "allow": "TLS is used only where the server insists: who is on the way takes it off",
    "prefer": "TLS is used where it can be had: who is on the way takes it off",
    "require": "the connection is encrypted, but to whoever answers: any certificate is taken",
    "verify-ca": "any server with a certificate of that CA is taken for this one",
}
_BEFORE_SCRAM = frozenset({"password", "md5"})
"""Methods by which a server gets the password, or an answer that it can relay to the real one or guess from."""


def check_transport(connection: ConnectionParams, findings: Findings) -> None:
    """Warn where somebody on the network can answer for the server.

    A Unix socket and the loopback interface are no network; ``verify-full`` and Kerberos prove the server.
    """
    said = connection.keywords
    # libpq takes no weaker mode than verify-full with the system's certificate authorities.
    mode = said.get("sslmode") or ("verify-full" if said.get("sslrootcert") == "system" else "prefer")
    if mode == "verify-full" or said.get("gssencmode") == "require" or not _by_network(connection):
        return
    findings.warning(
        "tls_verification",
        f"{connection.label} is reached over a network with sslmode={mode}: {_WHAT_IT_DOES.get(mode, 'unknown')}",
        "set sslmode=verify-full in the connection, and sslrootcert to the file of the server's CA, or to system for a "
        "public one",
    )
    if connection.password is not None and _sends_passwords(said.get("require_auth", "")):
        findings.warning(
            "require_auth",
            f"{connection.label} gives its password in clear, or by MD5, to a server that asks so, be it an impostor",
            "set require_auth=scram-sha-256 in the connection, which PostgreSQL clients know since 16",
        )


def _by_network(connection: ConnectionParams) -> bool:
    said = connection.keywords
    hosts = said.get("hostaddr") or connection.host  # libpq connects to the address, where there is one
    return any(not _is_local(host.strip()) for host in hosts.split(","))


def _is_local(host: str) -> bool:
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sends_passwords(require_auth: str) -> bool:
    """:param require_auth: methods with commas between them; or, each with ``!``, those that are not allowed."""
    methods = {method.strip() for method in require_auth.split(",") if method.strip()}
    denied = {method[1:] for method in methods if method.startswith("!")}
    if denied or not methods:
        return not denied >= _BEFORE_SCRAM
    return bool(methods & _BEFORE_SCRAM)
