"""Which connections check warns of: those over a network whose server proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_pgbackup.backup.check.transport import check_transport
from airflow_pgbackup.backup.findings import Finding, Findings
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams, Password


def found(password: Password = "secret", **keywords: str) -> list[Finding]:
    findings = Findings()
    check_transport(ConnectionParams.resolve(keywords, password=password, home=Path("/nonexistent")), findings)
    return findings.all


def codes(password: Password = "secret", **keywords: str) -> list[str]:
    return [finding.code for finding in found(password, **keywords)]


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
        {"host": "db.example.com", "sslmode": "require", "channel_binding": "require"},
        {"host": "db1,localhost", "hostaddr": "127.0.0.1,"},
    ],
    ids=str,
)
def test_silent(keywords: dict[str, str]) -> None:
    assert codes(**keywords) == []


def test_a_host_without_an_address_of_its_own() -> None:
    assert codes(host="db1,localhost", hostaddr=",127.0.0.1") == ["tls_verification", "require_auth"]


def test_a_token_must_go_in_clear_text() -> None:
    assert codes(lambda: "token", host="db.example.com", sslmode="require") == ["tls_verification"]


def test_require_with_a_certificate_authority_verifies_it(tmp_path: Path) -> None:
    (tmp_path / "root.crt").touch()
    (tls,) = found(None, host="db", sslmode="require", sslrootcert=str(tmp_path / "root.crt"))
    assert "acts as verify-ca" in tls.message
    (tls,) = found(None, host="db", sslmode="require", sslrootcert=str(tmp_path / "missing"))
    assert "any certificate is accepted, also" in tls.message


@pytest.mark.parametrize(
    ("line", "warned"),
    [
        ("db:5432:*:*:x", True),
        ("*:*:*:*:x", True),
        ("other:*:*:*:x", False),
        ("# db:", False),
        (r"fe80\:\:1:*:*:*:x", True),
    ],
)
def test_a_password_in_a_file(tmp_path: Path, line: str, warned: bool) -> None:
    (tmp_path / "pgpass").write_text(f"\n{line}\n")
    given = codes(None, host="db,fe80::1", passfile=str(tmp_path / "pgpass"))
    assert ("require_auth" in given) is warned
    assert codes(None, host="db", passfile=str(tmp_path / "missing")) == ["tls_verification"]


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
