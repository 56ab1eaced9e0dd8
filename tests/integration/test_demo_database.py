"""The demo's database: the same everywhere, and somebody's old dump instead of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_pgbackup.demo.database import count_rows, load_dump, load_sample
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConfigurationError, ToolError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.process import run_tool

FreshDatabase = Callable[..., ConnectionParams]


def dump(params: ConnectionParams, major: int, format: str, target: Path) -> Path:
    with client_environment(params) as env:
        tool = postgres_bin_dir(major) / "pg_dump"
        run_tool([tool, "--no-password", f"--format={format}", f"--file={target}"], env=env)
    return target


def test_the_sample_is_the_same_on_every_server(
    server16: PostgresServer, server18: PostgresServer, fresh_database: FreshDatabase
) -> None:
    contents = []
    for server in (server16, server18):
        params = fresh_database(server)
        with params.connect() as connection:
            load_sample(connection)
            contents.append({})
            for name in count_rows(params):
                query = f"SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {name} AS t"
                contents[-1][name] = connection.execute(query).fetchone()
    assert contents[0] == contents[1]
    assert len(contents[0]) == 15


def test_the_sample_has_what_a_real_database_has(server18: PostgresServer, fresh_database: FreshDatabase) -> None:
    params = fresh_database(server18)
    with params.connect() as connection:
        load_sample(connection)
        counts = count_rows(params)
        assert sum(counts.values()) == 114_149
        assert counts["public.rental"] == 48_000
        kinds = connection.execute(
            "SELECT relkind::text, count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace GROUP BY 1"
        ).fetchall()
        assert dict(kinds).keys() == {"r", "v", "m", "i", "S"}
        # the next rental gets a number of its own, and the triggers work
        row = connection.execute(
            "INSERT INTO rental (rental_date, inventory_id, customer_id, staff_id) VALUES (now(), 1, 1, 1) RETURNING 1"
        ).fetchone()
        assert row == (1,)
        connection.execute("UPDATE film SET title = 'Renamed' WHERE film_id = 1")
        assert connection.execute("SELECT count(*) FROM film WHERE fulltext @@ 'renamed'").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM film_list").fetchone() == (1000,)


@pytest.mark.parametrize("format", ["tar", "custom", "directory"])
def test_a_dump_that_makes_schema_public_is_restored_all_the_same(
    format: str, server16: PostgresServer, server18: PostgresServer, fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    # pg_dump 10 and older wrote CREATE SCHEMA public, as today's does for any other name; and the names are as long.
    old = fresh_database(
        server16,
        None,
        "CREATE SCHEMA qublic",
        f"CREATE ROLE gone_{format}",  # and the other server has never heard of this owner
        "CREATE TABLE qublic.things AS SELECT generate_series(1, 7) AS n",
        f"ALTER TABLE qublic.things OWNER TO gone_{format}",
    )
    file = dump(old, 16, format, tmp_path / "old.dump")
    toc = file / "toc.dat" if format == "directory" else file
    toc.write_bytes(toc.read_bytes().replace(b"qublic", b"public"))

    new = fresh_database(server18)
    argv = [postgres_bin_dir(18) / "pg_restore", "--no-password", "--no-owner", "--exit-on-error", "--dbname=", file]
    with client_environment(new) as env, pytest.raises(ToolError, match='schema "public" already exists'):
        run_tool(argv, env=env)

    new = fresh_database(server18)
    load_dump(file, new, postgres_bin_dir(18), tmp_path)
    assert count_rows(new) == {"public.things": 7}


def test_what_is_no_dump_is_refused_by_name(
    server18: PostgresServer, fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    plain = dump(fresh_database(server18), 18, "plain", tmp_path / "plain.sql")
    for file in (plain, tmp_path / "missing.tar"):
        with pytest.raises(ConfigurationError, match=file.name) as caught:
            load_dump(file, fresh_database(server18), postgres_bin_dir(18), tmp_path)
        assert "pg_dump -Fc, -Ft or -Fd" in str(caught.value.hint)
