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
        (None, None),
    ],
)
def test_hints(hint: str | None, shown: str | None) -> None:
    names = {"keep_last", "keep_daily", "mode", "keep_sessions", "minimum_level"}
    assert Failure("ToolError", "it failed", hint, 1).with_flags(names).hint == shown


def test_mode_is_a_word_for_verbs_without_that_flag() -> None:
    failure = Failure("ToolError", "it failed", "Use mode create.", 1)
    assert failure.with_flags({"server"}).hint == "Use mode create."
