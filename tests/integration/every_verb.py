"""A world in which each verb of ``pgbackup`` can be run, and the arguments for it."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from psycopg import sql

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.vocabulary import Command
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]

RECIPIENT = "age1jj3walya49nny598a9t8f27wkaszedrzfujfvns6l0t2suyz9e2spp806z"

VERBS = {
    "init": "init {new}",
    "list": "list {here} --all",
    "show": "show {here} {series}",
    "diff": "diff {here} {series}",
    "check": "check {here} --server prod",
    "dump": "dump {here} --server prod",
    "dump-set": "dump-set {here} --server sets",
    "verify": "verify {here} {series}",
    "drill": "drill {here}",
    "upload": "upload {here} {series} --to {there}",
    "get": "get {here} {series} --into {empty}",
    "restore": "restore {here} {series} --mode create -d {copy}",
    "restore-set": "restore-set {here} prod --dry-run",
    "refresh": "refresh {here} {series} -d {staging} --keep 0 --yes",
    "rewrap": "rewrap {here} {series} --recipient " + RECIPIENT,
    "prune": "prune {here} --keep-last 1",
    "freshness": "freshness {here}",
    "metrics": "metrics {here}",
    "report": "report {here}",
    "pin": "pin {here} {series} {id}",
    "unpin": "unpin {here} {series} {id}",
    "undelete": "undelete {here} {series}",
    "fsck": "fsck {here}",
    "adopt": "adopt {here} {old} --server old --yes",
    "mask": "mask init",
    "demo": "demo --dump {missing}",
    "completion": "completion bash",
}
"""Arguments for each verb; the names in braces are those of :attr:`World.names`."""

COMMAND: dict[str, Command] = {command.name: command for command in COMMANDS}


def takes(verb: str, name: str) -> bool:
    """Return whether a verb has this argument: a flag, or the name of a positional."""
    return any(name in argument.flags for argument in COMMAND[verb].arguments)


@dataclass
class World:
    """A database, a repository with two of its backups, one verified, an empty repository, and old dumps.

    :ivar tmp: the TMPDIR of the programs, with a short path, because sockets are made there.
    """

    directory: Path
    tmp: Path
    server: PostgresServer
    database: ConnectionParams
    here: Repository
    there: Repository
    id: str
    names: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "TMPDIR": str(self.tmp),
            "PGHOST": self.database.host,
            "PGPORT": self.database.port,
            "PGUSER": self.database.user,
            "PGDATABASE": self.database.dbname,
            "PGPASSWORD": str(self.database.password),
        }

    def arguments(self, verb: str, **names: object) -> list[str]:
        """Return a command line. :param names: other values for names in braces; ``verb`` may be a command line."""
        new = {"new": f"file://{self.directory}/{secrets.token_hex(4)}", "copy": f"copy_{secrets.token_hex(4)}"}
        values: Mapping[str, object] = {**new, **self.names, **names}
        return [word.format_map(values) for word in VERBS.get(verb, verb).split(" ")]

    def databases(self) -> set[str]:
        with self.server.params.connect() as session:
            return {name for (name,) in session.execute("select datname from pg_database").fetchall()}

    def files(self) -> set[str]:
        """Everything in the directory of this world, with empty directories and temporary files."""
        return {str(path) for top in (self.directory, self.tmp) for path in top.rglob("*")}


@contextmanager
def make_world(server: PostgresServer) -> Iterator[World]:
    name = f"world_{secrets.token_hex(4)}"
    staging = f"staging_of_{name}"
    with server.params.connect() as session:
        for one in (name, staging):
            session.execute(sql.SQL("create database {} template template0").format(sql.Identifier(one)))
    database = server.params.with_database(name)
    with database.connect() as session:
        session.execute("create table film (film_id int primary key, title text)")
        session.execute("insert into film select n, 'film ' || n from generate_series(1, 1000) n")
        session.execute("create table wide as select n, repeat(md5(n::text), 9) t from generate_series(1, 2000) n")
    top = Path(tempfile.mkdtemp(prefix="verb-", dir="/tmp"))
    top.chmod(0o755)  # another user meets a closed door at the repository, not above it
    directory, tmp = top / "w", top / "t"
    directory.mkdir(), tmp.mkdir()
    try:
        here, there = (open_repository(f"file://{directory}/{one}") for one in ("here", "there"))
        here.init(), there.init()
        for seed in ("first", "second"):
            time.sleep(1 - time.time() % 1)  # two of one second are none after the other
            made = dump_database(
                connection=database, server="prod", repository=here, options=DumpOptions(format=FORMAT[seed])
            )
            verify(reference=made, repository=here)
        artifact = here.local_path(str(made["key"]))
        assert artifact is not None
        for one in ("old", "empty"):
            (directory / one).mkdir()
        for month in ("10", "11"):
            shutil.copy(artifact, directory / "old" / f"crm_2025-{month}-01.dump")
        world = World(directory, tmp, server, database, here, there, str(made["id"]))
        world.names = {
            "here": here.uri,
            "there": there.uri,
            "series": str(made["series"]),
            "id": world.id,
            "old": str(directory / "old"),
            "empty": str(directory / "empty"),
            "missing": str(directory / "missing"),
            "staging": staging,
        }
        yield world
    finally:
        shutil.rmtree(top)
        with server.params.connect() as session:
            for one in (name, staging):
                session.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(one)))


FORMAT = {"first": "directory", "second": "custom"}
