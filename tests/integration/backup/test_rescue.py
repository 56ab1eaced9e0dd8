"""The recipes of docs/guides/rescue.md, as somebody in need runs them: with PostgreSQL's tools and nothing of ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from awkward import KINDS
from builds import run_by_hand

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "rescue.md").read_text()

Fresh = Callable[..., ConnectionParams]


def recipe(title: str) -> list[str]:
    """The shell commands below a title."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith("#")]
    assert lines
    return lines


def rescued(
    title: str,
    kind: str,
    change: Callable[[str], str | None],
    server: PostgresServer,
    fresh_database: Fresh,
    folder: Path,
    sql: str = "",
) -> ConnectionParams:
    """Run a recipe over a dump of an awkward database.

    :param change: a line of the recipe as it is for that database; None leaves it out.
    :param sql: what the person types where the recipe opens psql.
    """
    source = fresh_database(server, None, *KINDS[kind].statements)
    target = fresh_database(server)
    with server.params.connect() as session:
        session.execute(f'drop database "{target.dbname}" with (force)'.encode())
    (folder / "typed.sql").write_text(sql)
    run_by_hand(f"pg_dump -Fc -f app.dump {source.dbname}", folder, server)
    for line in recipe(title):
        command = change(line)
        if command is None:
            continue
        if re.fullmatch(r"psql --dbname rescued", command):
            command += " --set ON_ERROR_STOP=1 --file typed.sql"
        run_by_hand(re.sub(r"\brescued\b", target.dbname, command), folder, server)
    return target


def count(database: ConnectionParams, table: str = "t") -> int:
    with database.connect() as session:
        row = session.execute(f"select count(*) from {table}".encode()).fetchone()
        return int(row[0]) if row else -1


def test_a_function_that_depends_on_search_path(
    server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    target = rescued(
        "A function relies on `search_path`",
        "generated column",
        lambda line: line.replace("app.inc2", "public.inc2"),
        server18,
        fresh_database,
        tmp_path,
    )
    assert count(target) == 1


def test_duplicates(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    target = rescued(
        "Rows that a constraint refuses",
        "duplicates",
        lambda line: line,
        server18,
        fresh_database,
        tmp_path,
        sql="DELETE FROM t a USING t b WHERE a.a = b.a AND a.ctid > b.ctid;",
    )
    assert count(target) == 1


def test_orphans(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    target = rescued(
        "Rows that a constraint refuses",
        "orphans",
        lambda line: line,
        server18,
        fresh_database,
        tmp_path,
        sql="DELETE FROM c WHERE NOT EXISTS (SELECT FROM p WHERE p.a = c.a);",
    )
    assert count(target, "c") == 0


def test_a_check_that_no_longer_holds(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    def change(line: str) -> str | None:
        if line.startswith("psql"):
            without = r"sed -i 's/^ *CONSTRAINT .*CHECK.*$//; s/with time zone,$/with time zone/'"
            return f"{without} pre-data.sql && {line}"
        return line

    target = rescued("A CHECK that no longer holds", "check on the clock", change, server18, fresh_database, tmp_path)
    assert count(target) == 1


def test_a_function_that_raises(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    def change(line: str) -> str:
        made = "createdb --template template0 rescued && " if line.startswith("pg_restore --use-list") else ""
        return made + line

    target = rescued(
        "A function that raises an error", "function that raises", change, server18, fresh_database, tmp_path
    )
    assert count(target, "raises") == 1


def test_one_table(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    rescued(
        "One table only",
        "check on the clock",
        lambda line: line.replace("film", "t"),
        server18,
        fresh_database,
        tmp_path,
    )
    assert "COPY public.t (a) FROM stdin;" in (tmp_path / "t.sql").read_text()


@pytest.mark.parametrize("major", [16, 18])
def test_the_tools_of_the_page_are_there(major: int) -> None:
    named = set(re.findall(r"^(?:pg_\w+|psql|createdb)\b", PAGE, re.MULTILINE)) - {"pgbackup"}
    assert named >= {"pg_restore", "psql", "createdb"}
    assert all((postgres_bin_dir(major) / name).exists() for name in named)
