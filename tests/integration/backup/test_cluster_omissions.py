"""What pg_dumpall leaves out of a cluster: it is logged, and the manifest lists it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import sql

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.options import DumpAllOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

DATABASES = ["database broken (its DROP DATABASE was interrupted)", "database closed (it accepts no connections)"]
PROPERTIES = [
    "owner, settings, comment of database postgres",
    "settings, privileges, connection limit of database template1",
]
TABLESPACES = ["settings of tablespace pg_default", "privileges, comment of tablespace pg_global"]
SETTINGS = ["settings of ALTER ROLE ALL (statement_timeout, work_mem)"]
NEVER = [*SETTINGS, *TABLESPACES]


@pytest.fixture(scope="module", params=[16, 18])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with PostgresServer(postgres_bin_dir(request.param)) as server, server.params.connect() as session:
        for statement in (
            "create role grp",
            "create database closed template template0",
            "alter database closed allow_connections false",
            "create database broken template template0",
            "update pg_database set datconnlimit = -2 where datname = 'broken'",
            "alter role grp in database postgres set work_mem = '11MB'",
            "comment on database postgres is 'mine'",
            "alter database postgres owner to grp",
            "alter database template1 set work_mem = '12MB'",
            "alter database template1 connection limit 7",
            "grant create on database template1 to grp",
            "alter role all set work_mem = '13MB'",
            "alter role all set statement_timeout = '1h'",
            "alter tablespace pg_default set (random_page_cost = 1.1)",
            "grant create on tablespace pg_global to grp",
            "comment on tablespace pg_global is 'x'",
        ):
            session.execute(sql.SQL(statement))
        yield server


def dumped(server: PostgresServer, repository: Repository, **options: Any) -> tuple[list[str], list[str], str]:
    """Return the manifest's ``left_out``, the warnings, and the script."""
    lines: list[str] = []
    reference = dump_cluster(
        connection=server.params,
        server="db",
        repository=repository,
        options=DumpAllOptions(**options),
        context=RunContext(log=lines.append),
    )
    manifest = json.loads(repository.read_bytes(f"{reference['series']}/{reference['id']}/manifest.json"))
    warnings = [line for line in lines if line.startswith("warning: left out: ")]
    return manifest["left_out"] or [], warnings, repository.read_bytes(str(reference["key"])).decode()


def test_what_pg_dumpall_leaves_out_is_logged_and_listed(server: PostgresServer, here: Repository) -> None:
    left_out, warnings, script = dumped(server, here)
    assert left_out == [*DATABASES, *PROPERTIES, *NEVER]
    hint = "; dump with clean=True, if_exists=True to include them"
    assert warnings == [
        *(f"warning: left out: {line}" for line in DATABASES),
        *(f"warning: left out: {line}{hint}" for line in PROPERTIES),
        *(f"warning: left out: {line}; pg_dumpall never dumps them" for line in NEVER),
    ]
    assert not any(text in script for text in ("closed", "broken", "11MB", "12MB", "13MB", "'mine'"))


def test_clean_includes_the_properties(server: PostgresServer, here: Repository) -> None:
    left_out, _, script = dumped(server, here, clean=True, if_exists=True)
    assert left_out == [*DATABASES, *NEVER]
    assert not any(text in script for text in ("closed", "broken", "13MB"))
    for text in (
        "11MB",
        "12MB",
        "IS 'mine'",
        "CONNECTION LIMIT = 7",
        "postgres OWNER TO grp",
        "GRANT CREATE ON DATABASE template1 TO grp",
    ):
        assert text in script


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"globals_only": True}, NEVER),
        ({"roles_only": True}, SETTINGS),
        ({"tablespaces_only": True}, TABLESPACES),
        ({"globals_only": True, "no_tablespaces": True}, SETTINGS),
        ({"data_only": True}, DATABASES),
        ({"exclude_databases": ["clos*", "template1"]}, [DATABASES[0], PROPERTIES[0], *NEVER]),
        (
            {"no_privileges": True, "no_comments": True, "exclude_databases": ["broken", "closed"]},
            [
                "owner, settings of database postgres",
                "settings, connection limit of database template1",
                *SETTINGS,
                TABLESPACES[0],
            ],
        ),
    ],
)
def test_what_the_options_leave_out_is_not_listed(
    options: dict[str, Any], expected: list[str], server: PostgresServer, here: Repository
) -> None:
    assert dumped(server, here, **options)[0] == expected


def test_a_new_cluster_lacks_nothing(here: Repository) -> None:
    with PostgresServer(postgres_bin_dir(18)) as server:
        assert dumped(server, here)[:2] == ([], [])
