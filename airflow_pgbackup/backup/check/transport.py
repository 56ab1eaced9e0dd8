"""Problems of the network between this worker and the server: an unverified server, dropped idle connections.

Source: the libpq manual, sections SSL Support and Database Connection Control Functions.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

LONGEST_IDLE = 900
"""Highest keepalives_idle, in seconds, that is not reported. AWS's load balancers drop a connection after 350 s."""

_RISK = {
    "disable": "nothing is encrypted, so an attacker on the network can read and change everything",
    "allow": "TLS is used only if the server insists, so an attacker on the network can turn it off",
    "prefer": "TLS is used only if the server offers it, so an attacker on the network can turn it off",
    "require": "the connection is encrypted, but any certificate is accepted, also an attacker's",
    "verify-ca": "any server with a certificate of that CA is accepted",
}
_FIRST_FIELD = re.compile(r"(?:\\.|[^:\\])*")  # of a line of a password file: the host, with : and \ escaped
_BEFORE_SCRAM = frozenset({"password", "md5"})
"""Methods that give a server the password, or an answer that it can relay to the real server or use to guess."""


def check_transport(connection: ConnectionParams, findings: Findings) -> None:
    """Warn if an attacker on the network could impersonate the server.

    Unix sockets and the loopback interface are safe; ``verify-full``, Kerberos and channel binding, which needs the
    server to know the password's hash, authenticate the server.
    """
    keywords = connection.keywords
    if keywords.get("channel_binding") == "require":
        return
    mode = keywords.get("sslmode", "prefer")
    if mode == "verify-full" or keywords.get("gssencmode") == "require" or not _by_network(connection):
        return
    findings.warning(
        "tls_verification",
        f"{connection.label} is reached over a network with sslmode={mode}: {_risk(mode, keywords)}",
        "Set sslmode=verify-full in the connection, and sslrootcert to the file of the server's CA, or to system for a "
        "public CA.",
    )
    # The services that take a token, as AWS IAM, ask for it in clear text, which require_auth would refuse.
    has_password = isinstance(connection.password, str) or (connection.password is None and _has_in_passfile(keywords))
    if has_password and _sends_passwords(keywords.get("require_auth", "")):
        findings.warning(
            "require_auth",
            f"{connection.label} sends its password in clear text or by MD5 if the server asks for that, even to an "
            "impostor",
            "Set require_auth=scram-sha-256 in the connection; PostgreSQL clients support it since version 16.",
        )


def check_keepalives(connection: ConnectionParams, findings: Findings) -> None:
    """Warn if TCP keepalives would not keep an idle connection open, while the server builds an index, say."""
    if not _by_network(connection):
        return
    keywords = connection.keywords
    if keywords.get("keepalives") == "0":
        report_problem(findings, "keepalives", ["keepalives = 0"])
    elif (idle := keywords.get("keepalives_idle", "")).isdecimal() and int(idle) > LONGEST_IDLE:
        report_problem(findings, "keepalives", [f"keepalives_idle = {idle}"])


def _risk(mode: str, keywords: Mapping[str, str]) -> str:
    # With a CA's file require checks the certificate, for compatibility; without that file libpq ignores the keyword.
    if mode == "require" and (file := keywords.get("sslrootcert")) and Path(file).exists():
        return f"with sslrootcert that acts as verify-ca: {_RISK['verify-ca']}"
    return _RISK.get(mode, "unknown mode")


def _by_network(connection: ConnectionParams) -> bool:
    return any(not _is_local(host) for host in _hosts(connection.keywords))


def _hosts(keywords: Mapping[str, str]) -> list[str]:
    """Return what libpq connects to: of each host its hostaddr, if it has one."""
    hosts, addresses = keywords.get("host", "").split(","), keywords.get("hostaddr", "").split(",")
    return [address.strip() or host.strip() for host, address in zip_longest(hosts, addresses, fillvalue="")]


def _has_in_passfile(keywords: Mapping[str, str]) -> bool:
    """Return whether the password file has a line for one of the hosts."""
    try:
        lines = Path(keywords.get("passfile", os.devnull)).read_text(errors="replace").splitlines()
    except OSError:
        return False
    named = {host.strip() for key in ("host", "hostaddr") for host in keywords.get(key, "").split(",")} | {"*"}
    fields = (match[0].replace("\\", "") for line in lines if line[:1] != "#" and (match := _FIRST_FIELD.match(line)))
    return any(field in named for field in fields if field)


def _is_local(host: str) -> bool:
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sends_passwords(require_auth: str) -> bool:
    """Return whether ``require_auth`` allows a method that reveals the password.

    :param require_auth: methods separated by commas: the allowed ones, or the forbidden ones, each with ``!``.
    """
    methods = {method.strip() for method in require_auth.split(",") if method.strip()}
    denied = {method[1:] for method in methods if method.startswith("!")}
    if denied or not methods:
        return not denied >= _BEFORE_SCRAM
    return bool(methods & _BEFORE_SCRAM)
