"""A sample of the campaign on PostgreSQL's regression database: what a restore changes, and what it must not change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from restoring import backup, restored

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from tests.campaign.database_facts import differences, observe
from tests.campaign.restore_reasons import REASONS, reason_of

FreshDatabase = Callable[..., ConnectionParams]

SAMPLE = (
    "CREATE TABLE parent (a int)",
    "CREATE TABLE child (b int, a int)",
    "ALTER TABLE child INHERIT parent",
    "INSERT INTO child VALUES (1, 2)",
    "CREATE TABLE shorter (a int, b int, c text DEFAULT 'x' NOT NULL)",
    "ALTER TABLE shorter DROP COLUMN b",
    "INSERT INTO shorter VALUES (1)",
    "CREATE MATERIALIZED VIEW stale AS SELECT a FROM shorter",
    "INSERT INTO shorter VALUES (2)",
    "CREATE FUNCTION differ(boolean, boolean) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 <> $2'",
    "CREATE OPERATOR === (LEFTARG = boolean, RIGHTARG = boolean, FUNCTION = differ, NEGATOR = !==)",
    "DROP OPERATOR === (boolean, boolean)",
    "CREATE TYPE pair AS (a int, b int)",
    "CREATE FUNCTION less(pair, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).a < $2'",
    "CREATE OPERATOR << (LEFTARG = pair, RIGHTARG = int, FUNCTION = less)",
    "ALTER OPERATOR FAMILY integer_ops USING btree ADD OPERATOR 1 << (pair, int)",
    "CREATE TABLE whole (a int PRIMARY KEY) PARTITION BY LIST (a)",
    "CREATE TABLE part (a int PRIMARY KEY)",
    "ALTER TABLE whole ATTACH PARTITION part FOR VALUES IN (1)",
    "CREATE TABLE part_2 PARTITION OF whole FOR VALUES IN (2)",
    "CREATE TABLE referencing (a int REFERENCES whole) PARTITION BY LIST (a)",
    "CREATE TABLE referencing_1 (a int, CONSTRAINT own_name FOREIGN KEY (a) REFERENCES whole)",
    "ALTER TABLE referencing ATTACH PARTITION referencing_1 FOR VALUES IN (1)",
    "SELECT lo_from_bytea(4711, 'a large object')",
    "CREATE SEQUENCE counter START 5",
    "SELECT nextval('counter')",
)


@pytest.fixture
def copied(server18: PostgresServer, fresh_database: FreshDatabase, here: Repository) -> list[ConnectionParams]:
    """A database, and a restored copy of it."""
    source, copy = fresh_database(server18, None, *SAMPLE), fresh_database(server18)
    restored(backup(source, here), here, copy, options={}, seed="a task")
    return [source, copy]


def test_each_difference_after_a_restore_has_a_reason(copied: list[ConnectionParams], server18: PostgresServer) -> None:
    source = observe(copied[0], server18.bin_dir)
    copy = observe(copied[1], server18.bin_dir, source.rows)
    found = {(each.kind, each.name, each.what): reason_of(each, source, copy) for each in differences(source, copy)}
    assert not [each for each, reason in found.items() if reason is None]
    assert set(found.values()) == set(REASONS)
    assert {
        ("TABLE", "public.child", "definition"),
        ("column positions", "public.shorter", "dropped"),
        ("rows", "public.stale", "rows"),
        ("shell operator", "public.!==(boolean,boolean)", "object"),
    } <= found.keys()


def test_a_change_of_the_copy_has_none(copied: list[ConnectionParams], server18: PostgresServer) -> None:
    changes = {
        "UPDATE child SET b = 3": ("rows", "public.child"),
        "DELETE FROM shorter WHERE a = 2": ("rows", "public.shorter"),
        "ALTER TABLE shorter ALTER c DROP NOT NULL": ("column", "public.shorter.c"),
        "COMMENT ON COLUMN shorter.a IS 'new'": ("column", "public.shorter.a"),
        "GRANT SELECT ON shorter TO PUBLIC": ("relation", "public.shorter"),
        "DROP MATERIALIZED VIEW stale": ("materialized view", "public.stale"),
        "ALTER TABLE part ADD CHECK (a < 9)": ("table constraint", "part_a_check on public.part"),
        "CREATE OR REPLACE FUNCTION less(pair, int) RETURNS boolean LANGUAGE sql AS 'SELECT true'": (
            "function",
            "public.less(public.pair,integer)",
        ),
        "SELECT lo_put(4711, 0, 'b')": ("large object", "4711"),
        "SELECT nextval('counter')": ("sequence", "public.counter"),
    }
    with copied[1].connect() as session:
        for change in changes:
            session.execute(change)  # type: ignore[call-overload]
    source = observe(copied[0], server18.bin_dir)
    copy = observe(copied[1], server18.bin_dir, source.rows)
    unexplained = {(each.kind, each.name) for each in differences(source, copy) if not reason_of(each, source, copy)}
    assert set(changes.values()) <= unexplained
