"""restore_set of a server with tablespaces, into one that cannot have them."""

from __future__ import annotations

from restoring import fresh_server
from sets import back_up_set

from airflow_pgbackup.backup.sets.restore_set import restore_set
from airflow_pgbackup.backup.sets.restore_set_plan import SetTarget
from airflow_pgbackup.repository.base import Repository


def test_everything_is_put_into_the_default_tablespace(here: Repository) -> None:
    with fresh_server(18, settings={"allow_in_place_tablespaces": "on"}) as server:
        with server.params.connect() as session:
            session.execute("create tablespace fast location ''")
            session.execute("create database app")
            session.execute("create database small")
        with server.params.with_database("app").connect() as session:
            session.execute("create table t tablespace fast as select 1 as id")
        back_up_set(server, here, ["app", "small"], plain=["small"])
    with fresh_server(18) as server:
        target = SetTarget(connection=server.params, no_tablespaces=True, jobs_per_database=2)
        result = restore_set(repository=here, server="prod", target=target)
        assert [each["outcome"] for each in result["databases"]] == ["restored"] * 2  # type: ignore[attr-defined]
        with server.params.with_database("app").connect() as session:
            assert session.execute("select id from t").fetchall() == [(1,)]
            assert session.execute("select count(*) from pg_tablespace").fetchone() == (2,)
