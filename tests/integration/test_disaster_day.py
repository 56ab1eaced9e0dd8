"""docs/guides/disaster-day.md: its blocks, run as they stand there, by a shell on a machine that has only the kit.

The server that was dumped is gone, and so is Airflow. The test gives values to the variables that the page tells the
reader to set, and to no others.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import psycopg
import pytest
from restoring import databases_of, fresh_server, value
from sets import back_up_set, member

from airflow_pgbackup.backup.dump import dump_cluster
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.options import DumpAllOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.repository.set_files import write_set

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "disaster-day.md"
OLD, NEW = "password of the old server", "password of the new server"
APP, REPORTS = "swordfish: it's \\ the app's", "trout"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

ROLES = (
    "CREATE ROLE app_owner LOGIN PASSWORD 'swordfish: it''s \\ the app''s'",
    "CREATE ROLE readers",
    "CREATE ROLE reports LOGIN PASSWORD 'trout' IN ROLE readers",
    "CREATE DATABASE app OWNER app_owner",
    "ALTER DATABASE app SET work_mem = '32MB'",
    "CREATE DATABASE shop",
)
TABLES = {
    "app": (
        "CREATE EXTENSION vector",
        "SET ROLE app_owner",
        "CREATE TABLE film (film_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, place vector(2))",
        "INSERT INTO film (title) SELECT 'film ' || n FROM generate_series(1, 1000) n",
        "GRANT SELECT ON film TO readers",
    ),
    # A server called "full disk" fails as PostgreSQL does when its disk is full (mdextend in storage/smgr/md.c).
    "shop": (
        """CREATE FUNCTION fits(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        IF current_setting('cluster_name') = 'full disk' THEN
            RAISE EXCEPTION 'could not extend file "base/16384/2608": No space left on device'
                USING ERRCODE = 'disk_full', HINT = 'Check free disk space.';
        END IF; RETURN true; END $$""",
        "CREATE TABLE item (item_id int CHECK (fits(item_id)))",
        "INSERT INTO item SELECT generate_series(1, 10)",
    ),
}


def sections() -> dict[str, list[tuple[str, str]]]:
    """The page's headings, each with its blocks: language and text."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        found[heading] = re.findall(r"^```(sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return found


SECTIONS = sections()
KIT_SECTION = "Before: the rescue kit"
TROUBLE = re.findall(r"^\| `(.+?)` \|", PAGE.read_text().split("## When it goes wrong")[1], re.MULTILINE)


def variables(text: str) -> list[str]:
    """The variables that a block tells the reader to set."""
    return [one or other for one, other in re.findall(r"\b([A-Z][A-Z0-9_]*)=|read -rs ([A-Z_]+)", text)]


class Shell:
    """A shell at which blocks are typed one after the other; the first command that fails ends it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._directory = Path(environment["HOME"])
        self._process = subprocess.Popen(
            ["sh", "-e"], cwd=self._directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._limit = threading.Timer(600, self._process.kill)
        self._limit.start()

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.communicate()

    def set(self, name: str, text: str) -> None:
        quoted = text.replace("'", "'\\''")
        self.run(f"export {name}='{quoted}'\n")

    def run(self, script: str) -> str:
        """Run a block, and return what it printed."""
        block = self._directory / "block.sh"
        block.write_text(script)
        self._write(f". {block} </dev/null\necho '=== done'\n")
        lines: list[str] = []
        for line in self._output:
            if line == "=== done\n":
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"this block failed:\n{script}\n{''.join(lines)}")

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    @property
    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout


@dataclass(frozen=True)
class Repositories:
    """What the disaster has left: the same backups in a directory and in a bucket."""

    directory: Path
    s3: S3Server
    in_s3: str

    @property
    def credentials(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
            "AWS_ENDPOINT_URL_S3": self.s3.endpoint_url,
        }

    def copied_from_s3(self, series: str, directory: Path) -> Path:
        """What ``aws s3 cp --recursive`` makes of the only backup of a series; that program is not part of the test."""
        client = self.s3.client()
        bucket, _, prefix = self.in_s3.removeprefix("s3://").partition("/")
        for each in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{series}/")["Contents"]:
            path = directory / each["Key"].split("/", 4)[4]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, each["Key"], str(path))
        return directory


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Repositories:
    directory = tmp_path_factory.mktemp("backups")
    repository = open_repository(f"file://{directory}")
    repository.init()
    in_s3 = f"s3://{s3.bucket()}/pg"
    second = open_repository(in_s3, s3=S3Options(client_factory=s3.client))
    second.init()
    with fresh_server(18, superuser="postgres", password=OLD, tcp=True) as server:
        for database, statements in {"postgres": ROLES, **TABLES}.items():
            with server.params.with_database(database).connect() as session:
                for statement in statements:
                    session.execute(statement)
        tied = back_up_set(server, repository, list(TABLES))
        dump_cluster(connection=server.params, server="prod", repository=repository, options=DumpAllOptions())
    copies = {}
    for each in read_catalogue(repository).backups:
        evidence = read_evidence(repository, each.series, each.id)
        verified = verify(reference=reference_of(repository, evidence), repository=repository)
        copies[each.series.path] = upload(reference=verified, source=repository, destination=second)
    assert tied.globals is not None
    write_set(
        second,
        replace(
            tied,
            globals=member(second, copies[tied.globals.series]),
            databases=tuple(member(second, copies[each.series]) for each in tied.databases),
        ),
    )
    return Repositories(directory, s3, in_s3)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit, made by the page's last block, in this tree and from the package index of the tests."""
    directory = tmp_path_factory.mktemp("kit")
    ((_, setting), (language, block)) = SECTIONS[KIT_SECTION]
    assert variables(setting) == ["KIT"]
    assert language == "sh"
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # pip's own configuration and cache are in the real one
    environment = {
        **os.environ, "HOME": str(home), "KIT": str(directory), "PATH": f"{Path(sys.executable).parent}:{os.defpath}"
    }  # fmt: skip
    done = subprocess.run(["sh", "-ec", block], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with PostgreSQL's programs and a Python without packages; its home is empty."""
    directory = tmp_path_factory.mktemp("machine")
    for name in ("bin", "home"):
        (directory / name).mkdir()
    python = directory / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/{PYTHON} "$@"\n')
    python.chmod(0o755)
    return {
        "HOME": str(directory / "home"),
        "PATH": f"{python.parent}:{postgres_bin_dir(18)}:{os.defpath}",
        "PIP_CONFIG_FILE": os.devnull,  # no package index
    }


def connected(server: PostgresServer) -> dict[str, str]:
    return {"PGHOST": server.params.host, "PGPORT": server.params.port}


def logged_in(server: PostgresServer, user: str, password: str, query: str) -> object:
    with psycopg.connect(
        host=server.params.host, port=server.params.port, user=user, password=password, dbname="app"
    ) as session:
        row = session.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def assert_usable(server: PostgresServer) -> None:
    """What applications rely on: passwords, owners, grants, settings, sequences, planner statistics."""
    assert logged_in(server, "app_owner", APP, "SELECT count(*) FROM film") == 1000
    assert logged_in(server, "reports", REPORTS, "SELECT count(*) FROM film") == 1000
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        logged_in(server, "reports", APP, "SELECT 1")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        logged_in(server, "reports", REPORTS, "DELETE FROM film RETURNING 1")
    assert logged_in(server, "app_owner", APP, "INSERT INTO film (title) VALUES ('new') RETURNING film_id") == 1001
    assert logged_in(server, "app_owner", APP, "DELETE FROM film WHERE film_id = 1001 RETURNING 1") == 1
    assert logged_in(server, "reports", REPORTS, "SHOW work_mem") == "32MB"
    app = server.params.with_database("app")
    assert value(app, "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'app'") == "app_owner"
    assert value(app, "SELECT reltuples FROM pg_class WHERE relname = 'film'") == 1000


class Day:
    """The page, from top to bottom: what is typed, what is looked at after each section, what happens in between."""

    def __init__(self, shell: Shell, values: dict[str, list[str]], servers: Sequence[PostgresServer]) -> None:
        self._shell = shell
        self._values = values
        self._new, self._of_set, self._of_cluster = servers

    def run(self, heading: str) -> str:
        """Type the blocks of a section; return what they printed."""
        printed = ""
        for language, text in SECTIONS[heading]:
            if language == "sh":
                printed += self._shell.run(text)
                continue
            for name in variables(text):
                if not name.startswith("AWS_") or name in self._values:
                    self._shell.set(name, self._values[name].pop(0))
        return printed

    def through(self) -> None:
        looks = {
            "1": lambda _: None, "2": self.installed, "3": self.chosen, "4": self.restored, "5": self.checked,
            "6": self.one_table, "7": self.everything, "8": lambda _: None, "9": self.by_hand,
        }  # fmt: skip
        numbered = {heading[0]: heading for heading in SECTIONS if heading[0].isdigit()}
        assert list(numbered) == list(looks)
        for number, heading in numbered.items():
            if number == "6":
                self._lose_rows()
            looks[number](self.run(heading))
        assert not any(self._values.values()), "the page asks for each value that this test gives"

    def installed(self, printed: str) -> None:
        assert re.search(r"^pgbackup \d+\.\d+\.\d+$", printed, re.MULTILINE)
        assert "pg_restore (PostgreSQL) 18" in printed
        assert "airflow " not in self._shell.run("pip list --format=freeze | tr = ' '")
        assert databases_of(self._new) == set()

    def chosen(self, printed: str) -> None:
        for series in ("prod/app", "prod/shop", "prod/@cluster", "prod/@globals"):
            assert re.search(rf"^{series} .*verified: archive", printed, re.MULTILINE)
        assert "prod/app 2" in printed
        assert printed.rstrip().endswith("is verified at level archive")

    def restored(self, printed: str) -> None:
        assert "roles created: app_owner, readers, reports" in printed
        assert "existing roles were not changed: postgres" in printed
        assert "\nnext: restore the databases\n" in printed
        assert databases_of(self._new) == {"app"}

    def checked(self, printed: str) -> None:
        assert re.search(r"public\.film +\| +1000 \| 1000 \| t\n", printed)
        assert re.search(r"count *\n-+\n +1000\n", printed), "the application's role has logged in and counted"
        assert re.search(r"film +\| table +\| app_owner", printed)
        assert "readers=r/app_owner" in printed
        assert re.search(r"vector +\| 0\.", printed)
        assert re.search(r"public +\| film_film_id_seq +\| +1000", printed)
        assert_usable(self._new)

    def _lose_rows(self) -> None:
        with self._new.params.with_database("app").connect() as session:
            session.execute("DELETE FROM film WHERE film_id > 900")
        counting, _ = (text for _, text in SECTIONS["5. Check it"])
        assert re.search(r"public\.film +\| +1000 \| +900 \| f\n", self._shell.run(counting)), "lost rows are seen"

    def one_table(self, printed: str) -> None:
        app = self._new.params.with_database("app")
        assert value(app, "SELECT count(*) FROM film") == 900
        assert value(app, "SELECT count(*) FROM recovered.film") == 1000
        (statement,) = re.findall(r"^INSERT INTO .*;$", printed, re.MULTILINE)
        (drop,) = re.findall(r"DROP SCHEMA .*;$", printed, re.MULTILINE)
        with app.connect() as session:
            session.execute(statement.encode())
            session.execute(drop.encode())
        assert value(app, "SELECT count(*) FROM film") == 1000

    def everything(self, printed: str) -> None:
        assert "new database app: 1 table with 1,000 rows" in printed
        assert "\ndatabases restored: app, shop\n" in printed
        for server in (self._of_set, self._of_cluster):
            assert databases_of(server) == {"app", "shop"}
            assert_usable(server)

    def by_hand(self, printed: str) -> None:
        (digest,) = re.findall(r"^([0-9a-f]{64})  \./app_\S+\.dump$", printed, re.MULTILINE)
        assert f'"sha256": "{digest}"' in printed
        restored = self._of_cluster.params.with_database("app_restored")
        assert value(restored, "SELECT count(*) FROM film") == 1000
        assert value(restored, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'film'") == "app_owner"


@pytest.mark.parametrize("place", ["directory", "s3"])
def test_the_page(place: str, left: Repositories, kit: Path, machine: dict[str, str], tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(fresh_server(18, superuser="postgres", password=NEW, tcp=True)) for _ in range(3)
        ]
        values = {
            "KIT": [str(kit)],
            "PGBACKUP_REPOSITORY": [left.in_s3 if place == "s3" else f"file://{left.directory}"],
            "PGHOST": [server.params.host for server in servers],
            "PGPORT": [server.params.port for server in servers],
            "PGUSER": ["postgres"],
            "PGPASSWORD": [NEW],
            "SERVER": ["prod"],
            "DATABASE": ["app"],
            "TABLE": ["film"],
            "ROLE": ["app_owner"],
            "ROLE_PASSWORD": [APP],
        }
        if place == "s3":
            values |= {name: [text] for name, text in left.credentials.items()}
            values["BACKUP"] = [str(left.copied_from_s3("prod/app", tmp_path / "copy"))]
        else:
            values["BACKUP"] = [str(path) for path in (left.directory / "prod" / "app").iterdir()]
        shell = stack.enter_context(Shell(machine))
        Day(shell, values, servers).through()


@dataclass(frozen=True)
class Trouble:
    """A restore that fails.

    :ivar server: of :func:`servers`.
    :ivar environment: what differs from a good one.
    :ivar hint: words of it.
    """

    arguments: tuple[str, ...] = ("restore", "prod/app", "--mode", "create")
    server: str = "empty"
    environment: Callable[[Repositories, Path], dict[str, str]] = lambda _left, _directory: {}
    hint: str = ""


def altered(left: Repositories, directory: Path) -> dict[str, str]:
    """A copy of the repository in which one byte of the artifact differs."""
    subprocess.run(["cp", "-a", f"{left.directory}/.", directory], check=True)
    (artifact,) = (directory / "prod" / "app").glob("*/*/*.dump")
    data = bytearray(artifact.read_bytes())
    data[-1] ^= 1
    artifact.write_bytes(data)
    return {"PGBACKUP_REPOSITORY": f"file://{directory}"}


TROUBLES = {
    'password authentication failed for user "postgres"': Trouble(environment=lambda *_: {"PGPASSWORD": "wrong"}),
    "Connection refused": Trouble(environment=lambda *_: {"PGPORT": "1"}),
    "the store refuses the signature: the secret key is wrong": Trouble(
        environment=lambda left, _: {
            **left.credentials,
            "AWS_SECRET_ACCESS_KEY": "wrong",
            "PGBACKUP_REPOSITORY": left.in_s3,
        }
    ),
    "no repository at …": Trouble(environment=lambda _, directory: {"PGBACKUP_REPOSITORY": f"file://{directory}"}),
    "checksum mismatch: expected …, found …": Trouble(environment=altered),
    "the backup is of PostgreSQL 18, but the server of … is version 16": Trouble(
        server="old", hint="--allow-older-server tries it"
    ),
    "lacks what the backup needs: roles app_owner, readers": Trouble(hint="--no-owner and --no-privileges"),
    "lacks what the backup needs: extension vector": Trouble(
        ("restore", "prod/app", "--mode", "create", "--no-owner", "--no-privileges"), server="bare"
    ),
    'database "app" already exists': Trouble(server="taken"),
    "already has databases app, shop": Trouble(("restore", "prod/@cluster"), server="taken"),
    "No space left on device": Trouble(("restore", "prod/shop", "--mode", "create"), server="bare"),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer]]:
    with ExitStack() as stack:
        # Without its control files no extension can be created, and see TABLES for its name.
        bare = {"extension_control_path": "/nonexistent", "cluster_name": "full disk"}
        made = {
            name: stack.enter_context(
                fresh_server(major, superuser="postgres", password=NEW, tcp=True, settings=settings)
            )
            for name, major, settings in (("empty", 18, {}), ("taken", 18, {}), ("bare", 18, bare), ("old", 16, {}))
        }
        with made["taken"].params.connect() as session:
            session.execute("CREATE DATABASE app")
            session.execute("CREATE DATABASE shop")
        yield made


def test_each_message_of_the_page_is_provoked() -> None:
    assert set(TROUBLE) == set(TROUBLES)


@pytest.mark.parametrize("message", TROUBLES)
def test_when_it_goes_wrong(
    message: str, left: Repositories, servers: dict[str, PostgresServer], tmp_path: Path
) -> None:
    trouble = TROUBLES[message]
    server = servers[trouble.server]
    before = databases_of(server)
    environment = {
        "PATH": f"{postgres_bin_dir(18)}:{os.defpath}", "HOME": str(tmp_path), "PGUSER": "postgres", "PGPASSWORD": NEW,
        "PGBACKUP_REPOSITORY": f"file://{left.directory}", **connected(server),
        **trouble.environment(left, tmp_path),
    }  # fmt: skip
    program = "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *trouble.arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode in (1, 2, 3), done.stderr
    assert re.search(".*".join(map(re.escape, message.split("…"))), done.stderr), done.stderr
    _, _, hint = done.stderr.partition("\nhint: ")
    assert hint
    assert trouble.hint in hint
    assert databases_of(server) == before
