"""Which statements of a dump are the grants of another role, and how they are written anew."""

from __future__ import annotations

import io

import pytest

from airflow_pgbackup.postgres.definitions.database import DatabaseStatement, DatabaseStatements
from airflow_pgbackup.postgres.definitions.passed_on import PassedOnGrant, rewritten_grant, with_grantors
from airflow_pgbackup.postgres.definitions.script_scan import scan_script

BEGIN, END = "SET SESSION AUTHORIZATION weak;", "RESET SESSION AUTHORIZATION;"
GRANT = "GRANT CONNECT ON DATABASE app TO grantee;"
WITH_OPTION = "GRANT CREATE,TEMPORARY ON DATABASE app TO grantee WITH GRANT OPTION;"


@pytest.mark.parametrize(
    ("statement", "rewritten"),
    [
        (GRANT, 'GRANT CONNECT ON DATABASE "app" TO "grantee";'),
        (WITH_OPTION, 'GRANT CREATE,TEMPORARY ON DATABASE "app" TO "grantee" WITH GRANT OPTION;'),
        ('GRANT CREATE ON TABLESPACE "a b" TO "c""d";', 'GRANT CREATE ON TABLESPACE "a b" TO "c""d";'),
        ("GRANT ALL ON TABLESPACE fast TO c;", 'GRANT CREATE ON TABLESPACE "fast" TO "c";'),
        ("GRANT ALL ON PARAMETER x TO c;", 'GRANT SET,ALTER SYSTEM ON PARAMETER "x" TO "c";'),
        ("GRANT ALL ON DATABASE x TO c;", 'GRANT CREATE,TEMPORARY,CONNECT ON DATABASE "x" TO "c";'),
        ("GRANT SET,ALTER SYSTEM ON PARAMETER x TO PUBLIC;", 'GRANT SET,ALTER SYSTEM ON PARAMETER "x" TO PUBLIC;'),
        ("GRANT SET ON PARAMETER x TO current_user;", 'GRANT SET ON PARAMETER "x" TO "current_user";'),
    ],
)
def test_names_are_quoted(statement: str, rewritten: str) -> None:
    assert rewritten_grant(statement) == rewritten


def test_grants_between_set_and_reset() -> None:
    grants = [PassedOnGrant("weak", rewritten_grant(text)) for text in (GRANT, WITH_OPTION)]
    assert with_grantors(["x;", BEGIN, GRANT, WITH_OPTION, END, GRANT]) == ["x;", BEGIN, *grants, END, GRANT]
    assert with_grantors([BEGIN, GRANT, END, BEGIN, WITH_OPTION, END])[1::3] == grants


OTHER = [
    [GRANT],
    [GRANT, END],
    [BEGIN, GRANT],
    [BEGIN, END, GRANT],
    [BEGIN, "CREATE ROLE evil;", GRANT, END],
    [BEGIN, GRANT, "CREATE ROLE evil;", END],
    [BEGIN, GRANT, "RESET ALL;", END],
    ["SET SESSION AUTHORIZATION DEFAULT;", GRANT, END],
    ["SET SESSION AUTHORIZATION 'weak';", GRANT, END],
    ["SET SESSION AUTHORIZATION weak; DROP ROLE x;", GRANT, END],
    ['SET SESSION AUTHORIZATION "weak;', GRANT, END],
    ['SET SESSION AUTHORIZATION "a"b";', GRANT, END],
    ["set session authorization weak;", GRANT, END],
    ["SET SESSION AUTHORIZATION /* */ weak;", GRANT, END],
    [BEGIN, "GRANT CONNECT ON DATABASE app TO a, b;", END],
    [BEGIN, "GRANT CONNECT ON DATABASE app TO a GRANTED BY b;", END],
    [BEGIN, "GRANT CONNECT ON DATABASE app TO a; DROP ROLE x;", END],
    [BEGIN, "GRANT SELECT ON TABLE x TO a;", END],
    [BEGIN, "GRANT a TO b;", END],
    [BEGIN, "REVOKE CONNECT ON DATABASE app FROM a;", END],
]


@pytest.mark.parametrize("statements", OTHER, ids=" ".join)
def test_everything_else_is_no_such_grant(statements: list[str]) -> None:
    assert with_grantors(statements) == statements
    found = DatabaseStatements()
    for text in statements:
        found.add(text, DatabaseStatement.parse(text))
    assert not any(statement.grantor for statement in found.found)


def script(*statements: str) -> bytes:
    body = "\n".join(statements)
    return (
        "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.1\n"
        f"{body}\n--\n-- PostgreSQL database dump complete\n--\n\n"
    ).encode()


def grantors(*statements: str) -> list[str]:
    (section,) = scan_script(io.BytesIO(script(*statements))).sections
    return [statement.grantor for statement in section.about.found]


def test_in_a_script() -> None:
    assert grantors(GRANT, BEGIN, GRANT, WITH_OPTION, END, GRANT) == ["", "weak", "weak", ""]


@pytest.mark.parametrize("between", ["INSERT INTO t VALUES (1);", "COPY t (a) FROM stdin;\n1\n\\.\n", "SELECT 1;"])
def test_in_a_script_with_something_between(between: str) -> None:
    assert grantors(BEGIN, GRANT, between, END) == [""]


def test_grants_on_something_else_beside_one_on_the_database() -> None:
    """They are not among the statements about the database."""
    tablespace = "GRANT CREATE ON TABLESPACE fast TO a;"
    assert grantors(BEGIN, tablespace, END) == []
    assert grantors(GRANT, BEGIN, tablespace, END) == [""]
    assert grantors(GRANT, BEGIN, tablespace, GRANT, tablespace, END) == ["", "weak"]
