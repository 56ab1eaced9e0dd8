"""Text that is not valid in every encoding: in SQL_ASCII databases, and in names of roles and databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_pgbackup.backup.check.restorability_problems import report_problem
from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.findings import first_named
from airflow_pgbackup.postgres.sql.anybytes import is_utf8

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_ENCODING: LiteralString = "select pg_catalog.quote_ident(pg_catalog.current_database())"
_ENCODING += " where pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'"
_SHARED_NAMES: LiteralString = """
select 'role ' || pg_catalog.quote_ident(rolname) from pg_catalog.pg_roles
union all select 'database ' || pg_catalog.quote_ident(datname) from pg_catalog.pg_database
union all select 'tablespace ' || pg_catalog.quote_ident(spcname) from pg_catalog.pg_tablespace
"""


def check_shared_names(db: InspectedDatabase) -> None:
    """Check for roles, databases and tablespaces whose names are not UTF-8."""
    names = [name for (name,) in db.rows(_SHARED_NAMES) if not is_utf8(name)]
    report_problem(
        db.findings, "encoding", names, message=f"the server has names that are not UTF-8: {first_named(names)}"
    )


def check_encoding(db: InspectedDatabase) -> None:
    """Check for a database without an encoding."""
    names = [name for (name,) in db.optional_rows(_ENCODING)]
    report_problem(db, "encoding", names, message="the encoding is SQL_ASCII, so text may contain any bytes")
