"""The shell blocks of the documentation, run as a reader runs them: page by page, from top to bottom, in one shell.

Blocks marked ``sh`` are run. What cannot be run here, such as an installation or a platform's own command, is marked
``console``, ``bash`` or ``dockerfile``. The pages that are run by tests of their own are named in ``ELSEWHERE``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from restoring import fresh_server

from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
ELSEWHERE = {"disaster-day", "rescue", "restoring-without-us"}
"""``test_disaster_day``, ``test_rescue`` and ``test_restoring_without_us`` run these."""

FILMS = (
    "CREATE TABLE film (film_id int PRIMARY KEY, title text)",
    "INSERT INTO film SELECT n, 'film ' || n FROM generate_series(1, 1000) n",
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


WITH_COMMANDS = [page for page in PAGES if blocks(page, "sh") and page.stem not in ELSEWHERE]


class Reader:
    """Somebody at a shell, with a PostgreSQL server that has a database ``app``, and directories of their own."""

    def __init__(self, server: PostgresServer, directory: Path) -> None:
        self.app = server.params.with_database("app")
        self.backups = directory / "backups"
        self.old_dumps = directory / "old-dumps"
        self._server = server
        self._home = directory / "home"
        programs = directory / "bin"
        for made in (self.backups, self.old_dumps, self._home, programs):
            made.mkdir()
        pgbackup = programs / "pgbackup"
        pgbackup.write_text(
            f"#!{sys.executable}\nimport sys\nfrom airflow_pgbackup.cli import main\nsys.exit(main())\n"
        )
        pgbackup.chmod(0o755)
        self._path = f"{programs}:{server.bin_dir}:{os.environ.get('PATH', os.defpath)}"

    def run(self, script: str) -> str:
        """Run a script in which the paths and the URI of the documentation stand for this reader's own."""
        script = script.replace("/var/backups/pg", str(self.backups)).replace("/srv/old-dumps", str(self.old_dumps))
        with client_environment(self.app) as environment:
            environment |= {"PATH": self._path, "COLUMNS": "200"}
            done = subprocess.run(
                ["sh", "-ec", script], cwd=self._home, env=environment, capture_output=True, text=True, timeout=240
            )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def count(self, database: str, table: str = "film") -> int:
        with self.app.with_database(database).connect() as session:
            row = session.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with fresh_server(18) as server:
        with server.params.connect() as session:
            session.execute("CREATE DATABASE app")
        with server.params.with_database("app").connect() as session:
            for statement in FILMS:
                session.execute(statement)
        yield Reader(server, tmp_path)


def with_backups(reader: Reader) -> None:
    """The repository of somebody who follows the guides: the database and the globals, verified."""
    repository = open_repository(f"file://{reader.backups}")
    repository.init()
    made = [
        dump_database(connection=reader.app, server="prod", repository=repository, options=DumpOptions()),
        dump_cluster(
            connection=reader.app, server="prod", repository=repository, options=DumpAllOptions(globals_only=True)
        ),
    ]
    for reference in made:
        verify(reference=reference, repository=repository)


def with_staging(reader: Reader) -> None:
    with_backups(reader)
    with reader.app.connect() as session:
        session.execute("CREATE DATABASE staging")


def with_two_nights(reader: Reader) -> None:
    with_backups(reader)
    with reader.app.connect() as session:
        session.execute("DELETE FROM film WHERE film_id > 900")
    repository = open_repository(f"file://{reader.backups}")
    reference = dump_database(connection=reader.app, server="prod", repository=repository, options=DumpOptions())
    verify(reference=reference, repository=repository)


def with_old_dumps(reader: Reader) -> None:
    open_repository(f"file://{reader.backups}").init()
    reader.run("pg_dump -Fc -f /srv/old-dumps/app_monday.dump; date > /srv/old-dumps/notes.txt")


def empty(reader: Reader) -> None:
    """The reader begins with nothing but the database."""


def restored_as(database: str) -> Callable[[Reader, str], None]:
    def after(reader: Reader, _output: str) -> None:
        assert reader.count(database) == 1000

    return after


def replaced(reader: Reader, output: str) -> None:
    assert reader.count("app") == reader.count("app_copy") == 1000
    assert "app_replaced_" in output
    assert "COPY public.film" in reader.run("cat film.sql")


def adopted(reader: Reader, output: str) -> None:
    assert "notes.txt" in output
    assert "verified: archive" in reader.run(f"pgbackup list file://{reader.backups}")


def rehearsed(reader: Reader, _output: str) -> None:
    assert "verified: restore" in reader.run(f"pgbackup list file://{reader.backups}")


def reported(reader: Reader, output: str) -> None:
    assert "2 of 2 databases can be restored to a point less than 26 h old." in output
    reader.run("test -s report.html && test -s report.png")


def compared(_reader: Reader, output: str) -> None:
    assert "tables: 0 dropped, 0 added, 1 changed, 0 unchanged" in output
    assert "100 rows (" in output


def sound(_reader: Reader, output: str) -> None:
    assert output.count("no problems found") == 4


def measured(reader: Reader, output: str) -> None:
    assert re.fullmatch(r"wrote \d+ samples to pgbackup.prom\n", output)
    assert 'series="prod/app"' in reader.run("cat pgbackup.prom")


def proposed(reader: Reader, output: str) -> None:
    assert "no problems found; 0 columns masked" in output
    assert "public.film.title: keep" in reader.run("cat masking.yaml")


CASES: dict[str, tuple[Callable[[Reader], None], Callable[[Reader, str], None]]] = {
    "first-backup": (empty, restored_as("app_copy")),
    "restore": (with_backups, replaced),
    "drill": (with_backups, rehearsed),
    "moving-in": (with_old_dumps, adopted),
    "diff": (with_two_nights, compared),
    "fsck": (with_backups, sound),
    "masking": (empty, proposed),
    "monitoring": (with_backups, measured),
    "staging": (with_staging, restored_as("staging")),
    "weekly-report": (with_backups, reported),
}


def test_every_page_with_commands_is_run() -> None:
    assert {page.stem for page in WITH_COMMANDS} == set(CASES)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_commands(page: Path, reader: Reader) -> None:
    before, after = CASES[page.stem]
    before(reader)
    after(reader, reader.run("\n".join(blocks(page, "sh"))))


def test_the_role_for_backups_can_dump(reader: Reader, tmp_path: Path) -> None:
    (grants,) = blocks(ROOT / "docs" / "start" / "connection.md", "sql")
    with reader.app.connect() as session:
        for statement in filter(None, map(str.strip, grants.split(";"))):
            session.execute(statement.encode())
    repository = open_repository(f"file://{reader.backups}")
    repository.init()
    as_backup = ConnectionParams.resolve(
        {"host": reader.app.host, "port": reader.app.port, "user": "backup", "dbname": "app"},
        password="a long random one",
    )
    reference = dump_database(connection=as_backup, server="prod", repository=repository, options=DumpOptions())
    assert verify(reference=reference, repository=repository)["verified"] == "archive"
