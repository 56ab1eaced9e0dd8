"""Failures of real tools and a real server end in one line that names the cause, and a hint."""

from __future__ import annotations

import contextlib
import datetime
import io
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg import sql

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConnectError, PgBackupError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.process import run_tool

CLOSED = "1"  # nothing listens on this port; one that is only free, another program can take meanwhile
BIN = postgres_bin_dir(18)
Database = Callable[..., ConnectionParams]


def changed(params: ConnectionParams, *, password: str | None = None, **keywords: str) -> ConnectionParams:
    return ConnectionParams.resolve({**params.keywords, **keywords}, password=password or params.password)


def dump(params: ConnectionParams, *arguments: str, bin_dir: Path = BIN) -> bytes:
    with client_environment(params) as env:
        return run_tool([bin_dir / "pg_dump", "-w", *arguments], env=env)


def expect(error: PgBackupError, cause: str, hint: str) -> None:
    assert re.search(cause, error.message), error.message
    assert error.hint is not None, error.message
    assert re.search(hint, error.hint), error.hint
    assert "\n" not in error.message
    assert not error.message.endswith(".")


def refused(params: ConnectionParams, cause: str, hint: str) -> None:
    """Assert that pg_dump and psycopg fail with this cause and hint."""
    with pytest.raises(ToolError) as by_tool:
        dump(params)
    assert by_tool.value.message.startswith("pg_dump failed (exit 1): ")
    expect(by_tool.value, cause, hint)
    with pytest.raises(ConnectError) as by_psycopg:
        params.connect()
    assert by_psycopg.value.message.startswith(f"cannot connect to {params.label}: ")
    expect(by_psycopg.value, cause, hint)


@contextmanager
def role(server: PostgresServer, attributes: str = "LOGIN") -> Iterator[ConnectionParams]:
    with server.params.connect() as connection:
        connection.execute(sql.SQL(f"CREATE ROLE some_role PASSWORD 'its:password' {attributes}"))
        try:
            yield changed(server.params, user="some_role", password="its:password")
        finally:
            connection.execute("DROP OWNED BY some_role; DROP ROLE some_role")


# -- connecting


def test_wrong_password(server18: PostgresServer, assert_no_canary: Callable[[object], None]) -> None:
    refused(changed(server18.params, password="wrong"), "password authentication failed for user", "user and password")
    with pytest.raises(ConnectError) as caught:
        changed(server18.params, user="nobody_here").connect()
    expect(caught.value, "password authentication failed", "reports an unknown user the same way")
    assert_no_canary(repr(caught.value.__dict__))


def test_no_password(server18: PostgresServer) -> None:
    refused(ConnectionParams(keywords=server18.params.keywords), "no password supplied", "pgpass")


def test_missing_database(server18: PostgresServer) -> None:
    refused(server18.params.with_database("nosuch"), 'database "nosuch" does not exist', "case-sensitive")


def test_unknown_host(server18: PostgresServer) -> None:
    refused(changed(server18.params, host="db.invalid"), "db.invalid", "name resolution")


def test_connection_refused(server18: PostgresServer) -> None:
    refused(changed(server18.params, port=CLOSED), "Connection refused", "listen_addresses")


def test_no_socket(server18: PostgresServer) -> None:
    refused(changed(server18.params, host="/nowhere"), "socket .*No such file", "that socket")


def test_no_answer(server18: PostgresServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        refused(changed(server18.params, port=port, connect_timeout="2"), "timeout expired", "firewall")


def test_all_hosts_fail_and_each_is_named(server18: PostgresServer) -> None:
    port = f"{CLOSED},{server18.port}"
    params = changed(server18.params, host="127.0.0.1,localhost", port=port, password="wrong")
    with pytest.raises(ConnectError) as caught:
        params.connect()
    expect(caught.value, "Connection refused; .*password authentication failed", "user and password")


def test_no_pg_hba_entry(server18: PostgresServer) -> None:
    assert server18.private_directory is not None
    hba = server18.private_directory / "data" / "pg_hba.conf"
    before = hba.read_text()
    with changed(server18.params, host=str(server18.socket_dir)).connect() as connection:
        for text, cause in (("", "no pg_hba.conf entry for host"), ("host all all all reject\n", "rejects connection")):
            hba.write_text("local all all scram-sha-256\n" + text)
            connection.execute("select pg_reload_conf()")
            try:
                refused(server18.params, cause, "pg_hba.conf")
            finally:
                hba.write_text(before)
                connection.execute("select pg_reload_conf()")


def test_too_many_connections(server18: PostgresServer) -> None:
    with role(server18, "LOGIN CONNECTION LIMIT 0") as params:
        refused(params, 'too many connections for role "some_role"', "out of connections")


def test_a_role_that_may_not_log_in(server18: PostgresServer) -> None:
    with role(server18, "NOLOGIN") as params:
        refused(params, "not permitted to log in", "LOGIN")


def test_missing_role_where_no_password_is_asked(tmp_path: Path) -> None:
    with PostgresServer(BIN, directory=tmp_path) as server:
        refused(changed(server.params, user="nobody_here"), 'role "nobody_here" does not exist', "no such role")


def test_a_database_that_takes_no_connections(server18: PostgresServer) -> None:
    refused(server18.params.with_database("template0"), "not currently accepting connections", "template0")


def test_no_right_to_connect(server18: PostgresServer, fresh_database: Database) -> None:
    database = fresh_database(server18)
    with server18.params.connect() as connection, role(server18) as params:
        connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.dbname)))
        refused(params.with_database(database.dbname), "permission denied for database", "GRANT CONNECT")


def test_tls(server18: PostgresServer) -> None:
    params = changed(server18.params, sslmode="require")
    with pytest.raises(ConnectError) as ours:
        params.connect()
    expect(ours.value, "server does not support SSL, but SSL was required", "ssl = on")
    with pytest.raises(ToolError) as wheel:
        dump(params)
    expect(wheel.value, "SSL support is not compiled in", "PGBACKUP_CLIENT_DIRS")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server certificate for "db.example" signed by it, and another CA."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.timezone.utc)

    def make(name: str, signer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, issuer_key = signer or (subject, key)
        certificate = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(private)
        if signer is None and name == "ca":
            make("db.example", (subject, key))

    make("ca")
    make("other")
    return folder


@contextmanager
def tls_server(certificates: Path, *, client_certificate: bool = False) -> Iterator[str]:
    """The port of a server that speaks PostgreSQL's protocol up to the TLS handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "db.example.crt", certificates / "db.example.key")
    if client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "ca.crt")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)

        def serve() -> None:
            peer = listener.accept()[0]
            peer.settimeout(60)
            with peer:
                peer.recv(8)
                peer.sendall(b"S")
                with contextlib.suppress(OSError), context.wrap_socket(peer, server_side=True) as secured:
                    secured.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield str(listener.getsockname()[1])
        thread.join()


def test_certificates(certificates: Path) -> None:
    ca, other = str(certificates / "ca.crt"), str(certificates / "other.crt")

    def fails(cause: str, hint: str, **keywords: str) -> None:
        with tls_server(certificates, client_certificate="alert" in cause) as port:
            params = ConnectionParams.resolve({"hostaddr": "127.0.0.1", "port": port, "user": "u", **keywords})
            with pytest.raises(ConnectError) as caught:
                params.connect()
        expect(caught.value, cause, hint)

    fails("certificate verify failed", "not signed by a CA", host="db.example", sslmode="verify-ca", sslrootcert=other)
    fails("does not match host name", "another name", host="db.wrong", sslmode="verify-full", sslrootcert=ca)
    fails("root certificate file .* does not exist", "sslrootcert", host="h", sslmode="verify-full", sslrootcert="/x")
    with_certificate = {
        "host": "db.example",
        "sslmode": "require",
        "sslcert": other,
        "sslkey": str(certificates / "other.key"),
    }
    (certificates / "other.key").chmod(0o644)
    fails("has group or world access", "chmod 0600", **with_certificate)
    (certificates / "other.key").chmod(0o600)
    fails("alert unknown ca", "does not trust", **with_certificate)
    fails("alert certificate required", "sslcert", host="db.example", sslmode="require")


def test_a_pooler_that_refuses_session_options(server18: PostgresServer) -> None:
    """A server that answers every startup message as PgBouncer answers one with options."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)

        def refuse() -> None:
            for _ in range(2):
                with listener.accept()[0] as peer:
                    peer.settimeout(60)
                    while True:
                        length = int.from_bytes(peer.recv(4), "big")
                        body = peer.recv(length - 4)
                        if body[:4] != (80877103).to_bytes(4, "big"):  # SSLRequest
                            break
                        peer.sendall(b"N")
                    fields = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"
                    peer.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

        thread = threading.Thread(target=refuse)
        thread.start()
        port = str(listener.getsockname()[1])
        refused(changed(server18.params, port=port), "unsupported startup parameter", "ignore_startup_parameters")
        thread.join()


# -- reading


def test_a_client_that_is_too_old(server18: PostgresServer) -> None:
    with pytest.raises(ToolError) as caught:
        dump(server18.params, bin_dir=postgres_bin_dir(16))
    expect(caught.value, "server version mismatch", "newer than this client")
    assert any("server version: 18" in line for line in caught.value.stderr)


def test_permission_denied_for_a_table(server18: PostgresServer, fresh_database: Database) -> None:
    database = fresh_database(server18, None, "create table secret_things (x int)")
    with role(server18) as params, pytest.raises(ToolError) as caught:
        dump(params.with_database(database.dbname))
    expect(caught.value, "permission denied for table secret_things", "pg_read_all_data")


def test_role_passwords_are_for_superusers(server18: PostgresServer) -> None:
    with role(server18) as params, client_environment(params) as env, pytest.raises(ToolError) as caught:
        run_tool([BIN / "pg_dumpall", "-w", "--globals-only"], env=env)
    expect(caught.value, "permission denied for table pg_authid", "no_role_passwords")


def test_row_level_security(server18: PostgresServer, fresh_database: Database) -> None:
    database = fresh_database(
        server18,
        None,
        "create table own_rows (x int)",
        "alter table own_rows enable row level security",
        "grant all on own_rows to public",
    )
    with role(server18) as params, pytest.raises(ToolError) as caught:
        dump(params.with_database(database.dbname))
    expect(caught.value, 'row-level security policy for table "own_rows"', "BYPASSRLS")


def test_a_lock_that_is_not_released(server18: PostgresServer, fresh_database: Database) -> None:
    params = fresh_database(server18, None, "create table busy (x int)")
    with params.connect(autocommit=False) as connection:
        connection.execute("lock table busy in access exclusive mode")
        with pytest.raises(ToolError) as caught:
            dump(params, "--lock-wait-timeout=200")
    expect(caught.value, "canceling statement due to", "pg_locks")


def test_no_such_table(server18: PostgresServer) -> None:
    with pytest.raises(ToolError) as caught:
        dump(server18.params, "--table=nosuch")
    expect(caught.value, "no matching tables were found", "patterns")


def test_the_cause_of_a_failed_pg_dumpall_is_reported(server18: PostgresServer, fresh_database: Database) -> None:
    """Its own last line only reports that pg_dump failed."""
    # pg_dumpall takes databases by name: this one first, before those of tests that share the server.
    name = f"! {secrets.token_hex(6)}"
    database = fresh_database(server18, name, "create table secret_things (x int)")
    with role(server18) as params, client_environment(params) as env, pytest.raises(ToolError) as caught:
        run_tool([BIN / "pg_dumpall", "-w", "--no-role-passwords"], env=env)
    expect(caught.value, r"pg_dumpall failed \(exit 1\): .*permission denied for table secret_things", "pg_read_all")
    assert database.dbname in str(caught.value.stderr)


def test_the_cause_in_a_worker_of_a_parallel_dump_is_reported(
    server18: PostgresServer, fresh_database: Database, tmp_path: Path
) -> None:
    params = fresh_database(server18, None, "create table t as select 1 as x", "checkpoint")
    with params.connect() as connection:
        row = connection.execute("select pg_relation_filepath('t')").fetchone()
    assert row
    assert server18.private_directory is not None
    data = server18.private_directory / "data" / str(row[0])
    taken = data.rename(data.with_name("taken"))
    with pytest.raises(ToolError) as caught:
        dump(params, "--format=directory", "--jobs=2", f"--file={tmp_path}/dump")
    taken.rename(data)
    assert "could not open file" in caught.value.message


# -- writing


def test_a_file_over_the_size_limit(server18: PostgresServer, fresh_database: Database, tmp_path: Path) -> None:
    params = fresh_database(
        server18, None, "create table big as select gen_random_uuid()::text from generate_series(1, 20000)"
    )
    with client_environment(params) as env, pytest.raises(ToolError) as caught:
        run_tool(["sh", "-c", 'ulimit -f 64; exec "$0" -w -Fc -f "$1"', BIN / "pg_dump", tmp_path / "out"], env=env)
    expect(caught.value, "File too large", "ulimit -f")


def test_a_full_disk(server18: PostgresServer, fresh_database: Database) -> None:
    params = fresh_database(
        server18, None, "create table big as select gen_random_uuid()::text from generate_series(1, 20000)"
    )
    with client_environment(params) as env, pytest.raises(ToolError) as caught:
        run_tool([BIN / "pg_dump", "-w", "-Fp", "-f", "/dev/full"], env=env)
    expect(caught.value, "No space left on device", "disk is full")


def test_a_directory_of_a_failed_dump(server18: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "something").touch()
    with pytest.raises(ToolError) as caught:
        dump(server18.params, "--format=directory", f"--file={tmp_path}/dump")
    expect(caught.value, "not empty|File exists", "remove it")


# -- restoring


def restore(params: ConnectionParams, archive: bytes, *, bin_dir: Path = BIN) -> None:
    with client_environment(params) as env:
        run_tool([bin_dir / "pg_restore", "-w", "--exit-on-error", "-d", ""], env=env, stdin=io.BytesIO(archive))


def test_a_target_that_is_not_empty(server18: PostgresServer, fresh_database: Database) -> None:
    params = fresh_database(server18, None, "create table t (x int)")
    with pytest.raises(ToolError) as caught:
        restore(params, dump(params, "-Fc"))
    expect(caught.value, 'relation "t" already exists', "empty database")
    assert "CREATE TABLE" not in str(caught.value.stderr)


def test_a_role_that_the_target_lacks(server18: PostgresServer, fresh_database: Database) -> None:
    with role(server18):
        source = fresh_database(server18, None, "create table t (x int)", "alter table t owner to some_role")
        archive = dump(source, "-Fc")
        with source.connect() as connection:
            connection.execute("drop table t")
    with pytest.raises(ToolError) as caught:
        restore(fresh_database(server18), archive)
    expect(caught.value, 'role "some_role" does not exist', "globals first|no_owner")


def test_a_truncated_archive(server18: PostgresServer, fresh_database: Database) -> None:
    params = fresh_database(
        server18, None, "create table big as select gen_random_uuid()::text from generate_series(1, 2000)"
    )
    with pytest.raises(ToolError) as caught:
        restore(fresh_database(server18), dump(params, "-Fc")[:-5000])
    expect(caught.value, "end of file", "truncated")


def test_an_archive_of_a_newer_pg_dump(server18: PostgresServer) -> None:
    archive = dump(server18.params, "-Fc")
    version = bytes([archive[5], archive[6] + 50])
    with pytest.raises(ToolError) as caught:
        restore(server18.params, archive[:5] + version + archive[7:])
    expect(caught.value, "unsupported version", "newer pg_dump")


def test_rows_are_in_no_message(server18: PostgresServer, fresh_database: Database) -> None:
    source = fresh_database(server18, None, "create table t (x text)", "insert into t values ('4111-1111')")
    archive = dump(source, "-Fc", "--data-only")
    target = fresh_database(server18, None, "create table t (x text unique)", "insert into t values ('4111-1111')")
    with pytest.raises(ToolError) as caught:
        restore(target, archive)
    assert caught.value.message.endswith('unique constraint "t_x_key" (Key (x)=(…) already exists)')
    assert "4111" not in str(caught.value.stderr) + str(caught.value)
