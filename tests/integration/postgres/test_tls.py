"""TLS: certificates of server and client are verified, and every failure has a clear error.

On every PostgreSQL here that was built with TLS; one that was not says so.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from builds import BUILDS, Build, each
from certificates import Authority

from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConnectError, PgBackupError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools import clients
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

WITH_TLS = [build for build in BUILDS if build.tls]
WITHOUT_TLS = [build for build in BUILDS if not build.tls]
NAME = "tls_admin"


@dataclass
class World:
    """A server that accepts only TLS with client certificates, and the certificates of both sides."""

    server: PostgresServer
    ours: Authority
    theirs: Authority
    client: tuple[Path, Path]
    stranger: tuple[Path, Path]

    def connection(self, **keywords: object) -> ConnectionParams:
        """Return valid parameters, changed by `keywords`; None removes one."""
        certificate, key = self.client
        right: dict[str, object] = {
            "host": "localhost",
            "hostaddr": "127.0.0.1",
            "port": self.server.port,
            "user": NAME,
            "dbname": "postgres",
            "sslmode": "verify-full",
            "sslrootcert": self.ours.certificate,
            "sslcert": certificate,
            "sslkey": key,
            **keywords,
        }
        return ConnectionParams.resolve({name: str(value) for name, value in right.items() if value is not None})


@pytest.fixture(scope="module", params=WITH_TLS, ids=str)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, canary: str) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    certificate, key = ours.sign("the server", "localhost")
    hba = folder / "pg_hba.conf"
    hba.write_text("hostssl all all 127.0.0.1/32 cert\n")
    settings = {
        "ssl": "on",
        "ssl_cert_file": str(certificate),
        "ssl_key_file": str(key),
        "ssl_ca_file": str(ours.certificate),
        "hba_file": str(hba),
    }
    build: Build = request.param
    with PostgresServer(build.bin_dir, password=canary, tcp=True, superuser=NAME, settings=settings) as server:
        yield World(server, ours, theirs, ours.sign(NAME), theirs.sign(NAME))


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    repository = open_repository((tmp_path / "repository").as_uri())
    repository.init()
    return repository


def programs(world: World) -> Settings:
    return Settings(client_dirs=(str(world.server.bin_dir),))


def dump(world: World, connection: ConnectionParams, here: Repository) -> dict[str, object]:
    return dump_database(
        connection=connection,
        server="s",
        repository=here,
        options=DumpOptions(),
        context=RunContext(settings=programs(world)),
    )


def test_verify_full_with_a_client_certificate(world: World, here: Repository) -> None:
    reference = dump(world, world.connection(), here)
    assert (
        verify(reference=reference, repository=here, context=RunContext(settings=programs(world)))["verified"]
        == "archive"
    )


def test_the_certificates_of_the_system(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """psycopg's binary wheels look for them where they are not, unless a variable of OpenSSL is set."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    paths = SimpleNamespace(cafile=str(world.ours.certificate), capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    monkeypatch.setenv("PGSSLMODE", "verify-full")  # not read, but its compiled default must not take its place
    with world.connection(sslrootcert="system", sslmode=None).open_session() as session:
        assert session.info.backend_pid
    assert not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys()


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"sslrootcert": "theirs"}, "certificate verify failed", "not signed by a CA in sslrootcert"),
        ({"host": "127.0.0.1"}, "does not match host name", "connect by the name in the certificate"),
        ({"sslcert": None, "sslkey": None}, "certificate", "set the connection's sslcert and sslkey"),
        (
            {"sslcert": "stranger", "sslkey": "stranger"},
            "unknown ca",
            "does not trust the CA of the client certificate",
        ),
        ({"user": "somebody"}, "certificate authentication failed", "does not identify this user by a password"),
        ({"sslmode": "disable", "sslcert": None, "sslkey": None}, "no encryption", "set sslmode=require"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_refused_connections(
    wrong: dict[str, str | None], message: str, hint: str, world: World, here: Repository
) -> None:
    files = {
        ("sslrootcert", "theirs"): world.theirs.certificate,
        ("sslcert", "stranger"): world.stranger[0],
        ("sslkey", "stranger"): world.stranger[1],
    }
    keywords = {name: files.get((name, value or ""), value) for name, value in wrong.items()}
    connection = world.connection(**keywords)
    with pytest.raises(ConnectError) as caught:
        dump(world, connection, here)
    print(caught.value)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    (finding,) = check(connection=connection, server="s")
    assert (finding.code, finding.hint) == ("connect", caught.value.hint)


@pytest.mark.every_value
@pytest.mark.parametrize(
    ("keywords", "warned"),
    [
        ({}, False),
        ({"host": "0.0.0.0", "hostaddr": None, "sslmode": "require", "sslrootcert": None}, True),
        ({"host": "0.0.0.0", "hostaddr": None, "sslmode": "verify-ca"}, True),
        ({"sslmode": "require"}, False),
    ],
    ids=str,
)
def test_check_warns_of_a_server_that_proves_nothing(
    world: World, keywords: dict[str, str | None], warned: bool
) -> None:
    """0.0.0.0 is not a loopback address, but reaches this machine."""
    found = {finding.code: finding for finding in check(connection=world.connection(**keywords), server="s")}
    assert "connect" not in found
    assert ("tls_verification" in found) is warned
    assert "require_auth" not in found, "there is no password to send"


def test_a_client_without_tls(world: World, here: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own session connects, the wheel's pg_dump cannot: its error has a hint, and check finds it in advance."""
    monkeypatch.setattr(clients, "WELL_KNOWN", ())
    settings = Settings(client_dirs=(str(postgres_bin_dir(18)),))
    with pytest.raises(ToolError) as caught:
        dump_database(
            connection=world.connection(),
            server="s",
            repository=here,
            options=DumpOptions(),
            context=RunContext(settings=settings),
        )
    assert "built without TLS" in (caught.value.hint or "")
    findings = {
        finding.code: finding
        for finding in check(connection=world.connection(), server="s", context=RunContext(settings=settings))
    }
    assert findings["tool"].hint == caught.value.hint


@each(WITHOUT_TLS)
def test_a_server_without_tls(build: Build, canary: str, here: Repository) -> None:
    with PostgresServer(build.bin_dir, password=canary, tcp=True) as server:
        required = ConnectionParams({**server.params.keywords, "sslmode": "require"}, password=canary)
        with pytest.raises(PgBackupError) as caught:
            dump_database(connection=required, server="s", repository=here, options=DumpOptions())
    assert "server does not support SSL" in caught.value.message
    assert "Set ssl = on in the server" in (caught.value.hint or "")


if not WITH_TLS:  # a fixture without parameters would skip its tests
    del test_verify_full_with_a_client_certificate, test_refused_connections, test_a_client_without_tls
    del test_check_warns_of_a_server_that_proves_nothing
