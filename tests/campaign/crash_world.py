"""The world of a case of :mod:`.crash_points`: repositories with real backups, in directories or in a bucket."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyrage
from psycopg import sql

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

CANARY = "cañary:p\\a'ss \"w#rd%41&x=y"
"""The password of the server's superuser."""

MIB = 1024**2
STORES = ("local", "s3")
HEAD, TAIL = b"--\n-- PostgreSQL database dump\n--\n\n", b"\n--\n-- PostgreSQL database dump complete\n--\n\n"


def script(rows: str) -> bytes:
    """Return a plain dump with these rows, a letter each."""
    lines = "".join(f"{row}\n" for row in rows)
    return HEAD + f"CREATE TABLE public.t (a text);\nCOPY public.t (a) FROM stdin;\n{lines}\\.\n".encode() + TAIL


@dataclass
class Servers:
    """What all cases share.

    :ivar postgres, s3: None where no case needs one.
    :ivar files: by the name of a repository, its files, from which that of each case is made.
    """

    directory: Path
    postgres: PostgresServer | None = None
    s3: S3Server | None = None
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    buckets: dict[bool, str] = field(default_factory=dict)
    _clients: dict[int, Any] = field(default_factory=dict)

    @property
    def app(self) -> ConnectionParams:
        assert self.postgres is not None
        return self.postgres.params.with_database("app")

    def client(self) -> Any:
        """Return the S3 client of this process. After a fork there is a new one, as two must not share connections."""
        assert self.s3 is not None
        if os.getpid() not in self._clients:
            self._clients[os.getpid()] = self.s3.client()
        return self._clients[os.getpid()]

    def bucket(self, *, versioned: bool) -> str:
        assert self.s3 is not None
        if versioned not in self.buckets:
            self.buckets[versioned] = name = self.s3.bucket()
            if versioned:
                self.s3.client().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return self.buckets[versioned]


@contextlib.contextmanager
def start(*, postgres: bool, s3: bool, directory: Path) -> Iterator[Servers]:
    """Start what the cases share, and make the backups with which each of them begins."""
    with contextlib.ExitStack() as stack:
        servers = Servers(directory)
        if postgres:
            server = PostgresServer(postgres_bin_dir(18), password=CANARY, tcp=True)
            servers.postgres = stack.enter_context(server)
            _make_database(servers)
        if s3:
            servers.s3 = stack.enter_context(S3Server())
        for name in ("here", "there"):
            repository = open_repository(f"file://{directory}/template/{name}")
            repository.init()
            if name == "here":
                _make_backups(servers, repository)
            root = directory / "template" / name
            servers.files[name] = {
                str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
            }
        yield servers


def _make_database(servers: Servers) -> None:
    assert servers.postgres is not None
    with servers.postgres.params.connect() as session:
        session.execute("create database app template template0")
        session.execute("create role reader")
    with servers.app.connect() as session:
        session.execute("create table film (film_id int primary key, title text)")
        session.execute("insert into film select n, 'film ' || n from generate_series(1, 200) n")
        session.execute("create table actor (actor_id serial primary key, name text)")
        session.execute("insert into actor (name) select 'actor ' || n from generate_series(1, 100) n")
        session.execute("create view titles as select title from film")
        session.execute("grant select on film to reader")


def _make_backups(servers: Servers, repository: Repository) -> None:
    """Two of one series, the older one in format directory, and both verified."""
    if servers.postgres is None:
        old = servers.directory / "template" / "old"
        old.mkdir()
        for name, rows in (("app_2026-01-01", "abc"), ("app_2026-01-02", "abcd")):
            (old / f"{name}.sql").write_bytes(script(rows))
        adopt(repository=repository, sources=[old], server="prod", database="app")
    else:
        for format in ("directory", "custom"):
            time.sleep(1 - time.time() % 1)  # two of one second are none after the other
            dump_database(
                connection=servers.app, server="prod", repository=repository, options=DumpOptions(format=format)
            )
    for backup in read_catalogue(repository).backups:
        verify(reference=_reference(repository, backup), repository=repository)


def _reference(repository: Repository, backup: Backup) -> dict[str, object]:
    return {"series": backup.series.path, "id": backup.id, "repository_uuid": repository.uuid}


class World:
    """What one case has for itself.

    :ivar store: one of :data:`STORES`: where its repositories are.
    :ivar ids: of the backups in ``here`` before the first run, oldest first.
    :ivar database: a name that no other case has, for the target of a restore.
    """

    def __init__(self, servers: Servers, store: str, number: int, *, versioned: bool = False) -> None:
        self.servers = servers
        self.store = store
        self.directory = servers.directory / f"case-{number}"
        self.tmp = self.directory / "t"
        self.old = self.directory / "old"
        self.database = f"case_{number}"
        self.ids: list[str] = []
        self._key = str(pyrage.x25519.Identity.generate())
        self._bucket = servers.bucket(versioned=versioned) if store == "s3" else ""
        for path in (self.directory, self.tmp, self.old):
            path.mkdir(parents=True)
        for name, files in servers.files.items():
            self._write(name, files)

    @property
    def target(self) -> ConnectionParams:
        return self.servers.app.with_database(self.database)

    @property
    def recipient(self) -> str:
        return str(pyrage.x25519.Identity.from_str(self._key).to_public())

    @property
    def secrets(self) -> list[str]:
        return [CANARY, self._key]

    def repository(self, name: str) -> Repository:
        """Open a repository: ``here`` with two backups, ``there`` without any, or one of another name."""
        if self.store == "local":
            return open_repository(f"file://{self.directory}/{name}")
        assert self.servers.s3 is not None
        # Small parts, so that a small dump has several.
        options = S3Options(client_factory=self.servers.client, min_part_size=5 * MIB)
        return open_repository(f"s3://{self._bucket}/{self.directory.name}/{name}", s3=options)

    def context(self, *, seed: str | None = None, encrypt: bool = False) -> RunContext:
        """Return the context of a run. :param seed: of a task whose retries have the same one."""
        settings = Settings(recipients=(self.recipient,) if encrypt else (), temp_dir=str(self.tmp))
        return RunContext(settings=settings, seed=seed, identities=Identities.parse(self._key, "the test's key"))

    def backups(self, repository: Repository) -> list[Backup]:
        """Return its backups, oldest first."""
        return sorted(read_catalogue(repository).backups, key=lambda backup: (backup.series.path, backup.id))

    def reference(self, repository: Repository, number: int = -1) -> dict[str, object]:
        """Return the reference of a backup, by default of the newest."""
        return _reference(repository, self.backups(repository)[number])

    def leave_leftovers(self) -> None:
        """Leave in ``here`` what killed runs leave: an attempt without a manifest, a temporary file."""
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from honest import write_backup

        repository = self.repository("here")
        at = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=3)
        write_backup(repository, Series("prod", "app"), at, committed=False, attempt="0ddba115")
        if self.store == "local":
            (self.directory / "here" / "prod" / "empty").mkdir(mode=0o700)

    def execute(self, *statements: str, database: str | None = None) -> None:
        params = self.servers.app.with_database(database) if database else self.servers.app
        with params.connect() as session:
            for statement in statements:
                session.execute(sql.SQL(statement))  # type: ignore[arg-type]

    def databases(self) -> list[str]:
        """Return those that belong to this case."""
        with self.servers.app.connect() as session:
            names = [name for (name,) in session.execute("select datname from pg_database").fetchall()]
        return sorted(name for name in names if name == self.database or name.startswith(f"{self.database}_"))

    def content(self, database: str) -> str:
        """Return what a database of this case holds: ``app``, ``old``, ``empty`` or something else."""
        with self.servers.app.with_database(database).connect() as session:
            query = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
            names = sorted(name for (name,) in session.execute(query).fetchall())
            if names == ["actor", "film", "titles"]:
                counts = session.execute("select (select count(*) from film), (select count(*) from actor)").fetchone()
                return "app" if counts == (200, 100) else f"app with {counts} rows"
        return {"old": "old", "": "empty"}.get(" ".join(names), " ".join(names))

    def close(self) -> None:
        """Remove what this case has made."""
        if self.servers.postgres is not None:
            for name in self.databases():
                self.execute(f'drop database if exists "{name}" with (force)')
        shutil.rmtree(self.directory, ignore_errors=True)

    def _write(self, name: str, files: dict[str, bytes]) -> None:
        if self.store == "local":
            for key, data in files.items():
                path = self.directory / name / key
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.write_bytes(data)
                path.chmod(0o600)
            return
        assert self.servers.s3 is not None
        client = self.servers.client()
        for key, data in files.items():
            client.put_object(Bucket=self._bucket, Key=f"{self.directory.name}/{name}/{key}", Body=data)


def age(directory: Path) -> None:
    """Make everything in a directory old, as if a grace period had passed."""
    for path in [directory, *directory.rglob("*")]:
        os.utime(path, (0, 0))
