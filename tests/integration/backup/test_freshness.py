"""Freshness of real backups: dumped from a real PostgreSQL, verified, and then the clock or the database moves on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.freshness import freshness
from airflow_pgbackup.backup.freshness_rules import FreshnessRules
from airflow_pgbackup.backup.series_selection import SeriesSelection
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import ConfigurationError, RepositoryNotFound
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series, manifest_key
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

DAY = FreshnessRules(max_age=timedelta(hours=26))
TABLES = (
    "create table orders (id int, note text)",
    "insert into orders select n, md5(n::text) from generate_series(1, 5000) n",
    "create table queue (id int)",
    "insert into queue select generate_series(1, 2000)",
    "create table small (id int)",
    "insert into small select generate_series(1, 50)",
)


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, *TABLES)


@pytest.fixture
def back_up(
    repository: Repository, database: ConnectionParams, client_dirs: list[str]
) -> Callable[..., dict[str, Any]]:
    settings = Settings(client_dirs=tuple(client_dirs))

    def run(*, verified: bool = True, into: Repository = repository, **options: Any) -> dict[str, Any]:
        time.sleep(1 - time.time() % 1)  # two of one second are none after the other
        reference = dump_database(
            connection=database,
            server="prod",
            repository=into,
            options=DumpOptions(**options),
            context=RunContext(settings=settings),
        )
        return (
            verify(reference=reference, repository=into, context=RunContext(settings=settings))
            if verified
            else reference
        )

    return run


def sql(database: ConnectionParams, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            connection.execute(statement)


def look(repository: Repository, rules: FreshnessRules = DAY, **kwargs: Any) -> dict[str, Any]:
    result = freshness(repository=repository, rules=rules, **kwargs)
    json.dumps(result, allow_nan=False)
    return result


def later(hours: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(hours=hours)


def test_a_verified_backup_is_fresh_until_it_is_too_old(
    repository: Repository, database: ConnectionParams, back_up: Callable[..., dict[str, Any]]
) -> None:
    reference = back_up()
    result = look(repository)
    assert (result["fresh"], result["problems"]) == (True, [])
    (series,) = result["series"]
    assert (series["series"], series["id"], series["verified"]) == (reference["series"], reference["id"], "archive")
    assert (series["size"], series["rows"], series["fresh"]) == (reference["size"], 7050, True)
    assert 0 <= series["age_seconds"] < 900
    assert result["repository_uuid"] == repository.uuid
    stale = look(repository, now=later(27))
    assert not stale["fresh"]
    (problem,) = stale["problems"]
    assert problem.startswith(
        f"prod/{database.dbname}: the newest backup verified at archive, {reference['id']}, is 27."
    )
    assert look(repository, FreshnessRules(max_age=timedelta(days=2)), now=later(27))["fresh"]


def test_an_unverified_backup_is_not_fresh(repository: Repository, back_up: Callable[..., dict[str, Any]]) -> None:
    reference = back_up(verified=False)
    (problem,) = look(repository)["problems"]
    assert problem.endswith(f"the newest of 1, {reference['id']}, is not verified yet")
    assert look(repository, FreshnessRules(max_age=timedelta(hours=1), minimum_level=None))["fresh"]


def test_an_emptied_table_is_found_though_the_backup_verifies(
    repository: Repository, database: ConnectionParams, back_up: Callable[..., dict[str, Any]]
) -> None:
    sql(database, "create table events as select n, md5(n::text) from generate_series(1, 9000) n")
    back_up(), back_up()
    sql(database, "truncate orders", "delete from queue where id > 150")
    emptied = back_up()
    result = look(repository)
    assert [problem.partition(": ")[2] for problem in result["problems"]] == [
        f"table public.orders has 0 rows in {emptied['id']}, 100 % less than the median of the last 2 (5,000)",
        f"table public.queue has 150 rows in {emptied['id']}, 92 % less than the median of the last 2 (2,000)",
    ]
    allowing = FreshnessRules(max_age=timedelta(hours=26), allow_drop=("public.orders", "public.q*"))
    assert look(repository, allowing)["fresh"]
    assert look(repository, FreshnessRules(max_age=timedelta(hours=26), max_drop=None))["fresh"]


def test_a_much_smaller_artifact_is_found(
    repository: Repository, database: ConnectionParams, back_up: Callable[..., dict[str, Any]]
) -> None:
    sql(database, "insert into orders select n, repeat(md5(n::text), 8) from generate_series(1, 5000) n")
    back_up(compress="none")
    sql(database, "drop table orders")
    smaller = back_up(compress="none")
    result = look(repository)
    assert len(result["problems"]) == 1
    assert f"{smaller['id']} has " in result["problems"][0]
    assert "less than the median of the last 1 (" in result["problems"][0]
    assert f"table public.orders is missing from {smaller['id']}; it had 10,000 rows" in result["series"][0]["notes"][0]


def test_a_dump_with_other_options_is_not_compared(
    repository: Repository, back_up: Callable[..., dict[str, Any]]
) -> None:
    back_up(compress="none")
    back_up(schema_only=True)
    assert look(repository)["problems"] == []


def test_databases_without_a_backup(
    repository: Repository, database: ConnectionParams, back_up: Callable[..., dict[str, Any]]
) -> None:
    back_up()
    result = look(
        repository, series=SeriesSelection(server="prod", databases=[database.dbname, "forgotten", "for/gotten"])
    )
    assert result["problems"] == [
        "prod/forgotten: no backup",
        "prod/for/gotten: no backup",
    ]
    assert [one["series"] for one in result["series"] if not one["fresh"]] == ["prod/forgotten", "prod/for%2Fgotten"]
    assert look(repository, series=SeriesSelection(server="prod", databases=[database.dbname]))["fresh"]
    assert look(repository, series=SeriesSelection(server="prod", cluster=True))["problems"] == [
        "prod/@cluster: no backup"
    ]
    assert look(repository, series=SeriesSelection(server="other"))["problems"] == [
        f"no backup of other is in {repository.uri}"
    ]


def test_a_cluster(repository: Repository, server18: PostgresServer, client_dirs: list[str]) -> None:
    settings = Settings(client_dirs=tuple(client_dirs))
    reference = dump_cluster(
        connection=server18.params,
        server="prod",
        repository=repository,
        options=DumpAllOptions(globals_only=True),
        context=RunContext(settings=settings),
    )
    verify(reference=reference, repository=repository, context=RunContext(settings=settings))
    assert look(repository, series=SeriesSelection(server="prod", scopes=["globals"]))["fresh"]
    assert look(repository, series=SeriesSelection(server="prod", cluster=True))["problems"] == [
        "prod/@cluster: no backup"
    ]
    assert look(repository, series=SeriesSelection(server="prod", scopes=["roles"]))["problems"] == [
        "prod/@roles: no backup"
    ]
    for scopes in ("globals", ["cluster"]):
        with pytest.raises(ConfigurationError, match="scope"):
            look(repository, series=SeriesSelection(server="prod", scopes=scopes))  # type: ignore[arg-type]


def test_series_can_be_excluded(
    repository: Repository, database: ConnectionParams, back_up: Callable[..., dict[str, Any]]
) -> None:
    back_up()
    assert not look(repository, now=later(1000))["fresh"]
    result = look(repository, now=later(1000), exclude=["prod/db_*"])
    assert result["problems"] == [f"no backup is in {repository.uri}"]


def test_a_forged_manifest_is_a_problem_and_not_a_crash(
    repository: Repository, database: ConnectionParams, back_up: Callable[..., dict[str, Any]]
) -> None:
    reference = back_up()
    path = repository.local_path(manifest_key(Series("prod", database.dbname), reference["id"]))
    assert path is not None
    path.write_bytes(b'{"format_version": "1.0", "artifact": {}}')
    (problem,) = look(repository)["problems"]
    assert f"the newest of 1, {reference['id']}, cannot be read: the manifest violates its schema at" in problem


def test_an_invalid_selection_is_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="databases are named without their server"):
        look(repository, series=SeriesSelection(databases=["app"]))
    with pytest.raises(ConfigurationError, match="databases is empty"):
        look(repository, series=SeriesSelection(server="prod", databases=[]))
    with pytest.raises(ConfigurationError, match="databases is 'app'"):
        look(repository, series=SeriesSelection(server="prod", databases="app"))
    with pytest.raises(RepositoryNotFound):
        look(LocalRepository(tmp_path / "unmounted"))


def test_on_s3_with_few_requests(s3: S3Server, back_up: Callable[..., dict[str, Any]]) -> None:
    requests: Counter[str] = Counter()
    client = s3.client()
    client.meta.events.register("before-call.s3", lambda model, **_: requests.update([model.name]))
    bucket = s3.bucket()
    repository = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
    repository.init()
    back_up(into=repository), back_up(into=repository)
    requests.clear()
    fresh = open_repository(f"s3://{bucket}/pg", s3=S3Options(client_factory=lambda: client))
    assert look(fresh)["fresh"]
    assert requests == {"ListObjectsV2": 1 + 2, "GetObject": 1 + 2 * 2}, "with repository.json"
    requests.clear()
    assert look(fresh, FreshnessRules(max_age=timedelta(hours=1), max_drop=None))["fresh"]
    assert requests == {"ListObjectsV2": 1 + 1, "GetObject": 2}, "the newest that counts is read"
