"""The time zone that a dumped database sets, by the statements of the dump."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_pgbackup.backup.databases.source_time_zone import read_time_zone
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties, DatabaseStatement


@pytest.mark.parametrize(
    ("setting", "zone"),
    [
        ("""ALTER DATABASE app SET "TimeZone" TO 'Europe/Berlin';""", "Europe/Berlin"),
        ("ALTER DATABASE app SET timezone TO '<+03>-3';", "<+03>-3"),
        ("ALTER DATABASE app SET timezone TO '<A -c log_statement=all>-3';", None),  # which a server accepts
        ("ALTER DATABASE app SET timezone TO 'localtime';", None),
        ("ALTER ROLE joe IN DATABASE app SET timezone TO 'Asia/Tokyo';", None),
        ("ALTER DATABASE app SET log_timezone TO 'Asia/Tokyo';", None),
    ],
)
def test_the_zone_of_a_dumped_database(setting: str, zone: str | None) -> None:
    statement = DatabaseStatement.parse(setting)
    assert statement is not None
    assert DatabaseProperties.of_statements([statement]).time_zone == zone


def test_a_name_that_means_another_zone_on_each_machine_is_not_recorded() -> None:
    class Server:
        def execute(self, _: str) -> Server:
            return self

        def fetchone(self) -> tuple[str]:
            return ("localtime",)

    server: Any = Server()
    assert read_time_zone(server) is None
