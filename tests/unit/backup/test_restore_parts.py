"""The decisions of a restore: statements about the database, skipped statements, requirements of the server."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.rehearsal.cluster_globals import ClusterGlobals
from airflow_pgbackup.backup.restore.globals import plan_globals
from airflow_pgbackup.backup.restore.plan import check_needs, choose_strategy
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import ConfigurationError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, DatabaseStatement
from airflow_pgbackup.postgres.definitions.identifiers import quoted
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.definitions.script_scan import SectionTracker, scan_script
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.psql.script_filter import ScriptFilter, sessions
from airflow_pgbackup.postgres.sql.lexer import Comment, CopyData, MetaCommand, Statement


def server(**known: set[str]) -> ServerInfo:
    names = {name: frozenset(known.get(name, ())) for name in ("databases", "roles", "tablespaces")}
    extensions = dict.fromkeys(known.get("extensions", ()), "1.0")
    return ServerInfo(180004, superuser=True, may_create=True, user="me", locks=6400, extensions=extensions, **names)


# -- statements about a database as a whole

STATEMENTS = [
    "CREATE DATABASE {} WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C';",
    "ALTER DATABASE {} OWNER TO alice;",
    "ALTER DATABASE {} SET search_path TO '$user', 'public';",
    "ALTER ROLE \"Al ice\" IN DATABASE {} SET work_mem TO '13MB';",
    "ALTER DATABASE {} CONNECTION LIMIT = 5;",
    "COMMENT ON DATABASE {} IS 'it''s DATABASE foo';",
    "REVOKE CONNECT,TEMPORARY ON DATABASE {} FROM PUBLIC;",
    'GRANT CREATE ON DATABASE {} TO "the ""reader""" WITH GRANT OPTION;',
    "SECURITY LABEL FOR selinux ON DATABASE {} IS 'x';",
    "DROP DATABASE IF EXISTS {};",
]


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("name", ["foo", '"odd ""name"', '"host=x dbname=y"'])
def test_a_statement_about_a_database_gets_another_name(statement: str, name: str) -> None:
    found = DatabaseStatement.parse(statement.format(name))
    assert found is not None
    assert quoted(found.database) == (name if name.startswith('"') else f'"{name}"')
    assert found.about('n"w') == statement.format('"n""w"')


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE public.database (a int);",
        "GRANT SELECT ON TABLE public.t TO database;",
        "COMMENT ON TABLE public.t IS 'ALTER DATABASE foo SET x TO y;';",
        "ALTER ROLE alice SET work_mem TO '1MB';",
        "UPDATE public.t SET a = 1;",
    ],
)
def test_other_statements_are_ignored(statement: str) -> None:
    assert DatabaseStatement.parse(statement) is None


def test_what_belongs_to_a_database() -> None:
    found = DatabaseProperties.of_statements(
        filter(None, (DatabaseStatement.parse(text.format("foo")) for text in STATEMENTS))
    )
    assert (found.name, found.owner, found.encoding) == ("foo", "alice", "UTF8")
    assert [statement.verb for statement in found.settings] == ["ALTER DATABASE ", 'ALTER ROLE "Al ice" IN DATABASE ']
    assert len(found.access) + len(found.descriptions) == 5
    rest = found.without(privileges=True, comments=True, labels=True)
    left = [*rest.access, *rest.descriptions]
    assert [statement.rest for statement in left] == [" CONNECTION LIMIT = 5;"]


# -- scripts

SCRIPT = rb"""--
-- PostgreSQL database dump
--

\restrict abc

-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET transaction_timeout = 0;
CREATE DATABASE foo WITH TEMPLATE = template0;
\unrestrict abc
\connect foo
\restrict abc
CREATE SCHEMA public;
CREATE TABLE public.t (a text);
ALTER TABLE public.t OWNER TO alice;
CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $$
SET transaction_timeout = 0;
\connect elsewhere
$$;
COPY public.t (a) FROM stdin;
SET transaction_timeout = 0;
\\connect elsewhere
\.

BEGIN;
COMMIT;
--
-- PostgreSQL database dump complete
--

\unrestrict abc

"""


class Trickle:
    """A source whose reads end anywhere."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, self._size) if size > 0 else self._size)


def read(source: object) -> bytes:
    pieces = []
    while piece := source.read(100):  # type: ignore[attr-defined]
        pieces.append(piece)
    return b"".join(pieces)


@given(st.integers(1, len(SCRIPT)))
def test_a_filter_leaves_out_the_commands_of_psql_and_changes_no_other_byte(size: int) -> None:
    expected = re.sub(rb"(?m)^\\(?:restrict abc|unrestrict abc|connect foo)$", b"", SCRIPT)
    assert read(ScriptFilter(Trickle(SCRIPT, size), lambda event: 0).part(0)) == expected


@given(st.integers(1, 200))
def test_a_filter_leaves_out_what_it_is_told_and_no_look_alike(size: int) -> None:
    def route(event: Comment | MetaCommand | Statement | CopyData) -> int | None:
        return None if isinstance(event, Statement) and event.words[:1] == (b"SET",) else 0

    found = read(ScriptFilter(Trickle(SCRIPT, size), route).part(0))
    expected = re.sub(rb"(?m)^\\(?:restrict abc|unrestrict abc|connect foo)$", b"", SCRIPT)
    expected = expected.replace(b"\n\nSET transaction_timeout = 0;", b"", 1)
    assert b"".join(found.split()) == b"".join(expected.split())
    assert found.count(b"SET transaction_timeout") == 2
    assert found.count(b"connect elsewhere") == 2


def test_parts_come_one_after_the_other_and_may_be_empty() -> None:
    parts = {b"A": 0, b"B": 2, b"C": None, b"D": 2}

    def route(event: Comment | MetaCommand | Statement | CopyData) -> int | None:
        assert isinstance(event, Statement)
        return parts[event.words[0]]

    script = ScriptFilter(io.BytesIO(b"A;\nB;\nC;\nD;\n"), route)
    assert [read(script.part(number)) for number in range(4)] == [b"A;", b"", b"\nB;\nD;\n", b""]


def test_a_script_is_cut_into_its_sessions() -> None:
    connect = b"\\encoding SQL_ASCII\n\\connect -reuse-previous=on \"dbname='a=b'\"\n"
    source = io.BytesIO(SCRIPT.replace(b"BEGIN;", connect + b"BEGIN;"))
    found = [(name, read(part)) for name, part in sessions(source, instead={b"COMMIT;": b"ROLLBACK;"})]
    assert [name for name, _ in found] == [None, b"foo", b"a=b"]
    first, second, third = (text for _, text in found)
    assert first.strip().endswith(b"CREATE DATABASE foo WITH TEMPLATE = template0;")
    assert second.strip().startswith(b"CREATE SCHEMA public;")
    assert second.strip().endswith(b"\n\\.")
    assert third.split() == b"BEGIN; ROLLBACK; -- -- PostgreSQL database dump complete --".split()


def test_what_a_script_holds() -> None:
    found = scan_script(io.BytesIO(SCRIPT))
    (section,) = found.sections
    assert found.dumped_from == 18
    assert (section.database, section.creates, section.makes_public) == ("foo", True, True)
    assert (section.tables, section.rows) == (1, 2)
    assert section.requirements.roles == {"alice"}


@pytest.mark.parametrize("cut", [1, 20, 60, 300, 560, len(SCRIPT) - 40])
def test_a_script_that_is_cut_short_is_none(cut: int) -> None:
    with pytest.raises(VerificationFailed):
        scan_script(io.BytesIO(SCRIPT[: len(SCRIPT) - cut]))


def test_a_script_with_a_command_that_no_dump_has_is_refused() -> None:
    with pytest.raises(VerificationFailed, match=r"\\! at byte"):
        scan_script(io.BytesIO(SCRIPT.replace(b"BEGIN;", b"\\! rm -rf /\nBEGIN;")))


@pytest.mark.parametrize(
    "command",
    [
        rb"\connect bar",
        rb"\connect host=example.org",
        rb'\connect "host=example.org"',
        rb'\connect "postgresql://example.org/foo"',
        b"\\connect -reuse-previous=on \"dbname='foo' host='example.org'\"",
        rb"\connect foo bar",
        rb"\connect `touch marker`",
        rb"\encoding UTF8",
        rb"\encoding SQL_ASCII \! touch marker",
        rb"\restrict `touch marker`",
        rb"\unrestrict `touch marker`",
    ],
)
def test_the_commands_of_dumps_have_no_other_arguments_than_those_of_dumps(command: bytes) -> None:
    with pytest.raises(VerificationFailed, match=r"\\(connect|encoding|restrict|unrestrict)"):
        scan_script(io.BytesIO(SCRIPT.replace(b"BEGIN;", command + b"\nBEGIN;")))


def test_the_places_of_a_cluster_s_script() -> None:
    one = SCRIPT.replace(b"foo", b"one")
    script = (
        b"--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE alice;\n"
        + one
        + b"\\connect postgres\n\n"
        + SCRIPT.replace(b"CREATE DATABASE foo WITH TEMPLATE = template0;\n", b"").replace(b"\\connect foo\n", b"")
        + b"--\n-- PostgreSQL database cluster dump complete\n--\n\n"
    )
    found = scan_script(io.BytesIO(script))
    assert found.cluster
    assert found.globals == ["CREATE ROLE alice;"]
    assert [(section.database, section.creates) for section in found.sections] == [("one", True), ("postgres", False)]
    parts = ScriptFilter(io.BytesIO(script), SectionTracker().section_of)
    assert read(parts.part(0)).strip().endswith(b"\n--\n-- PostgreSQL database dump complete")
    assert b"CREATE ROLE" not in (second := read(parts.part(1)))
    assert b"-- PostgreSQL database dump complete" in second


# -- what a server must have


@pytest.mark.parametrize(
    ("statement", "roles"),
    [
        ('ALTER TABLE public.t OWNER TO "Al ice";', {"Al ice"}),
        ("GRANT SELECT ON TABLE public.t TO bob;", {"bob"}),
        ("GRANT SELECT ON TABLE public.t TO PUBLIC;", set()),
        ('REVOKE ALL ON SCHEMA public FROM "the ""x""";', {'the "x"'}),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT SELECT ON TABLES TO b WITH GRANT OPTION;", {"a", "b"}),
        ("CREATE POLICY p ON public.t TO a, b USING ((owner = CURRENT_USER));", {"a", "b"}),
        ("CREATE POLICY p ON public.t USING (true);", set()),
        ("CREATE USER MAPPING FOR a SERVER s OPTIONS (password 'x');", {"a"}),
        ("CREATE USER MAPPING FOR PUBLIC SERVER s;", set()),
        ("CREATE USER MAPPING FOR public SERVER s;", set()),
        ("CREATE FUNCTION f() RETURNS text AS 'GRANT x TO y;';", set()),
        ("COMMENT ON TABLE t IS 'ALTER TABLE t OWNER TO x;';", set()),
    ],
)
def test_roles_that_a_statement_needs(statement: str, roles: set[str]) -> None:
    needs = Requirements()
    needs.add(statement)
    assert needs.roles == roles


def test_everything_missing_is_reported_at_once() -> None:
    needs = Requirements(roles={"alice", "bob"}, extensions={"postgis", "plpgsql"}, tablespaces={"fast"})
    known = server(roles={"bob"}, extensions={"plpgsql"})
    with pytest.raises(ConfigurationError) as missing:
        check_needs(needs, known, label="it")
    assert missing.value.message == ("it lacks what the backup needs: role alice; extension postgis; tablespace fast")
    assert missing.value.hint is not None
    for option in ("no_owner", "use_list", "no_tablespaces"):
        assert option in missing.value.hint
    needs.extensions.remove("postgis")
    check_needs(needs, known, label="it", new_roles=["alice"], new_tablespaces=["fast"])


# -- roles of a cluster


def test_existing_roles_are_not_changed() -> None:
    statements = [
        "SET client_encoding = 'UTF8';",
        "DROP ROLE IF EXISTS new;",
        "CREATE ROLE new;",
        "ALTER ROLE new WITH LOGIN PASSWORD 'SCRAM-SHA-256$x';",
        "CREATE ROLE postgres;",
        "ALTER ROLE postgres WITH SUPERUSER PASSWORD 'SCRAM-SHA-256$y';",
        "ALTER ROLE postgres SET work_mem TO '1MB';",
        "COMMENT ON ROLE new IS 'x';",
        "COMMENT ON ROLE postgres IS 'x';",
        "GRANT new TO postgres WITH ADMIN OPTION, INHERIT TRUE GRANTED BY chief;",
        "GRANT old TO postgres WITH INHERIT TRUE GRANTED BY chief;",
        'GRANT new TO "odd" WITH INHERIT FALSE GRANTED BY postgres;',
        "GRANT SET ON PARAMETER work_mem TO new;",
        "GRANT SET ON PARAMETER work_mem TO postgres;",
        "CREATE TABLESPACE there OWNER new LOCATION '/there';",
        "ALTER TABLESPACE there SET (random_page_cost='1');",
        "CREATE TABLESPACE fast OWNER new LOCATION '/fast';",
        "GRANT CREATE ON TABLESPACE fast TO new;",
    ]
    plan = plan_globals(statements, server(roles={"postgres", "old"}, tablespaces={"there"}), bootstrap="boss")
    assert (plan.created, plan.existing) == (["new"], ["postgres"])
    assert (plan.tablespaces, plan.existing_tablespaces) == (["fast"], ["there"])
    assert plan.role_statements == [
        "CREATE ROLE new;",
        "ALTER ROLE new WITH LOGIN PASSWORD 'SCRAM-SHA-256$x';",
        "COMMENT ON ROLE new IS 'x';",
        # chief was the superuser that the other server was made with
        "GRANT new TO postgres WITH ADMIN OPTION, INHERIT TRUE;",
        'GRANT new TO "odd" WITH INHERIT FALSE GRANTED BY postgres;',
        "GRANT SET ON PARAMETER work_mem TO new;",
    ]
    assert plan.tablespace_statements == [
        "CREATE TABLESPACE fast OWNER new LOCATION '/fast';",
        "GRANT CREATE ON TABLESPACE fast TO new;",
    ]
    assert "SCRAM" not in repr(plan)


# -- the strategy


@pytest.mark.parametrize(
    ("mode", "options", "locks", "strategy"),
    [
        ("into_empty", {}, 100, (False, True)),
        ("into_empty", {"jobs": 1}, 100, (False, True)),
        ("into_empty", {"jobs": 2}, 100, (True, False)),
        ("into_empty", {"transaction_size": 10}, 100, (True, False)),
        ("into_empty", {}, 5000, (True, False)),
        ("into_empty", {"single_transaction": True}, 5000, (False, True)),
        ("into_existing", {}, 5000, (False, True)),
        ("create", {}, 100, (True, True)),
        ("create", {}, 5000, (True, False)),
        ("replace", {"jobs": 4}, 100, (True, False)),
    ],
)
def test_a_single_transaction_where_possible(
    mode: str, options: dict[str, int], locks: int, strategy: tuple[bool, bool]
) -> None:
    target = RestoreTarget(connection=ConnectionParams(keywords={"dbname": "x"}), mode=mode)
    found = choose_strategy(target, RestoreOptions(**options), server(), Requirements(locks=locks))  # type: ignore[arg-type]
    assert (found.new_database, found.single_transaction) == strategy


GRANTED_BY_B = ["CREATE ROLE c;", "GRANT a TO b WITH ADMIN OPTION;", "GRANT a TO c GRANTED BY b;"]


def test_grantor_without_the_admin_option_on_this_server() -> None:
    """The membership of existing roles is not granted, so its grantor may lack what the dump gave it."""
    target = server(roles={"a", "b", "boss"})
    plan = plan_globals(GRANTED_BY_B, target, bootstrap="boss")
    assert plan.role_statements == ["CREATE ROLE c;", "GRANT a TO c;"]
    assert [line for line in plan.lines() if "c in a, granted by b" in line]


def test_grantor_with_the_admin_option_on_this_server() -> None:
    target = server(roles={"a", "b", "boss"})
    plan = plan_globals(GRANTED_BY_B, target, bootstrap="boss", admins={("a", "b")})
    assert plan.role_statements == ["CREATE ROLE c;", "GRANT a TO c GRANTED BY b;"]
    assert not plan.other_grantors


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (  # as pg_dumpall 15 sorts them: by role and member
            [
                "GRANT readers TO bob GRANTED BY carol;",
                "GRANT readers TO carol WITH ADMIN OPTION GRANTED BY dave;",
                "GRANT readers TO dave WITH ADMIN OPTION GRANTED BY boss;",
            ],
            [
                "GRANT readers TO dave WITH ADMIN OPTION GRANTED BY boss;",
                "GRANT readers TO carol WITH ADMIN OPTION GRANTED BY dave;",
                "GRANT readers TO bob GRANTED BY carol;",
            ],
        ),
        (
            [
                "GRANT readers TO bob WITH ADMIN OPTION GRANTED BY carol;",
                "GRANT readers TO carol WITH ADMIN OPTION GRANTED BY bob;",
                "GRANT readers TO dave WITH ADMIN OPTION GRANTED BY dave;",
            ],
            [
                "GRANT readers TO bob WITH ADMIN OPTION;",
                "GRANT readers TO carol WITH ADMIN OPTION GRANTED BY bob;",
                "GRANT readers TO dave WITH ADMIN OPTION;",
            ],
        ),
    ],
)
def test_a_membership_follows_that_of_its_grantor(given: list[str], expected: list[str]) -> None:
    plan = plan_globals(given, server(roles={"boss"}), bootstrap="boss")
    assert plan.role_statements == expected
    replaced = ClusterGlobals(["CREATE ROLE boss;", *given]).replacements
    assert [replaced.get(each.encode(), each.encode()).decode() for each in given] == expected


def test_new_roles_that_log_in_without_a_password() -> None:
    statements = [
        "CREATE ROLE a;",
        "ALTER ROLE a WITH NOSUPERUSER NOLOGIN NOREPLICATION;",
        "CREATE ROLE b;",
        "ALTER ROLE b WITH NOSUPERUSER LOGIN NOREPLICATION CONNECTION LIMIT 5;",
        "CREATE ROLE here;",
        "ALTER ROLE here WITH LOGIN;",
    ]
    assert plan_globals(statements, server(roles={"here"}), bootstrap="boss").without_password == ["b"]
    statements[-1] = "ALTER ROLE here WITH LOGIN PASSWORD 'SCRAM-SHA-256$x';"
    assert not plan_globals(statements, server(roles={"here"}), bootstrap="boss").without_password


@pytest.mark.parametrize("forged", ["COMMIT;", "/* */ rollback;", "COMMENT ON ROLE a IS 'x'; END;"])
def test_globals_that_end_their_transaction_are_refused(forged: str) -> None:
    with pytest.raises(VerificationFailed, match="which pg_dump never writes"):
        plan_globals(["CREATE ROLE a;", forged], server(), bootstrap="boss")
    fine = ["COMMENT ON ROLE a IS 'commit; it''s the end';", 'CREATE ROLE "end";']
    assert plan_globals(fine, server(), bootstrap="boss").role_statements
