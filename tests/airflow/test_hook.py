"""PgBackupHook reads a connection as the official PostgresHook does, and nothing of its password gets out."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import find_clients
from airflow_pgbackup.postgres.tools.process import run_tool


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``connection(conn_id="db", **fields)`` or ``connection(uri=…)``: an Airflow connection by environment."""

    def make(conn_id: str = "db", uri: str | None = None, **fields: object) -> None:
        text = uri if uri is not None else json.dumps({"conn_type": "postgres", **fields})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", text)

    return make


def as_official(database: str | None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments with which PostgresHook calls psycopg, whichever of the two it uses."""
    import psycopg.connection
    from airflow.providers.postgres.hooks import postgres

    class Called(Exception):
        pass

    def connect(**arguments: Any) -> None:
        raise Called(arguments)

    monkeypatch.setattr(psycopg.connection.Connection, "connect", connect)
    monkeypatch.setattr(postgres, "ppg2_connect", connect)
    with pytest.raises(Called) as called:
        postgres.PostgresHook(postgres_conn_id="db", database=database).get_conn()
    given: dict[str, Any] = called.value.args[0]
    return given


def by_psycopg(arguments: dict[str, Any]) -> dict[str, str]:
    """What psycopg makes of them: the keywords that libpq sees."""
    from psycopg import conninfo

    own = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")
    libpq = {name: value for name, value in arguments.items() if name not in own}
    return {name: str(value) for name, value in conninfo.conninfo_to_dict(conninfo.make_conninfo(**libpq)).items()}


EXTRAS: list[dict[str, Any]] = [
    {},
    {"sslmode": "verify-full", "sslrootcert": "/ca.pem", "sslcert": "/c.pem", "sslkey": "/k.pem", "sslcrl": "/crl.pem"},
    {"host": "db.example.com", "hostaddr": "10.1.2.3", "connect_timeout": 10, "options": "-c statement_timeout=0"},
    {"target_session_attrs": "read-write", "load_balance_hosts": "random", "keepalives_idle": 30, "keepalives": 1},
    {
        "application_name": "nightly",
        "channel_binding": "require",
        "gssencmode": "disable",
        "require_auth": "scram-sha-256",
    },
    {"cursor": "dictcursor", "sqlalchemy_scheme": "postgresql+psycopg", "sqlalchemy_query": {"a": "b"}},
    {"autocommit": True, "prepare_threshold": 0, "aws_conn_id": "x", "redshift": False, "azure_conn_id": "y"},
    {"password": 12345678},
    {"host": "other", "port": 6543, "user": "somebody", "dbname": "elsewhere", "password": "another one"},
]
PLACES: list[dict[str, Any]] = [
    {"host": "db.example.com", "port": 5433, "login": "me", "password": "s3cret:\\ word", "schema": "app"},
    {"host": "a.example.com,b.example.com", "port": None, "login": "me", "schema": "app"},
    {"host": "2001:db8::1", "port": 5432, "login": "me", "password": "x" * 200, "schema": "app"},
    {"host": "/var/run/postgresql", "login": "me", "schema": "app"},
    {"host": "h", "login": "me", "schema": "host=evil dbname=x"},
]


@pytest.mark.parametrize("extra", EXTRAS, ids=[",".join(extra) or "none" for extra in EXTRAS])
@pytest.mark.parametrize("place", PLACES, ids=[place["host"] for place in PLACES])
@pytest.mark.parametrize("database", [None, "postgresql://h/x"])
def test_the_same_as_postgres_hook(
    extra: dict[str, Any],
    place: dict[str, Any],
    database: str | None,
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    connection(**place, extra=extra)
    official = by_psycopg(as_official(database, monkeypatch))
    params = PgBackupHook("db", database=database).get_conninfo()
    ours = {**params.keywords, **({"password": password} if (password := params.get_password()) else {})}
    assert ours == official


def test_a_connection_by_uri(connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    connection(uri="postgres://me%40corp:p%3Aw%2F@[2001:db8::1]:5433/my%20db?sslmode=require&connect_timeout=3")
    params = PgBackupHook("db").get_conninfo()
    assert params.get_password() == "p:w/"
    assert dict(params.keywords) == {
        "host": "2001:db8::1",
        "port": "5433",
        "user": "me@corp",
        "dbname": "my db",
        "sslmode": "require",
        "connect_timeout": "3",
    }


def test_a_service(connection: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    (tmp_path / "service.conf").write_text("[night]\nhost=db.example.com\nuser=from-service\npassword=service-secret\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "service.conf"))
    connection(login="me", schema="app", extra={"service": "night"})
    params = PgBackupHook("db").get_conninfo()
    assert (params.host, params.user, params.dbname) == ("db.example.com", "me", "app")
    assert params.get_password() == "service-secret"
    assert masked("service-secret") == "***"


def test_an_extra_that_libpq_does_not_know(connection: Callable[..., None]) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    connection(host="h", extra={"ssl_mode": "require"})
    with pytest.raises(ConfigurationError, match=r"unknown connection option 'ssl_mode'. HINT: Did you mean 'sslmode'"):
        PgBackupHook("db").get_conninfo()


@pytest.mark.parametrize("extra", ["null", "[1]", '"text"', "5"])
def test_an_extra_that_is_not_an_object(connection: Callable[..., None], extra: str) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    connection(host="h", extra=extra)
    with pytest.raises(ConfigurationError, match="the extra of connection db is not a JSON object"):
        PgBackupHook("db").get_conninfo()


def test_a_connection_that_is_not_defined(airflow_db: Path) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    with pytest.raises(ConfigurationError, match=r"^Airflow finds no connection 'nowhere'\. HINT: Create") as caught:
        PgBackupHook("nowhere").get_conninfo()
    assert caught.value.retry == "later", "perhaps a secrets backend did not answer"


def masked(text: str) -> str:
    from airflow.sdk._shared.secrets_masker import redact

    return str(redact(text))


def test_every_form_of_the_password_is_masked(server18: PostgresServer, canary: str, postgres_connection: Any) -> None:
    from urllib.parse import quote

    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    postgres_connection("db", server18.params, extra={"sslpassword": "key:passphrase"})
    PgBackupHook("db").get_conninfo()
    pgpass = canary.replace("\\", "\\\\").replace(":", "\\:")
    for form in (canary, pgpass, quote(canary), quote(canary, safe=""), "key:passphrase", "key\\:passphrase"):
        assert masked(f"it is {form}!") == "it is ***!"


def test_pgpass_is_private_and_short_lived(server18: PostgresServer, canary: str, postgres_connection: Any) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    postgres_connection("db", server18.params)
    (psql,) = {client.tool("psql") for client in find_clients() if client.major == 18}
    with PgBackupHook("db").pgpass() as path:
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        # PostgreSQL's own program finds its password there
        environment = {"PGPASSFILE": str(path), "LC_ALL": "C", "HOME": "/"}
        arguments = ["-h", "127.0.0.1", "-p", str(server18.port), "-U", server18.superuser, "-w", "-X", "-A", "-t"]
        answer = run_tool([psql, *arguments, "-c", "select 40 + 2", "postgres"], env=environment)
        assert answer == b"42\n"
    assert not path.exists()
    assert not path.parent.exists()


def test_client_environment_is_a_list_of_its_own(
    server18: PostgresServer, fresh_database: Any, postgres_connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    params = fresh_database(server18, "host=evil dbname=x")
    postgres_connection("db", params)
    for name in (
        "PGHOST",
        "PGDATABASE",
        "PGSERVICE",
        "PGOPTIONS",
        "AIRFLOW__CORE__FERNET_KEY",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, "misleading")
    (psql,) = {client.tool("psql") for client in find_clients() if client.major == 18}
    with PgBackupHook("db").client_environment() as environment:
        assert not [name for name in environment if name.startswith(("AIRFLOW", "AWS"))]
        assert "misleading" not in environment.values()
        assert "PGTZ" not in environment
        answer = run_tool([psql, "-w", "-X", "-A", "-t", "-c", "select current_database()"], env=environment)
    assert answer == b"host=evil dbname=x\n"


def test_a_session_of_ours(server18: PostgresServer, fresh_database: Any, postgres_connection: Any) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    params = fresh_database(server18)
    postgres_connection("db", server18.params)
    with PgBackupHook("db", database=params.dbname).get_conn() as session:
        assert session.execute("select current_database()").fetchone() == (params.dbname,)
    postgres_connection("db", server18.params, password="wrong")
    with pytest.raises(ConnectError, match="password authentication failed"):
        PgBackupHook("db").get_conn()


def test_an_iam_token_instead_of_a_password(connection: Callable[..., None]) -> None:
    """RDS tokens are signed here, without a call to AWS; each use gets a fresh one, and it is masked."""
    from airflow_pgbackup.hooks.pgbackup import TOKEN_RENEW_SECONDS, PgBackupHook

    connection(
        "aws_rds", conn_type="aws", login="AKIDEXAMPLE", password="aws secret key", extra={"region_name": "eu-west-1"}
    )
    connection(
        host="db.abc.eu-west-1.rds.amazonaws.com",
        login="backup",
        schema="app",
        extra={"iam": True, "aws_conn_id": "aws_rds", "sslmode": "require"},
    )
    params = PgBackupHook("db").get_conninfo()
    assert dict(params.keywords) == {
        "host": "db.abc.eu-west-1.rds.amazonaws.com",
        "port": "5432",
        "user": "backup",
        "dbname": "app",
        "sslmode": "require",
    }
    assert params.renew_every == TOKEN_RENEW_SECONDS
    first = params.get_password()
    assert first is not None
    assert first.startswith("db.abc.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=backup&X-Amz-Algorithm=")
    assert masked(first) == "***"
    time.sleep(1.1)  # the signature has a stamp in whole seconds
    second = params.get_password()
    assert second != first
    assert masked(str(second)) == "***"


def test_no_iam_token(connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    connection("aws_rds", conn_type="aws", extra={"region_name": "eu-west-1"})
    connection(host="db.rds.amazonaws.com", login="backup", extra={"iam": True, "aws_conn_id": "aws_rds"})
    with pytest.raises(ConnectError, match=r"no IAM token for connection db: Unable to locate credentials. HINT: "):
        PgBackupHook("db").get_conninfo()


def test_no_token_for_a_reason_of_azure(connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its libraries raise errors that derive from Exception only."""
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    class CredentialUnavailableError(Exception):
        pass

    def fail(*_: object) -> None:
        raise CredentialUnavailableError("no managed identity endpoint found\n")

    monkeypatch.setattr(PostgresHook, "get_iam_token", fail)
    connection(host="db.postgres.database.azure.com", login="backup", extra={"iam": True, "azure_conn_id": "azure"})
    with pytest.raises(
        ConnectError, match=r"no IAM token for connection db: no managed identity endpoint found\. HINT"
    ):
        PgBackupHook("db").get_conninfo()


def test_parameters_show_no_secret(server18: PostgresServer, postgres_connection: Any, assert_no_canary: Any) -> None:
    from airflow_pgbackup.hooks.pgbackup import PgBackupHook

    postgres_connection("db", server18.params)
    hook = PgBackupHook("db")
    params = hook.get_conninfo()
    assert isinstance(params, ConnectionParams)
    assert_no_canary(repr(params) + str(params) + params.label + repr(hook) + repr(vars(hook)))
    assert "PGPASSWORD" not in os.environ
