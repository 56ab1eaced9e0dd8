"""The tables that check selects for a dump, compared with those that pg_dump dumps."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from airflow_pgbackup.backup.databases.inspection import inspect_database
from airflow_pgbackup.backup.databases.selection import select
from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.client_choice import choose_client

STATEMENTS = (
    "create schema sales", 'create schema "Mixed.Case"', 'create schema "do$$ar"',
    "create table film (id serial primary key)", "create table film_old (a int)", 'create table "Film" (a int)',
    'create table "a.b" (a int)', 'create table "x*y" (a int)', "create table xzy (a int)",
    'create table "q""q" (a int)',
    'create table "ümläut" (a int)', 'create table "ÜMLÄUT" (a int)', 'create table "do$$ar".pay$ (a int)',
    "create table sales.film (a int)", "create table sales.orders (id int generated always as identity)",
    'create table "Mixed.Case".t (a int)', "create sequence counter",
    "create table parent (a int)", "create table child () inherits (parent)",
    "create table grandchild () inherits (child)", "create table parts (a int) partition by range (a)",
    "create table parts_1 partition of parts for values from (1) to (9)",
    "create view looks as select 1 as one",
)  # fmt: skip

SELECTIONS: list[dict[str, list[str]]] = [
    {},
    {"tables": ["film"]},
    {"tables": ["film*"]},
    {"tables": ["FILM"]},
    {"tables": ['"Film"']},
    {"tables": ["*.film"]},
    {"tables": ["sales.*"]},
    {"tables": ["f??m"]},
    {"tables": ['"a.b"']},
    {"tables": ['"x*y"']},
    {"tables": ["x*y"]},
    {"tables": ['"q""q"']},
    {"tables": ["ümläut"]},
    {"tables": ["ÜMLÄUT"]},
    {"tables": ["(film|xzy)"]},
    {"tables": ["film(_old)+"]},
    {"tables": ["[a-f]ilm"]},
    {"tables": ['"do$$ar".pay$']},
    {"tables": ['"Mixed.Case".*']},
    {"tables": ["counter"]},
    {"tables": ["film_id_seq"]},
    {"tables": ["sales.orders"], "exclude_tables": ["film"]},
    {"tables": ["parent"]},
    {"tables_and_children": ["parent"]},
    {"tables_and_children": ["parts", "film"]},
    {"exclude_tables": ["film*", "sales.orders"]},
    {"exclude_tables_and_children": ["parent", "parts"]},
    {"schemas": ["sales"]},
    {"schemas": ["s*", '"Mixed.Case"']},
    {"schemas": ["public"], "exclude_tables": ["film"]},
    {"schemas": ["s*", "public"], "exclude_schemas": ["pub*"]},
    {"exclude_schemas": ["sales", "do$$*"]},
    {"schemas": ["sales"], "tables": ["film"]},
]

# Relations with rows of their own, and those that pg_dump locks.
_RELATIONS = """
select c.oid::int8, n.oid::int8, n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'S') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
"""


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_as_pg_dump_selects(
    selection: dict[str, list[str]], selectable: ConnectionParams, server18: PostgresServer
) -> None:
    options = DumpOptions(schema_only=True, format="plain", **selection)  # type: ignore[arg-type]
    client = choose_client(180000)
    with client_environment(selectable) as env:
        done = subprocess.run(
            [client.tool("pg_dump"), "-w", *options.argv(client)], env=env, capture_output=True, text=True
        )
    assert done.returncode == 0 or "no matching tables were found" in done.stderr
    header = re.compile(r"^-- Name: (.*?)(?: [a-z_]+)?; Type: (TABLE|SEQUENCE); Schema: (.*); Owner: ", re.MULTILINE)
    dumped = {(schema, name) for name, _, schema in header.findall(done.stdout)}
    with inspect_database(selectable, Findings()) as db:
        ours = select(db, options)
        taken = {(schema, name) for oid, of, schema, name in db.rows(_RELATIONS) if ours.takes(oid, of)}
    assert taken == dumped


@pytest.fixture(scope="module")
def selectable(server18: PostgresServer) -> Iterator[ConnectionParams]:
    with server18.params.connect() as session:
        session.execute("create database selectable template template0")
    params = server18.params.with_database("selectable")
    with params.connect() as session:
        for statement in STATEMENTS:
            session.execute(statement)
    yield params
    with server18.params.connect() as session:
        session.execute("drop database selectable with (force)")
