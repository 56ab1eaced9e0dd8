"""The default tablespace that a CREATE DATABASE names."""

from __future__ import annotations

import pytest

from airflow_pgbackup.postgres.definitions.database import DatabaseStatement
from airflow_pgbackup.postgres.definitions.database_locale import tablespace, without_tablespace


@pytest.mark.parametrize(
    ("rest", "name", "without"),
    [
        (" WITH ENCODING = 'UTF8';\n", None, " WITH ENCODING = 'UTF8';\n"),
        (" WITH LOCALE = 'C' TABLESPACE = fast;", "fast", " WITH LOCALE = 'C';"),
        (' WITH LOCALE = \'C\' TABLESPACE = "its ""own""";\n', 'its "own"', " WITH LOCALE = 'C';"),
        (" WITH ICU_RULES = ' TABLESPACE = x';", None, " WITH ICU_RULES = ' TABLESPACE = x';"),
    ],
)
def test_it_is_read_and_left_out(rest: str, name: str | None, without: str) -> None:
    create = DatabaseStatement("CREATE DATABASE ", "d", rest)
    assert tablespace(create) == name
    assert without_tablespace(create).rest == without
