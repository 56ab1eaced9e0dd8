"""Real servers for the tests: PostgreSQL 16 and 18, an S3 server, each once per test process and gone with it."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import botocore.session
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import find_clients
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.local import tree
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3 import parts
from airflow_pgbackup.repository.s3.options import S3Options
from tests import sampling
from tests.in_memory import keep_temporary_files_in_memory

# Everything a pgpass line, a URL, a shell and a log masker could stumble over.
CANARY = "cañary:p\\a'ss \"w#rd%41&x=y"


# What hypothesis finds slow is mostly a machine that does something else meanwhile. Its examples are the same in each
# run; the fuzzing of `make campaign` looks for new ones.
settings.register_profile("house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

keep_temporary_files_in_memory()

# Without the minutes for which a part of an upload is sent again, the tests of lasting faults end.
parts.PATIENCE = 0.0

# Each session of boto3 reads what botocore knows of S3 and its endpoints: for each client a tenth of a second.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# A shell without job control starts a background `make test &` with this ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


_FAILED_BEFORE = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{sampling.MARK}: of its combinations, see tests/sampling.py")


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not sampling.all_combinations():
        items[:], others = sampling.select(items)
        config.hook.pytest_deselected(items=others)


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_FAILED_BEFORE] = item.session.testsfailed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Empty ``tmp_path`` after a test that passes, as it may be in memory; no other test gets the same one."""
    yield
    directory: Path | None = getattr(item, "funcargs", {}).get("tmp_path")
    if directory is not None and item.session.testsfailed == item.stash.get(_FAILED_BEFORE, -1):
        with suppress(OSError):
            for entry in directory.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()


@pytest.fixture(scope="session")
def canary() -> str:
    """The password of the servers' superuser, which must appear nowhere."""
    return CANARY


@pytest.fixture
def utime_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``os.utime`` set the age of files in a local repository. The time of its change also counts."""
    monkeypatch.setattr(tree, "_grown", lambda status: status.st_mtime)


@pytest.fixture
def assert_no_canary() -> Callable[[object], None]:
    """``assert_no_canary(text)``: neither the password nor a form in which a tool could have written it is in there."""
    from urllib.parse import quote, quote_plus

    pgpass = CANARY.replace("\\", "\\\\").replace(":", "\\:")
    forms = {CANARY, pgpass, quote(CANARY), quote(CANARY, safe=""), quote_plus(CANARY), repr(CANARY)[1:-1]}
    forms |= {CANARY.replace("'", "\\'"), CANARY.encode("unicode_escape").decode(), "w#rd%41"}

    def check(text: object) -> None:
        text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        for form in forms:
            if form in text:
                at = text.index(form)
                pytest.fail(f"the canary password shows: …{text[max(0, at - 80) : at]}<HERE>")

    return check


@pytest.fixture
def only_18(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with PostgreSQL 18's clients and no others."""
    found = find_clients([str(postgres_bin_dir(18))], well_known=())
    newest = [client for client in found if client.major == 18][:1]
    for module in ("backup.restore.archive", "backup.restore.script"):
        monkeypatch.setattr(f"airflow_pgbackup.{module}.find_clients", lambda *_: newest)
    monkeypatch.setattr("airflow_pgbackup.postgres.tools.client_choice.search_clients", lambda *_: (newest, []))


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    """A new, empty repository in a local directory."""
    repository = open_repository(f"file://{tmp_path / 'repository'}")
    repository.init()
    return repository


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    """A new repository in the test's directory ``pg``."""
    made = LocalRepository(tmp_path / "pg")
    made.init()
    return made


@pytest.fixture(scope="session")
def client_dirs() -> list[str]:
    """All folders with PostgreSQL programs: those of PGBACKUP_TEST_CLIENT_DIRS, then the wheel's 18 and 16."""
    extra = os.environ.get("PGBACKUP_TEST_CLIENT_DIRS", "").split(os.pathsep)
    return [*filter(None, extra), str(postgres_bin_dir(18)), str(postgres_bin_dir(16))]


@pytest.fixture(scope="session")
def server18() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(18), password=CANARY, tcp=True) as server:
        yield server


@pytest.fixture(scope="session")
def server16() -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(16), password=CANARY, tcp=True) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """``endpoint_url``, ``access_key``, ``secret_key``, ``client()`` and ``bucket()``, which makes a fresh one."""
    with S3Server() as server:
        yield server


@pytest.fixture(params=["folder", "bucket"])
def either_repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """An empty repository: each test runs with a local one, and with one in S3."""
    if request.param == "folder":
        made: Repository = LocalRepository(tmp_path / "pg")
    else:
        server: S3Server = request.getfixturevalue("s3")
        made = open_repository(f"s3://{server.bucket()}/pg", s3=S3Options(client_factory=server.client))
    made.init()
    return made


@pytest.fixture
def fresh_database() -> Iterator[Callable[..., ConnectionParams]]:
    """``fresh_database(server, name=None, *statements)``: a new database; its parameters. Dropped after the test."""
    made: list[tuple[PostgresServer, str]] = []

    def make(server: PostgresServer, name: str | None = None, *statements: str) -> ConnectionParams:
        name = name or f"db_{secrets.token_hex(6)}"
        with server.params.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        made.append((server, name))
        params = server.params.with_database(name)
        if statements:
            with params.connect() as connection:
                for statement in statements:
                    connection.execute(statement)
        return params

    yield make
    for server, name in made:
        with server.params.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(autouse=True)
def _ctrl_c_works() -> Iterator[None]:
    """A command that was interrupted ignores Ctrl-C from then on, as its process ends; that of the tests does not."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_inherited_postgres(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The developer's own PG* variables, ~/.pgpass and AWS settings take no part."""
    home: Path = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    for name in list(os.environ):
        if name.startswith(("PG", "AWS_")) and not name.startswith("PGBACKUP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
