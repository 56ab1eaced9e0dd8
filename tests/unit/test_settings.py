"""Settings from the environment."""

from __future__ import annotations

import pytest

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.settings import Settings, load


def test_variables_override_defaults() -> None:
    environ = {"PGBACKUP_COMPRESS_BY": "pg_dump", "PGBACKUP_CLIENT_DIRS": "/a:/b", "PGBACKUP_DUMP_DEADLINE": "60"}
    assert load(environ=environ) == Settings(compress_by="pg_dump", client_dirs=("/a", "/b"), dump_deadline=60.0)
    assert load(environ={}) == Settings()
    assert load(environ={"PGBACKUP_MAX_REPLAY_LAG": "0"}) == Settings(), "no limit"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("COMPRESS_BY", "pgdump", "setting compress_by is 'pgdump'"),
        ("DUMP_DEADLINE", "soon", "setting dump_deadline is 'soon'"),
        ("VERIFY_DEADLINE", "0", "setting verify_deadline is '0'"),
        ("MAX_REPLAY_LAG", "-1", "setting max_replay_lag is '-1'"),
        ("LOCK_WAIT_TIMEOUT", "nan", "setting lock_wait_timeout is 'nan'"),
        ("LOCK_WAIT_TIMEOUT", "2147484", "setting lock_wait_timeout is '2147484'"),
        ("DUMP_DEADLINE", "inf", "setting dump_deadline is 'inf'"),
        ("DUMP_DEADLINE", "1e300", "setting dump_deadline is '1e300'"),
        ("VERIFY_BYTES_PER_SECOND", "1e-320", "setting verify_bytes_per_second is '1e-320'"),
    ],
)
def test_invalid_values_are_refused(name: str, value: str, found: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={f"PGBACKUP_{name}": value})
    assert found in caught.value.message
    assert caught.value.hint
