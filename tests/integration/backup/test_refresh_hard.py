"""refresh: 60 tables masked, without a value of the source in any file of the server; and kills at any moment."""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hard_database
import pytest
from live_files import files_with
from psycopg import sql
from restoring import fresh_server, value

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.temporary_database import PREFIX
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.leftovers import sweep_leftovers
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.subset import Subset
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

KEY = b"a key that only this test knows"
KILLS = int(os.environ.get("PGBACKUP_TEST_REFRESH_KILLS", "3"))
"""How often a refresh is killed; ``make test`` has a few, a campaign 20 or more."""


@dataclass
class Staging:
    """A server of its own with a staging database, and a verified backup of the hard database."""

    server: PostgresServer
    repository: Repository
    reference: Any
    database: ConnectionParams

    def files_with(self, data: bytes) -> list[str]:
        """Return the files of the server's data directory, WAL included, that contain some bytes."""
        with self.database.connect() as connection:
            connection.execute("checkpoint")
        assert self.server.private_directory is not None
        return files_with(self.server.private_directory / "data", data)

    def databases(self) -> set[str]:
        with self.server.params.connect() as connection:
            return {name for (name,) in connection.execute("select datname from pg_database").fetchall()}

    def roles(self) -> set[str]:
        with self.server.params.connect() as connection:
            return {name for (name,) in connection.execute("select rolname from pg_roles").fetchall()}


@pytest.fixture(scope="module")
def hard(server18: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staging]:
    repository = open_repository(f"file://{tmp_path_factory.mktemp('hard') / 'repository'}")
    repository.init()
    name = f"hard_{secrets.token_hex(4)}"
    with server18.params.connect() as connection:
        connection.execute(f"create database {name} template template0")
    source = server18.params.with_database(name)
    with source.connect() as connection:
        for statement in hard_database.statements():
            connection.execute(statement)
    made = dump_database(connection=source, server="prod", repository=repository, options=DumpOptions())
    reference = verify(reference=made, repository=repository, level="archive")
    with server18.params.connect() as connection:
        connection.execute(f"drop database {name} with (force)")
    # With everything in WAL that a server with standbys writes.
    settings = {"wal_level": "replica", "full_page_writes": "on"}
    with fresh_server(18, password="secret", tcp=True, settings=settings) as server:
        with server.params.connect() as connection:
            connection.execute("create role tester")
            connection.execute("create role reader")
        yield Staging(server, repository, reference, server.params.with_database("staging"))


@pytest.fixture
def staging(hard: Staging) -> Staging:
    """With the old copy, whatever the tests before have made of it."""
    with hard.server.params.connect() as connection:
        for name in sorted(hard.databases() - {"postgres", "template0", "template1"}):
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        connection.execute("create database staging template template0")
    with hard.database.connect() as connection:
        connection.execute("create table person (mail text)")
        connection.execute("insert into person values ('the old copy')")
        connection.execute("create materialized view mails as select mail from person")
        connection.execute("grant select on person, mails to reader")
        connection.execute("alter table person owner to tester")
    return hard


def killed(staging: Staging, temp_dir: Path, after: float) -> bool:
    """Begin a refresh and kill it after some seconds; return whether it had ended before."""
    script = """
import json, sys
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings

order = json.load(sys.stdin)
print("begins", flush=True)
refresh(
    reference=order["reference"],
    repository=open_repository(order["repository"]),
    target=ConnectionParams(keywords=order["keywords"], password="secret"),
    rules=load_rules(order["rules"].encode()),
    masking_key=MaskingKey(order["key"].encode()),
    keep=0,
    context=RunContext(settings=Settings(temp_dir=order["temp_dir"])),
)
"""
    order = {
        "keywords": dict(staging.database.keywords),
        "reference": staging.reference,
        "repository": staging.repository.uri,
        "rules": hard_database.RULES.decode(),
        "key": KEY.decode(),
        "temp_dir": str(temp_dir),
    }
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
        assert process.stdout.readline() == b"begins\n"
        time.sleep(after)
        process.kill()
        return process.wait() == 0


def test_a_refresh_that_is_killed_leaves_the_old_copy_and_nothing_behind(staging: Staging, tmp_path: Path) -> None:
    before = staging.databases(), staging.roles()
    moments = random.Random(int(os.environ.get("PGBACKUP_TEST_SEED", "17")))
    for _ in range(KILLS):
        ended = killed(staging, tmp_path, moments.uniform(0, 8))
        deadline = time.monotonic() + 120
        while any(name.startswith(PREFIX) for name in staging.databases()) and time.monotonic() < deadline:
            time.sleep(0.1)
        sweep_leftovers(RunContext(settings=Settings(temp_dir=str(tmp_path))))
        # A kill after the swap leaves the new copy, complete, and perhaps the old one, which the next refresh drops.
        swapped = value(staging.database, "select to_regclass('public.t_30') is not null")
        assert value(staging.database, "select count(*) from person") == (60 if swapped else 1)
        assert swapped or not ended
        kept = {name for name in staging.databases() - before[0] if swapped and name.startswith("staging_before_")}
        assert (staging.databases() - kept, staging.roles()) == before
        assert list(tmp_path.iterdir()) == []
    assert staging.files_with(hard_database.MARK.encode()) == []


def test_no_value_of_a_masked_column_is_in_any_file(staging: Staging) -> None:
    done = refresh(
        reference=staging.reference,
        repository=staging.repository,
        target=staging.database,
        rules=load_rules(hard_database.RULES),
        masking_key=MaskingKey(KEY),
        keep=0,
        context=RunContext(),
    )
    assert int(str(done["masked_columns"])) > 100
    assert staging.files_with(hard_database.MARK.encode()) == []
    assert staging.files_with(hard_database.MARK.upper().encode()) == []
    assert staging.files_with(hard_database.NUMBER.to_bytes(8, "little")) == []
    assert staging.files_with(KEY) == []
    # the search finds what is there: in the heap, and in WAL
    found = staging.files_with(hard_database.KEPT.encode())
    assert any(name.startswith("base/") for name in found)
    assert any(name.startswith("pg_wal/") for name in found)

    one = staging.database
    assert value(one, "select count(*) from pg_tables where schemaname = 'public'") == hard_database.TABLES
    keys = "select count(*), bool_and(convalidated) from pg_constraint where contype = 'f' and conparentid = 0"
    with one.connect() as connection:
        assert connection.execute(keys).fetchone() == (hard_database.KEYS, True)
    assert value(one, "select count(*) from t_1 join person using (mail)") == 20  # joins join
    assert value(one, "select count(*) from t_1_history h join t_30 t using (mail)") == 20
    assert value(one, "select count(*) from person where upper_mail = upper(mail)") == 60
    assert value(one, "select count(*) from mails join person using (mail)") == 60
    assert value(one, "select count(distinct account) from person") == 1
    assert value(one, "select count(*) from visit") == 400
    assert value(one, "insert into person (mail, account, token) values ('a@b', 1, '') returning id") == 61
    assert value(one, "select count(*) from pg_largeobject_metadata") == 0
    assert value(one, "select has_table_privilege('reader', 'mails', 'select')") is True
    assert value(one, "select has_table_privilege('reader', 't_1', 'select')") is False
    assert value(one, "select tableowner from pg_tables where tablename = 'person'") == "tester"


def test_a_subset_is_selected_by_the_values_of_the_source_and_masked(staging: Staging) -> None:
    done = refresh(
        reference=staging.reference,
        repository=staging.repository,
        target=staging.database,
        rules=load_rules(hard_database.RULES + b'  "public.empty_1.mail": null\n'),
        masking_key=MaskingKey(KEY),
        subset=Subset(where={"public.person": "mail < '3'"}, exclude_tables=("public.seen", "public.empty_*")),
        keep=0,
        context=RunContext(),
    )
    # 1 and 2, as the other mails that begin so are of people whose boss is not selected
    counts = {count["table"]: (count["before"], count["after"]) for count in done["subset"]}  # type: ignore[attr-defined]
    assert counts == {"public.person": (60, 2), **{f"public.t_{number}": (20, 2) for number in range(1, 11)}}
    assert value(staging.database, "select count(*) from t_1 join person using (mail) join t_30 using (mail)") == 2
    assert value(staging.database, "select count(*) from mails") == 2
    assert value(staging.database, "select to_regclass('seen') is null and to_regclass('empty_1') is null") is True
    assert staging.files_with(hard_database.MARK.encode()) == []
