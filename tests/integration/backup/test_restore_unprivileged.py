"""Roles and memberships are restored by a user who has CREATEROLE, but is not a superuser, as on managed services."""

from __future__ import annotations

import pytest
from builds import BUILDS, Build, each
from restoring import restored

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

MEMBERS = """
select roleid::regrole || ' ' || member::regrole from pg_auth_members
 where member::regrole::text <> current_user and roleid::regrole::text !~ '^pg_' order by 1
"""


def as_user(server: PostgresServer, superuser: str) -> ConnectionParams:
    with server.params.connect() as session:
        session.execute("create role manager login createrole createdb")
        session.execute(f'create role "{superuser}"')  # type: ignore[arg-type]
    return ConnectionParams({**server.params.keywords, "user": "manager"})


@each([BUILDS[0], BUILDS[-1]])
def test_roles_of_another_server(build: Build, here: Repository) -> None:
    context = RunContext(settings=build.settings)
    with PostgresServer(build.bin_dir) as source, PostgresServer(build.bin_dir) as target:
        with source.params.connect() as session:
            session.execute("create role clerk login password 'x' connection limit 5 valid until '2040-01-01'")
            session.execute("create role staff noinherit createdb")
            session.execute("create role manager login createrole createdb")
            session.execute("grant staff to clerk with admin option")
            session.execute("set role clerk")
            session.execute("grant staff to manager")
            session.execute("reset role")
            session.execute("alter role clerk set work_mem to '9MB'")
            session.execute("set role manager")
            session.execute("create role made")
        options = DumpAllOptions(globals_only=True)
        reference = dump_cluster(
            connection=source.params, server="db", repository=here, options=options, context=context
        )
        user = as_user(target, source.superuser)
        result = restored(reference, here, user, settings=build.settings)
        assert result["roles_created"] == ["clerk", "made", "staff"]
        with target.params.connect() as session:
            query = "select rolcanlogin, rolconnlimit, rolvaliduntil is not null, rolinherit, rolcreatedb, rolconfig"
            found = {
                name: rest
                for name, *rest in session.execute(f"{query.replace('select', 'select rolname,')} from pg_roles")
            }
            assert found["clerk"] == [True, 5, True, True, False, ["work_mem=9MB"]]
            assert found["staff"] == [False, -1, False, False, True, None]
            members = {row[0] for row in session.execute(MEMBERS)}
            assert {"staff clerk", "staff manager"} <= members
            password = session.execute("select rolpassword is not null from pg_authid where rolname = 'clerk'")
            assert password.fetchone() == (True,)


@each(BUILDS[-1:])
def test_the_plan_names_what_may_be_refused(build: Build, here: Repository) -> None:
    with PostgresServer(build.bin_dir) as source, PostgresServer(build.bin_dir) as target:
        with source.params.connect() as session:
            session.execute("create role chief superuser")
            session.execute("create role watcher")
            session.execute("grant pg_monitor to watcher")
            session.execute("grant set on parameter work_mem to watcher")
        options = DumpAllOptions(globals_only=True)
        reference = dump_cluster(connection=source.params, server="db", repository=here, options=options)
        into = RestoreTarget(connection=as_user(target, source.superuser))
        plan = restore(reference=reference, repository=here, target=into, dry_run=True)["plan"]
        assert (
            "warning: the user is not a superuser, so the server may refuse this: SUPERUSER of chief; "
            "watcher in pg_monitor; privileges of watcher for parameters" in plan  # type: ignore[operator]
        )
        with pytest.raises(RestoreError, match="no roles were created"):
            restore(reference=reference, repository=here, target=into)
