"""The servers, databases and backups of the matrix, which all of its cases share."""

from __future__ import annotations

import functools
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyrage
from psycopg import sql

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.supervised import SupervisedProcess
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.server.unprivileged import as_plain_user
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings
from tests.campaign.relay import Relay

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PASSWORD = "cañary:p\\a'ss \"w#rd%41&x=y"
FORMATS = ("tar", "plain", "directory", "custom")
"""Of the older backups, oldest first."""

# 6 MB that hardly compress: more than one part of an upload.
FILL = (
    "CREATE TABLE film (film_id int PRIMARY KEY, title text)",
    "INSERT INTO film SELECT n, 'film ' || n FROM generate_series(1, 1000) n",
    "CREATE TABLE wide AS SELECT n, string_agg(md5((n * m)::text), '') AS t FROM generate_series(1, 9000) n,"
    " generate_series(1, 20) m GROUP BY n",
    "CREATE INDEX ON wide (n)",
    "CREATE VIEW titles AS SELECT title FROM film",
)
ROWS = (1000, 9000)


class RestartableServer:
    """A PostgreSQL server that can be stopped immediately and started again with its data."""

    def __init__(self) -> None:
        # What was committed is there after the restart.
        settings = {"autovacuum": "off", "synchronous_commit": "on"}
        self.server = PostgresServer(postgres_bin_dir(18), password=PASSWORD, tcp=True, settings=settings)
        self._again: SupervisedProcess | None = None

    @contextmanager
    def running(self) -> Iterator[RestartableServer]:
        with self.server:
            assert self.server.private_directory is not None
            self._data = self.server.private_directory / "data"
            pid = self._postmaster()
            self._argv = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
            try:
                yield self
            finally:
                if self._again:
                    self._again.stop()

    @property
    def params(self) -> ConnectionParams:
        return self.server.params

    def stop_immediately(self) -> None:
        """As ``pg_ctl stop -m immediate``."""
        with suppress(ProcessLookupError):
            os.kill(self._postmaster(), signal.SIGQUIT)

    def start(self) -> None:
        """Start it again, if it was stopped, and wait until it accepts connections."""
        if (self._data / "postmaster.pid").exists() and self._accepts():
            return
        if self._again:
            self._again.stop()
        directory = self._data.parent
        end = time.monotonic() + 60
        while (self._data / "postmaster.pid").exists() and time.monotonic() < end:
            time.sleep(0.02)
        self._again = SupervisedProcess(
            [*as_plain_user(postgres_bin_dir(18), directory, []), *self._argv],
            env={"PATH": os.defpath, "HOME": str(directory), "LC_ALL": "C", "TZ": "UTC"},
            log=directory / "log-again",
        ).__enter__()
        while not self._accepts():
            assert time.monotonic() < end, self._again.log_tail(20)
            time.sleep(0.05)

    def terminate_backend(self, rng: random.Random) -> bool:
        """End one session of a case; return whether there was one."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
            "ORDER BY pid"
        )
        with self.params.connect() as session:
            pids = [pid for (pid,) in session.execute(query).fetchall()]
            if pids:
                session.execute("SELECT pg_terminate_backend(%s)", [rng.choice(pids)])
        return bool(pids)

    def _postmaster(self) -> int:
        return int((self._data / "postmaster.pid").read_text().split("\n")[0])

    def _accepts(self) -> bool:
        try:
            self.params.connect().close()
        except Exception:
            return False
        return True


@dataclass
class World:
    """What all cases share.

    :ivar top: a directory with a short path, because sockets are made below it.
    :ivar templates: by whether they are encrypted, a local repository with a verified backup in each format, and one
        with only the oldest of them. :ivar ids, sizes: of these backups, by whether they are encrypted, and format.
    """

    top: Path
    server: RestartableServer
    s3: S3Server
    bucket: str
    relay: Relay
    identity: pyrage.x25519.Identity
    formats: Sequence[str] = FORMATS
    ids: dict[tuple[bool, str], str] = field(default_factory=dict)
    sizes: dict[tuple[bool, str], int] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)

    @functools.cached_property
    def client(self) -> S3Client:
        """One for all cases: to make one takes a while."""
        return self.s3.client()

    def size(self, encrypted: bool) -> int:
        """Return the bytes of the largest artifact."""
        return max(size for (which, _), size in self.sizes.items() if which == encrypted)

    def context(self, *, encrypted: bool = True) -> RunContext:
        recipients = (str(self.identity.to_public()),) if encrypted else ()
        return RunContext(
            settings=Settings(recipients=recipients), identities=Identities.parse(str(self.identity), "the identity")
        )

    def template(self, encrypted: bool, name: str) -> Path:
        return self.top / "templates" / str(encrypted) / name

    @property
    def identity_file(self) -> Path:
        return self.top / "identity"

    def execute(self, *statements: str | sql.Composable, database: str = "postgres") -> None:
        with self.server.params.with_database(database).connect() as session:
            for statement in statements:
                session.execute(statement.encode() if isinstance(statement, str) else statement)


@contextmanager
def make_world(formats: Sequence[str] = FORMATS, *, encryption: Sequence[bool] = (False, True)) -> Iterator[World]:
    """Start the servers and make the templates.

    :param formats: of the older backups. :param encryption: whether there are encrypted cases, and others.
    """
    with ExitStack() as stack:
        top = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="mx-", dir="/tmp", ignore_cleanup_errors=True))
        )
        top.chmod(0o755)
        server = stack.enter_context(RestartableServer().running())
        s3 = stack.enter_context(S3Server())
        relay = stack.enter_context(Relay(server.server.port).running())
        identity = pyrage.x25519.Identity.generate()
        world = World(top, server, s3, s3.bucket(), relay, identity, formats)
        world.identity_file.write_text(f"{world.identity}\n")
        world.identity_file.chmod(0o600)
        world.execute("CREATE DATABASE app TEMPLATE template0", "CREATE DATABASE small TEMPLATE template0")
        world.execute(*FILL, database="app")
        world.execute("CREATE TABLE t AS SELECT 1 AS a", database="small")
        for encrypted in encryption:
            _make_templates(world, encrypted)
        yield world


def _make_templates(world: World, encrypted: bool) -> None:
    here, there = (open_repository(f"file://{world.template(encrypted, name)}") for name in ("here", "there"))
    here.init(), there.init()
    context = world.context(encrypted=encrypted)
    for format in world.formats:
        time.sleep(1 - time.time() % 1)  # ids have seconds, and prune needs an order
        reference = dump_database(
            connection=world.server.params.with_database("app"),
            server="prod",
            repository=here,
            options=DumpOptions(format=format),
            context=context,
        )
        verify(reference=reference, repository=here, context=context)
        world.ids[encrypted, format] = str(reference["id"])
        world.sizes[encrypted, format] = int(str(reference["size"]))
        if format == world.formats[0]:
            upload(reference=reference, source=here, destination=there, context=context)
