"""Every truncation of a complete script is detected."""

from __future__ import annotations

import io

import pytest

from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.script_trailer import ScriptTrailerCheck
from airflow_pgbackup.postgres.sql.lexer import SqlLexer

# Shortened output of the tools.

HEAD = b"--\n-- PostgreSQL database dump\n--\n\n"
TRAILER = b"--\n-- PostgreSQL database dump complete\n--\n\n"
CLUSTER_HEAD = b"--\n-- PostgreSQL database cluster dump\n--\n\n"
CLUSTER_TRAILER = b"--\n-- PostgreSQL database cluster dump complete\n--\n\n"
BODY = b"SET a = 1;\n\nCOPY t (a) FROM stdin;\n1\n\\.\n\n\n"

OLD_DATABASE = HEAD + BODY + TRAILER
DATABASE = HEAD + b"\\restrict k3y\n\n" + BODY + TRAILER + b"\\unrestrict k3y\n\n"
CREATED = DATABASE.replace(
    b"SET a = 1;\n", b"CREATE DATABASE app;\n\n\\unrestrict k3y\n\\encoding SQL_ASCII\n\\connect app\n\\restrict k3y\n"
)
GLOBALS = CLUSTER_HEAD + b"\\restrict abc\n\nCREATE ROLE r;\n\n\\unrestrict abc\n\n" + CLUSTER_TRAILER
CLUSTER = GLOBALS.removesuffix(CLUSTER_TRAILER) + b"\\connect template1\n\n" + DATABASE + CREATED + CLUSTER_TRAILER
OLD_CLUSTER = CLUSTER_HEAD + b"CREATE ROLE r;\n\n\\connect a\n\n" + OLD_DATABASE * 2 + CLUSTER_TRAILER
TRAILER_AS_DATA = DATABASE.replace(b"1\n\\.\n", TRAILER + b"\\unrestrict k3y\n\n\\.\n")
SCRIPTS = {
    "database": DATABASE,
    "before restrict": OLD_DATABASE,
    "with create": CREATED,
    "globals": GLOBALS,
    "cluster": CLUSTER,
    "old cluster": OLD_CLUSTER,
    "trailer as data": TRAILER_AS_DATA,
}


def finish(script: bytes) -> ScriptTrailerCheck:
    check = ScriptTrailerCheck()
    lexer = SqlLexer(io.BytesIO(script))
    for event in lexer:
        check.event(event)
    check.finish(lexer.trailing, lexer.offset)
    return check


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_every_truncated_script_is_detected(script: bytes) -> None:
    assert finish(script).cluster == script.startswith(CLUSTER_HEAD)
    for length in range(len(script)):
        with pytest.raises(VerificationFailed):
            finish(script[:length])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (b"", "the script is empty"),
        (b"\n\n", "does not begin with the header of a dump"),
        (b"SELECT 1;\n", "does not begin with the header of a dump"),
        (b"-- notes\n\n", "does not begin with the header of a dump"),
        (HEAD + BODY, f"truncated after {len(HEAD + BODY)} bytes: '-- PostgreSQL database dump complete' is missing"),
        (HEAD + b"\\restrict a\n" + TRAILER, r"the last \\unrestrict is missing"),
        (HEAD + b"\\restrict a\n" + TRAILER + b"\\unrestrict b\n\n", r"key of \\unrestrict at byte .* differs from"),
        (HEAD + b"\\restrict a\n\\restrict b\n", r"a second \\restrict at byte 47"),
        (OLD_DATABASE + b"DROP TABLE t;\n", "continues after the trailer of the dump, at byte 121"),
        (OLD_DATABASE * 2, "a second dump begins at byte 124"),
        (HEAD + OLD_DATABASE, "a second dump begins at byte 38"),
        (CLUSTER_HEAD + TRAILER, "unexpected"),
        (HEAD + b"\\! rm -r .\n", r"\\! at byte 35, which pg_dump never writes"),
    ],
)
def test_the_error_names_what_is_wrong_with_a_script(script: bytes, message: str) -> None:
    with pytest.raises(VerificationFailed, match=message):
        finish(script)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_windows_line_ends_prove_nothing(script: bytes) -> None:
    """psql restores such a script: it is no fault of the dump that its rows cannot be compared."""
    with pytest.raises(NotProven, match="Windows line ends"):
        finish(script.replace(b"\n", b"\r\n"))
