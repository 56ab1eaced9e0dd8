"""A rehearsal on a server of another locale or version than the source's condemns no sound backup.

Text may violate constraints in another locale, and system catalogs differ between versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from builds import BUILDS, Build, each

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

ICU = each([build for build in BUILDS if build.tls and build.major >= 17])  # those of distributions have it
OLDER = each([build for build in BUILDS if build.major in (15, 16)])
LETTERS = (
    "create schema s",
    # é is a letter in the locale C.UTF-8, but not in C.
    "create table s.word (word text check (word ~ '^[[:alpha:]]+$'))",
    "insert into s.word values ('é')",
)
ORDER = (
    "create table word (a text, b text check (a < b))",
    "insert into word values ('a', 'B')",
)


@pytest.fixture(scope="module")
def scratch() -> Iterator[ConnectionParams]:
    """Its locale is C, and it has no ICU."""
    with PostgresServer(postgres_bin_dir(18)) as server:
        yield server.params


@pytest.fixture
def letters(server18: PostgresServer) -> Iterator[ConnectionParams]:
    with server18.params.connect() as session:
        session.execute(
            "create database letters template template0 locale_provider builtin builtin_locale 'C.UTF-8' locale 'C'"
        )
        try:
            with server18.params.with_database("letters").connect() as inside:
                for statement in LETTERS:
                    inside.execute(statement.encode())
            yield server18.params.with_database("letters")
        finally:
            session.execute("drop database letters")


def dump(database: ConnectionParams, repository: Repository, **options: Any) -> dict[str, object]:
    return dump_database(connection=database, server="test", repository=repository, options=DumpOptions(**options))


def rehearse(made: dict[str, object], repository: Repository, **more: Any) -> object:
    return verify(reference=made, repository=repository, level="restore", **more)["verified"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["throwaway", "scratch"])
def test_a_plain_dump_does_not_name_its_locale(
    elsewhere: bool, letters: ConnectionParams, scratch: ConnectionParams, here: Repository
) -> None:
    made = dump(letters, here, format="plain")
    with pytest.raises(NotProven, match=r"does not name the locale .* violates check constraint") as error:
        rehearse(made, here, scratch=scratch if elsewhere else None)
    assert "dumped with create=True" in (error.value.hint or "")


@pytest.mark.parametrize(
    "options",
    [{}, {"format": "plain", "create": True}, {"tables": ["s.word"]}],
    ids=["custom", "created", "without its schema"],
)
def test_a_dump_that_names_its_locale(options: dict[str, Any], letters: ConnectionParams, here: Repository) -> None:
    assert rehearse(dump(letters, here, **options), here) == "restore"


def test_the_database_postgres_of_a_cluster(here: Repository) -> None:
    """pg_dumpall does not create it."""
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    with PostgresServer(postgres_bin_dir(18), initdb_args=locale) as server:
        with server.params.with_database("postgres").connect() as session:
            for statement in LETTERS:
                session.execute(statement.encode())
        made = dump_cluster(connection=server.params, server="test", repository=here, options=DumpAllOptions())
    with pytest.raises(NotProven, match="does not name the locale"):
        rehearse(made, here)


@ICU
def test_a_server_without_the_locale(build: Build, scratch: ConnectionParams, here: Repository) -> None:
    with PostgresServer(build.bin_dir) as server:
        with server.params.connect() as session:
            session.execute(
                "create database icu template template0 locale_provider icu icu_locale 'en-US' locale 'C.UTF-8'"
            )
        with server.params.with_database("icu").connect() as session:
            for statement in ORDER:
                session.execute(statement.encode())
        context = RunContext(settings=build.settings)
        made = dump_database(
            connection=server.params.with_database("icu"),
            server="test",
            repository=here,
            options=DumpOptions(),
            context=context,
        )
    assert rehearse(made, here, context=context) == "restore"
    with pytest.raises(NotProven, match=r"lacks the locale .* violates check constraint"):
        rehearse(made, here, context=context, scratch=scratch)


@OLDER
def test_a_view_on_a_system_catalog_of_an_older_version(
    build: Build, scratch: ConnectionParams, here: Repository
) -> None:
    with PostgresServer(build.bin_dir) as server:
        with server.params.connect() as session:
            session.execute("create view written as select buffers_backend from pg_stat_bgwriter")
        made = dump_database(
            connection=server.params,
            server="test",
            repository=here,
            options=DumpOptions(),
            context=RunContext(settings=build.settings),
        )
    with pytest.raises(NotProven, match=f"may lack what PostgreSQL {build.major}.*buffers_backend") as error:
        rehearse(made, here, scratch=scratch)
    assert f"Rehearse with PostgreSQL {build.major}" in (error.value.hint or "")
