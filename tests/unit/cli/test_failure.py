"""Hints speak the words of the command line, not those of the operators."""

from __future__ import annotations

import pytest

from airflow_pgbackup.cli.failure import Failure


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("Set keep_last, or keep_daily.", "Set --keep-last, or --keep-daily."),
        ("Use mode into_empty.", "Use --mode into_empty."),
        ("Restore with --mode create.", "Restore with --mode create."),
        ("Set terminate_sessions, or end these sessions.", "Omit --keep-sessions, or end these sessions."),
        ("Create one with init_repository=True or pgbackup init.", "Create one with pgbackup init."),
        (
            "Verify it first, or pass minimum_level=None to upload it.",
            "Verify it first, or give --minimum-level none to upload it.",
        ),
        ("Set statement_timeout on the server.", "Set statement_timeout on the server."),
        (
            "Pass server= as in the dumps; by default it is the connection id.",
            "Give --server, the first part of the series.",
        ),
        (
            "Check key and secret of the AWS connection, or the environment of this worker.",
            "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws.",
        ),
        (None, None),
    ],
)
def test_hints(hint: str | None, shown: str | None) -> None:
    names = {"keep_last", "keep_daily", "mode", "keep_sessions", "minimum_level"}
    assert Failure("ToolError", "it failed", hint, 1).with_flags(names).hint == shown


def test_mode_is_a_word_for_verbs_without_that_flag() -> None:
    failure = Failure("ToolError", "it failed", "Use mode create.", 1)
    assert failure.with_flags({"server"}).hint == "Use mode create."


@pytest.mark.parametrize(
    ("names", "hint", "shown"),
    [
        (
            {"cluster"},
            "Set no_role_passwords: only a superuser can.",
            "Set -o no_role_passwords: only a superuser can.",
        ),
        ({"cluster"}, "Name it: -o no_owner for --no-owner.", "Name it: -o no_owner for --no-owner."),
        (set(), "Use exclude_tables or lock_timeout.", "Use -o exclude_tables or lock_timeout."),
        ({"globals", "no_owner"}, "Set no_owner or no_comments.", "Set --no-owner or -o no_comments."),
    ],
)
def test_an_option_of_the_tool(names: set[str], hint: str, shown: str) -> None:
    assert Failure("ToolError", "it failed", hint, 1).with_flags({"option", *names}).hint == shown


def test_the_connection_of_airflow_is_named_where_it_is_used() -> None:
    hint = "Check key and secret of the AWS connection, or the environment of this worker."
    assert Failure("RepositoryError", "it failed", hint, 1).with_flags({"aws_conn_id"}).hint == hint
