"""Which connections check warns of: those over a network whose server proves nothing."""

from __future__ import annotations

import pytest

from airflow_pgbackup.backup.check.transport import check_transport
from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams


def codes(password: str | None = "secret", **keywords: str) -> list[str]:
    findings = Findings()
    check_transport(ConnectionParams(keywords, password=password), findings)
    return [finding.code for finding in findings.all]


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"host": "/var/run/postgresql"},
        {"host": "@abstract"},
        {"host": "localhost"},
        {"host": "127.0.0.1"},
        {"host": "127.1.2.3"},
        {"host": "::1"},
        {"host": "db.example.com", "hostaddr": "127.0.0.1"},
        {"host": "localhost,/tmp"},
        {"host": "db.example.com", "sslmode": "verify-full"},
        {"host": "db.example.com", "sslrootcert": "system"},
        {"host": "db.example.com", "gssencmode": "require"},
    ],
    ids=str,
)
def test_silent(keywords: dict[str, str]) -> None:
    assert codes(**keywords) == []


@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.1", "fe80::1", "localhost,db.example.com", "0.0.0.0"])
@pytest.mark.parametrize("mode", ["", "disable", "allow", "prefer", "require", "verify-ca"])
def test_a_network_without_server_verification(host: str, mode: str) -> None:
    more = {"sslmode": mode} if mode else {}
    assert codes(host=host, **more) == ["tls_verification", "require_auth"]
    assert codes(None, host=host, **more) == ["tls_verification"]


@pytest.mark.parametrize(
    ("methods", "warned"),
    [
        ("scram-sha-256", False),
        ("scram-sha-256,gss", False),
        ("!password,!md5", False),
        ("!password", True),
        ("password", True),
        ("scram-sha-256,md5", True),
        ("", True),
    ],
)
def test_require_auth(methods: str, warned: bool) -> None:
    assert ("require_auth" in codes(host="db.example.com", require_auth=methods)) is warned
