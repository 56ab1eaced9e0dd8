"""What an error in the restore of a rehearsal says about the backup."""

from __future__ import annotations

import pytest

from airflow_pgbackup.backup.rehearsal.verdict import judge
from airflow_pgbackup.errors import NotProven, ToolError, VerificationFailed


@pytest.mark.parametrize("state", ["22P02", None])
@pytest.mark.parametrize(
    ("message", "verdict", "hint"),
    [
        ('invalid input syntax for type money: "R$ 1.234,50"', NotProven, "lc_monetary"),
        ('value "90,000,000,000,000,000.00" is out of range for type money', NotProven, "lc_monetary"),
        ('value "99999999999" is out of range for type integer', VerificationFailed, None),
        ('invalid input syntax for type integer: "x"', VerificationFailed, None),
        ('security label provider "anon" is not loaded', NotProven, "preloads the library"),
        ('invalid value for parameter "default_toast_compression": "lz4"', NotProven, "accepts the setting"),
        ('unrecognized configuration parameter "app.limit"', NotProven, "option create"),
        ('unrecognized configuration parameter "transaction_timeout"', NotProven, "preloads the library"),
        ('could not find function "hmac" in file "/usr/lib/pgcrypto.so"', NotProven, "extension's package"),
    ],
)
def test_what_the_server_does_not_have(
    message: str, verdict: type[Exception], hint: str | None, state: str | None
) -> None:
    line = f'pg_restore: error: COPY failed for table "t": ERROR:  {message}'
    found = judge(
        ToolError(line, tool="pg_restore", exit_code=1, stderr=[line]), "the throwaway server", lambda _: state
    )
    assert type(found) is verdict
    assert (hint is None and found.hint is None) or (hint is not None and hint in str(found.hint))


def test_a_function_that_was_removed_from_an_extension() -> None:
    line = 'pg_restore: error: could not execute query: ERROR:  function "f" already exists with same argument types'
    error = ToolError(line, tool="pg_restore", exit_code=1, stderr=[line])
    found = judge(error, "the throwaway server", lambda _: "42723")
    assert type(found) is VerificationFailed
    assert "ALTER EXTENSION ... ADD" in str(found.hint)


@pytest.mark.parametrize(
    ("message", "is_part", "verdict"),
    [
        ('type "public.citext" does not exist', True, NotProven),
        ('type "public.citext" does not exist', False, VerificationFailed),
        # Without a schema: a function of the dump looks it up.
        ('relation "rates" does not exist', True, VerificationFailed),
    ],
)
def test_what_a_part_of_a_database_does_not_have(message: str, is_part: bool, verdict: type[Exception]) -> None:
    line = f"pg_restore: error: could not execute query: ERROR:  {message}"
    error = ToolError(line, tool="pg_restore", exit_code=1, stderr=[line])
    assert type(judge(error, "the throwaway server", lambda _: None, is_part=is_part)) is verdict


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        ("column pg_stat_bgwriter.buffers_backend does not exist", NotProven),
        ('column "max_dead_tuples" does not exist', NotProven),
        ('relation "pg_replication_origins" does not exist', NotProven),
        ("function array_append(anyarray, anyelement) does not exist", NotProven),
        ('relation "public.film" does not exist', VerificationFailed),
        ('relation "rates" does not exist', VerificationFailed),
        ("function rate(integer) does not exist", VerificationFailed),
        ("function rate(integer, company) does not exist", VerificationFailed),
    ],
)
@pytest.mark.parametrize("other_source", ["15", ""])
def test_what_another_version_of_postgresql_does_not_have(
    message: str, other_source: str, verdict: type[Exception]
) -> None:
    line = f"pg_restore: error: could not execute query: ERROR:  {message}"
    error = ToolError(line, tool="pg_restore", exit_code=1, stderr=[line])
    found = judge(error, "the scratch server", lambda _: None, other_source=other_source)
    assert type(found) is (verdict if other_source else VerificationFailed)
    assert type(found) is VerificationFailed or "may lack what PostgreSQL 15" in found.message


@pytest.mark.parametrize(
    ("key", "other_locale", "verdict"),
    [
        ("lower(name)", "the server lacks the locale", NotProven),
        ("film_id, upper((name)::text)", "the server lacks the locale", NotProven),
        ("lower(name)", "", VerificationFailed),
        ("name", "the server lacks the locale", VerificationFailed),
        ("film_id, name", "the server lacks the locale", VerificationFailed),
    ],
)
def test_what_another_locale_makes_equal(key: str, other_locale: str, verdict: type[Exception]) -> None:
    lines = [
        'pg_restore: error: could not execute query: ERROR:  could not create unique index "film_key"',
        f"DETAIL:  Key ({key})=(…) is duplicated.",
    ]
    error = ToolError(lines[0], tool="pg_restore", exit_code=1, stderr=lines)
    found = judge(error, "the throwaway server", lambda _: None, other_locale=other_locale)
    assert type(found) is verdict


@pytest.mark.parametrize(("renamed", "verdict"), [(True, NotProven), (False, VerificationFailed)])
def test_a_check_of_the_name_of_the_database(renamed: bool, verdict: type[Exception]) -> None:
    message = 'ERROR:  new row for relation "film" violates check constraint "here"'
    error = ToolError(message, tool="psql", exit_code=3, stderr=[message])
    assert type(judge(error, "the scratch server", lambda _: "23514", renamed=renamed)) is verdict


@pytest.mark.parametrize(
    ("message", "money", "verdict"),
    [
        ('new row for relation "film" violates check constraint "cheap"', {"film"}, NotProven),
        ('check constraint "cheap" of relation "film" is violated by some row', {""}, NotProven),
        ('no partition of relation "film" found for row', {"film"}, NotProven),
        ('empty range bound specified for partition "film"', {"film"}, NotProven),
        ('new row for relation "film" violates check constraint "cheap"', {"actor"}, VerificationFailed),
        ('new row for relation "film" violates check constraint "cheap"', set(), VerificationFailed),
    ],
)
def test_money_that_violates_a_constraint(message: str, money: set[str], verdict: type[Exception]) -> None:
    line = f'pg_restore: error: COPY failed for table "film": ERROR:  {message}'
    error = ToolError(line, tool="pg_restore", exit_code=1, stderr=[line])
    found = judge(error, "the server", lambda _: "42P17" if "empty" in message else "23514", money=money)
    assert type(found) is verdict
    assert type(found) is VerificationFailed or "lc_monetary" in str(found.hint)


@pytest.mark.parametrize(
    ("near", "other_source", "verdict"),
    [
        (")", "13", NotProven),
        (")", "14", VerificationFailed),
        (")", "", VerificationFailed),
        ("b", "13", VerificationFailed),
    ],
)
def test_an_operator_after_its_operand_is_not_the_fault_of_the_backup(
    near: str, other_source: str, verdict: type[Exception]
) -> None:
    line = f'pg_restore: error: could not execute query: ERROR:  syntax error at or near "{near}"'
    error = ToolError(line, tool="pg_restore", exit_code=1, stderr=[line])
    assert type(judge(error, "the server", lambda _: "42601", other_source=other_source)) is verdict


@pytest.mark.parametrize(
    ("message", "context", "verdict"),
    [
        ("function aurora_version() does not exist", "", NotProven),
        ("function pg_catalog.aurora_version() does not exist", 'SQL function "v" statement 1', NotProven),
        ('relation "rds_events" does not exist', "", NotProven),
        ("function lower2(text) does not exist", "PL/pgSQL function low(text) line 1 at RETURN", VerificationFailed),
        ("function public.lower2(text) does not exist", "", VerificationFailed),
    ],
)
@pytest.mark.parametrize("service", ["Amazon Aurora", ""])
def test_what_exists_only_on_a_managed_service(
    message: str, context: str, service: str, verdict: type[Exception]
) -> None:
    line = f"pg_restore: error: could not execute query: ERROR:  {message}"
    stderr = [line, *([f"CONTEXT:  {context}"] if context else []), "Command was: CREATE VIEW public.v AS"]
    found = judge(
        ToolError(line, tool="pg_restore", exit_code=1, stderr=stderr), "the server", lambda _: None, service=service
    )
    assert type(found) is (verdict if service else VerificationFailed)


@pytest.mark.parametrize("message", ["column s.blk_read_time does not exist", 'relation "x.y" does not exist'])
def test_what_another_version_of_an_extension_does_not_have(message: str) -> None:
    line = f"pg_restore: error: could not execute query: ERROR:  {message}"
    error = ToolError(line, tool="pg_restore", exit_code=1, stderr=[line])
    assert type(judge(error, "the server", lambda _: None, ["extension e: version 1, 2 on the server"])) is NotProven
    assert type(judge(error, "the server", lambda _: None)) is VerificationFailed
