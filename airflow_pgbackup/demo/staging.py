"""``python -m airflow_pgbackup.demo.staging``: refresh a staging database from a verified backup, masked."""

from __future__ import annotations

import secrets
import sys
from importlib.resources import files

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.demo.database import create_database, load_sample
from airflow_pgbackup.demo.flow import POSTGRES, exit_status_of, terminated_is_interrupted
from airflow_pgbackup.demo.steps import Steps
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.terminal import Terminal, styled

_STAGING = (
    "CREATE ROLE tester LOGIN",
    "CREATE TABLE customer (customer_id int, email text)",
    "GRANT SELECT ON customer TO tester",
    "COMMENT ON DATABASE staging IS 'for the testers'",
)
_CUSTOMERS = (
    "SELECT customer_id, first_name || ' ' || last_name, email, phone FROM customer JOIN address USING (address_id) "
    "ORDER BY customer_id LIMIT 3"
)
_GRANTS = "SELECT grantee || ' may ' || privilege_type || ' ' || table_name FROM information_schema.role_table_grants "
_OF_TESTER = "WHERE grantee = 'tester' ORDER BY 1"
_CHECK = {"name": "rentals", "sql": "SELECT count(*) > 0, count(*) FROM rental"}


def demonstrate(terminal: Terminal) -> None:
    """Make a backup of the sample, verify it, refresh a staging database from it, and show what became of rows.

    :raises PgBackupError: a step failed.
    """
    steps = Steps(terminal)
    bin_dir = postgres_bin_dir(POSTGRES)
    with (
        terminated_is_interrupted(),
        PrivateDirectory() as directory,
        PostgresServer(bin_dir, superuser="postgres", password=secrets.token_urlsafe(12)) as server,
    ):
        with steps("creating databases dvdrental and staging"):
            production = create_database(server.params, "dvdrental")
            with production.connect() as connection:
                load_sample(connection)
            staging = create_database(server.params, "staging")
            with staging.connect() as connection:
                for statement in _STAGING:
                    connection.execute(statement)
        repository = open_repository(f"file://{directory / 'backups'}")
        repository.init()
        with steps("dumping dvdrental and verifying the backup"):
            made = dump_database(connection=production, server="prod", repository=repository, options=DumpOptions())
            backup = verify(reference=made, repository=repository)
        with steps("refreshing staging"):
            log: list[str] = []
            done = refresh(
                reference=backup,
                repository=repository,
                target=staging,
                rules=load_rules(files(__package__).joinpath("masking.yaml").read_bytes()),
                masking_key=MaskingKey(secrets.token_bytes(32)),
                checks=[_CHECK],
                context=RunContext(log=log.append),
            )
        for title, lines in (
            ("customers in dvdrental", _rows(production, _CUSTOMERS)),
            ("the same in staging", _rows(staging, _CUSTOMERS)),
            ("leak check", [line for line in log if line.startswith("searched ")]),
            ("SQL check", [str(line) for line in _lines(done["checks"])]),
            ("grants of staging", _rows(staging, _GRANTS + _OF_TESTER)),
            ("earlier copies", [str(name) for name in _lines(done["kept"])]),
        ):
            terminal.say()
            terminal.say(styled(title, "bold"))
            for line in lines:
                terminal.say(f"  {line}")


def _rows(params: ConnectionParams, query: str) -> list[str]:
    with params.connect() as connection:
        return ["  ".join(map(str, row)) for row in connection.execute(query.encode())]


def _lines(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


if __name__ == "__main__":
    sys.exit(exit_status_of(lambda: demonstrate(Terminal())))
