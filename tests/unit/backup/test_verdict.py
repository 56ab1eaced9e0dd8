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
        ('invalid input syntax for type integer: "x"', VerificationFailed, None),
    ],
)
def test_money_in_the_format_of_another_server(
    message: str, verdict: type[Exception], hint: str | None, state: str | None
) -> None:
    line = f'pg_restore: error: COPY failed for table "t": ERROR:  {message}'
    found = judge(
        ToolError(line, tool="pg_restore", exit_code=1, stderr=[line]), "the throwaway server", lambda _: state
    )
    assert type(found) is verdict
    assert (hint is None and found.hint is None) or (hint is not None and hint in str(found.hint))
