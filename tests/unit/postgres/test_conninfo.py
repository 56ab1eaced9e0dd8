"""Resolving a connection, without a server."""

from __future__ import annotations

import os
import pickle
import pwd
from pathlib import Path

import pytest

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams, literal_dbname
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.connection.pgpass import pgpass_file, secret_forms


def resolve(home: Path = Path("/nonexistent"), /, **keywords: object) -> ConnectionParams:
    return ConnectionParams.resolve({"host": "h", **keywords}, environ={}, home=home)


# -- keywords


def test_keywords_become_strings_and_empty_ones_are_unset() -> None:
    params = resolve(port=5433, user="", dbname=None, keepalives=True, sslcompression=False, application_name="a b")
    assert params.keywords == {
        "host": "h",
        "port": "5433",
        "keepalives": "1",
        "sslcompression": "0",
        "application_name": "a b",
    }
    assert (params.host, params.port, params.user, params.dbname) == ("h", "5433", "", "")


@pytest.mark.parametrize(
    ("keyword", "hint"),
    [
        ("ssl_mode", "'sslmode'"),
        ("sslRootCert", "'sslrootcert'"),
        ("database", "'dbname'"),
        ("login", "'user'"),
        ("connect_timout", "'connect_timeout'"),
        ("xyzzy", "libpq-connect.html"),
    ],
)
def test_an_unknown_keyword_is_refused_with_a_suggestion(keyword: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown connection option '{keyword}'") as caught:
        resolve(**{keyword: "x"})
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"host": ["a", "b"]}, "'host' is a list"),
        ({"connect_timeout": 1.5}, "'connect_timeout' is a float"),
        ({"replication": "database"}, "an ordinary session"),
        ({"dbname": "a\0b"}, "'dbname' has a NUL"),
        ({"host": "a\nb"}, "'host' has a control character"),
        ({"host": "postgresql://u:secret@db.example/app"}, "'host' is a URI"),
        ({"hostaddr": "postgres://:secret@192.0.2.1"}, "'hostaddr' is a URI"),
        ({"host": "db,u:secret@db.example"}, "'host' is a URI, or a part of one"),
        ({"user": "\udc80"}, "'user' is not valid UTF-8"),
        ({"password": "se\0cret"}, "'password' has a NUL"),
        ({"host": "a,b", "port": "1,2,3"}, "2 host, 3 port"),
        ({"host": "a", "port": "1,2"}, "1 host, 2 port"),
        ({"host": "a,b", "hostaddr": "::1"}, "2 host, 1 hostaddr"),
    ],
)
def test_what_libpq_cannot_take_is_refused(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        resolve(**keywords)
    assert "cret" not in str(caught.value)


def test_a_password_is_not_among_the_keywords() -> None:
    params = resolve(password="  p w ")
    assert (params.get_password(), "password" in params.keywords) == ("  p w ", False)
    params = ConnectionParams.resolve({"host": "h", "password": "weaker"}, password="stronger")
    assert params.get_password() == "stronger"
    assert resolve(password="").get_password() is None


def test_a_password_function_is_called_for_every_use() -> None:
    tokens = iter(["one", "two", ""])
    params = ConnectionParams.resolve({"host": "h"}, password=lambda: next(tokens))
    assert [params.get_password() for _ in range(3)] == ["one", "two", None]


# -- labels and secrets


@pytest.mark.parametrize(
    ("keywords", "label"),
    [
        ({"host": "db", "port": "5433", "user": "u", "dbname": "d"}, "u@db:5433/d"),
        ({"host": "::1", "port": "5433"}, "[::1]:5433"),
        ({"host": "/run/a:b", "dbname": "d"}, "/run/a:b/d"),
        ({"host": "a,b", "port": "1,2", "user": "u"}, "u@a,b:1,2"),
        ({"host": "", "hostaddr": "10.0.0.1"}, "10.0.0.1"),
        ({"host": "h", "user": "a\nb"}, r"a\nb@h"),
    ],
)
def test_label(keywords: dict[str, object], label: str) -> None:
    params = resolve(password="secret", sslpassword="hidden", **keywords)
    assert params.label == label
    assert repr(params) == f"<ConnectionParams {label}>"
    assert sorted(params.secrets) == ["hidden", "secret"]


def test_parameters_can_be_pickled() -> None:
    params = resolve(password="secret", user="u")
    assert pickle.loads(pickle.dumps(params)) == params


def test_secret_forms() -> None:
    forms = secret_forms("a:b\\c'd e/é")
    assert "a:b\\c'd e/é" in forms
    assert "a\\:b\\\\c'd e/é" in forms
    assert "a%3Ab%5Cc%27d%20e%2F%C3%A9" in forms
    assert len(set(forms)) == len(forms)
    assert len(forms[0]) >= len(forms[-1])
    assert secret_forms("plain") == ["plain"]
    assert secret_forms(None) == []
    assert secret_forms("") == []


def test_another_database_of_the_same_server() -> None:
    params = resolve(dbname="one", password="p")
    assert params.with_database("host=evil").keywords == {"host": "h", "dbname": "host=evil"}
    assert params.with_database("").keywords == {"host": "h"}
    assert params.with_database("two").get_password() == "p"


def test_literal_dbname() -> None:
    assert literal_dbname("host=evil dbname=x") == "dbname='host=evil dbname=x'"
    assert literal_dbname("it's \\") == "dbname='it\\'s \\\\'"


# -- what libpq would look up itself


def test_files_of_the_home_directory(tmp_path: Path) -> None:
    (tmp_path / ".postgresql").mkdir()
    for name in (".pgpass", *(f".postgresql/{file}" for file in ("root.crt", "postgresql.crt", "postgresql.key"))):
        (tmp_path / name).touch()
    found = resolve(tmp_path).keywords
    assert found == {
        "host": "h",
        "passfile": f"{tmp_path}/.pgpass",
        "sslrootcert": f"{tmp_path}/.postgresql/root.crt",
        "sslcert": f"{tmp_path}/.postgresql/postgresql.crt",
        "sslkey": f"{tmp_path}/.postgresql/postgresql.key",
    }
    (tmp_path / ".postgresql/root.crl").touch()
    assert resolve(tmp_path).keywords["sslcrl"] == f"{tmp_path}/.postgresql/root.crl"
    assert "sslcrl" not in resolve(tmp_path, sslcrldir="/etc/crls").keywords
    said = resolve(tmp_path, sslrootcert="system", passfile="/p", sslcert="/c").keywords
    assert (said["sslrootcert"], said["passfile"], said["sslcert"]) == ("system", "/p", "/c")
    assert "passfile" not in resolve(tmp_path, password="p").keywords


def test_the_certificates_of_the_system_imply_verify_full(tmp_path: Path) -> None:
    """Of libpq 16 and newer; an older one takes "system" for a file, and would connect without it."""
    assert resolve(tmp_path, sslrootcert="system").keywords["sslmode"] == "verify-full"
    assert resolve(tmp_path, sslrootcert="system", sslmode="require").keywords["sslmode"] == "require"
    assert "sslmode" not in resolve(tmp_path, sslrootcert="/ca.pem").keywords


def test_a_user_without_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under an arbitrary uid."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)
    assert ConnectionParams.resolve({"host": "h", "user": "u"}, environ={}).keywords == {"host": "h", "user": "u"}


SERVICES = """\
# a comment
[prod]
host=prod.example
  port=6000
user=first
user=second
options=-c search_path=a,b
password=from the service
[production]
host=wrong
[nested]
service=prod
[broken]
host = spaces
[unknown]
nosuch=1
[prod]
host=never
"""


@pytest.fixture
def services(tmp_path: Path) -> Path:
    (tmp_path / ".pg_service.conf").write_text(SERVICES)
    return tmp_path


def test_a_service_is_replaced_by_its_keywords(services: Path) -> None:
    params = ConnectionParams.resolve({"service": "prod", "user": "said"}, environ={}, home=services)
    assert params.keywords == {
        "host": "prod.example",
        "port": "6000",
        "user": "said",
        "options": "-c search_path=a,b",
    }
    assert params.get_password() == "from the service"
    assert ConnectionParams.resolve({"service": "prod"}, environ={}, home=services).user == "first"
    assert ConnectionParams.resolve({"service": "prod"}, password="p", environ={}, home=services).get_password() == "p"


def test_where_services_are_searched(services: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    system = tmp_path_factory.mktemp("system")
    (system / "pg_service.conf").write_text("[elsewhere]\nhost=system\n[prod]\nhost=system\n")

    def host(service: str, **environ: str) -> str:
        return ConnectionParams.resolve({"service": service}, environ=environ, home=services).host

    assert host("elsewhere", PGSYSCONFDIR=str(system)) == "system"
    assert host("prod", PGSYSCONFDIR=str(system)) == "prod.example"
    assert host("prod", PGSERVICEFILE=str(system / "pg_service.conf")) == "system"
    with pytest.raises(ConfigurationError, match=r"no definition of service 'prod' in .*/nowhere"):
        host("prod", PGSERVICEFILE="/nowhere")


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("nosuch", "no definition of service 'nosuch' in .*pg_service.conf"),
        ("pro", "no definition of service"),
        ("nested", "refers to another service, line 12"),
        ("broken", "syntax error in service file .*, line 14"),
        ("unknown", "syntax error in service file .*, line 16"),
    ],
)
def test_a_service_that_cannot_be_used(services: Path, service: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ConnectionParams.resolve({"service": service}, environ={}, home=services)


def test_the_order_of_the_command_line(services: Path) -> None:
    environ = {
        "HOME": str(services),
        "PGHOST": "env",
        "PGDATABASE": "env",
        "PGUSER": "env",
        "PGPASSWORD": "env",
        "PGSSLMODE": "require",
        "PGTZ": "nonsense",
        "PGAPPNAME": "",
    }
    params = ConnectionParams.from_environment(environ, dbname="said")
    assert params.keywords == {"host": "env", "dbname": "said", "user": "env", "sslmode": "require"}
    assert params.get_password() == "env"
    params = ConnectionParams.from_environment({**environ, "PGSERVICE": "prod"})
    assert (params.host, params.user, params.dbname) == ("prod.example", "first", "env")
    assert params.get_password() == "from the service"
    assert ConnectionParams.from_environment(environ, service="prod", host="said").host == "said"


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a random uid."""

    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ConfigurationError, match="has no user") as caught:
        resolve().connect()
    assert "login" in str(caught.value.hint)


# -- the lines of a pgpass file; whether libpq takes them is in tests/integration/postgres/test_pgpass.py


@pytest.mark.parametrize(
    ("keywords", "lines"),
    [
        ({"host": "db", "port": "5433", "user": "u"}, ["db:5433:*:u:pw"]),
        ({"host": "db"}, ["db:*:*:*:pw"]),
        ({"host": "::1", "port": "5433"}, [r"\:\:1:5433:*:*:pw"]),
        ({"host": "a,b", "port": "1,2"}, ["a:1:*:*:pw", "b:2:*:*:pw"]),
        ({"host": "a,b", "port": "1"}, ["a:1:*:*:pw", "b:1:*:*:pw"]),
        ({"host": "a,,b", "port": "1,,"}, ["a:1:*:*:pw", "localhost:*:*:*:pw", "b:*:*:*:pw"]),
        ({"host": "a,", "hostaddr": "1.1.1.1,2.2.2.2"}, ["a:*:*:*:pw", "2.2.2.2:*:*:*:pw"]),
        ({"host": "", "hostaddr": "fe80::1"}, [r"fe80\:\:1:*:*:*:pw"]),
        ({"host": "/tmp/a:b"}, [r"/tmp/a\:b:*:*:*:pw", "localhost:*:*:*:pw"]),
        ({"host": "localhost,/tmp"}, ["localhost:*:*:*:pw", "/tmp:*:*:*:pw"]),
        ({"host": "db", "user": "a:b\\c"}, [r"db:*:*:a\:b\\c:pw"]),
        ({"host": "db", "user": "*"}, [r"db:*:*:\*:pw"]),
        ({"host": "#db", "user": "a\nb"}, [r"\#db:*:*:*:pw"]),
    ],
)
def test_pgpass_lines(keywords: dict[str, object], lines: list[str]) -> None:
    with pgpass_file(resolve(password="pw", **keywords)) as path:
        assert path is not None
        assert path.read_text().splitlines() == lines


def test_the_environment_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PATH": "/bin", "KRB5CCNAME": "/k", "LC_ALL": "de_DE", "PGUSER": "x", "X": "y"}.items():
        monkeypatch.setenv(name, value)
    params = resolve(port=5433, password="pw", options="-c work_mem=1MB", sslmode="require", keepalives_idle=5)
    with client_environment(params, dbname="other") as env:
        private = Path(env["HOME"]).parent
        assert (
            env.items()
            >= {
                "PATH": "/bin",
                "KRB5CCNAME": "/k",
                "LC_MESSAGES": "C",
                "PGTZ": "UTC",
                "PGHOST": "h",
                "PGPORT": "5433",
                "PGDATABASE": "other",
                "PGOPTIONS": "-c work_mem=1MB -c bytea_output=hex -c quote_all_identifiers=off",
                "PGSSLMODE": "require",
                "PGCONNECT_TIMEOUT": "10",
                "TMPDIR": f"{private}/tmp",
                "PGSERVICE": "pgbackup",
            }.items()
        )
        assert not env.keys() & {"X", "LC_ALL", "PGUSER", "PGPASSWORD"}
        lines = Path(env["PGSERVICEFILE"]).read_text().splitlines()
        assert lines[0] == "[pgbackup]"
        assert set(lines[1:]) == {"keepalives=1", "keepalives_idle=5", "keepalives_interval=10", "keepalives_count=6"}
        assert private.stat().st_mode & 0o777 == 0o700
        assert Path(env["TMPDIR"]).is_dir()
    assert not private.exists()
    with client_environment(params, restoring=True) as env:
        assert "PGTZ" not in env
        assert env["PGOPTIONS"] == "-c work_mem=1MB"
    with client_environment(resolve(connect_timeout=3)) as env:
        assert env["PGCONNECT_TIMEOUT"] == "3"


@pytest.mark.parametrize(
    ("keywords", "idle"),
    [
        ({"host": "db.example.org"}, "60"),
        ({"host": "/tmp,db.example.org"}, "60"),
        ({"host": "db", "hostaddr": "10.0.0.1", "keepalives_idle": "7"}, "7"),
        ({"host": "/var/run/postgresql"}, None),
        ({"host": "@abstract"}, None),
        ({}, None),
    ],
)
def test_keepalives(keywords: dict[str, str], idle: str | None) -> None:
    found = ConnectionParams(keywords).keywords_with_defaults()
    assert found.get("keepalives_idle") == idle
    assert ("keepalives" in found) == (idle is not None)
    assert ConnectionParams({**keywords, "keepalives": "0"}).keywords_with_defaults()["keepalives"] == "0"


def test_an_option_that_a_service_file_cannot_hold() -> None:
    with (
        pytest.raises(ConfigurationError, match="'sslpassword' cannot be given") as caught,
        client_environment(resolve(sslpassword="two\nlines")),
    ):
        raise AssertionError
    assert "lines" not in caught.value.message
