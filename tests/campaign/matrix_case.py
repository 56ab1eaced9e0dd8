"""One case of the matrix: repositories, a database to restore to, and a proxy of its own."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from faulty_s3 import FaultyS3
from psycopg import sql

from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from tests.campaign.aftermath import Scene
from tests.campaign.matrix_world import PASSWORD, World


@dataclass
class Case:
    """One case: an operation and a fault in repositories of their own.

    :ivar child: the order for ``matrix_child.py``.
    :ivar names: for the arguments of the operation.
    :ivar databases: those that it may make, by a part of their names.
    :ivar free: bytes that are free for the operation on a file system of its own; 0: enough.
    :ivar limit: seconds after which a person would press Ctrl-C; None: nothing stalls.
    """

    world: World
    rng: random.Random
    stores: tuple[str, ...]
    encrypted: bool
    directory: Path
    token: str
    proxy: FaultyS3
    here: Repository
    there: Repository
    scene: Scene
    names: dict[str, str]
    env: dict[str, str]
    child: dict[str, object] = field(default_factory=dict)
    free: int = 0
    limit: float | None = None
    struck: bool = False

    def limit_space(self) -> None:
        """Leave :attr:`free` bytes on its file system."""
        used = os.statvfs(self.directory)
        size = (used.f_blocks - used.f_bfree) * used.f_frsize + self.free
        subprocess.run(["mount", "-o", f"remount,size={size}", self.directory], check=True)

    def settle(self) -> None:
        """End the faults that are outside of the operation."""
        self.proxy.settle()
        self.world.relay.release()
        self.world.server.start()
        if os.path.ismount(self.directory):
            subprocess.run(["mount", "-o", "remount,size=1g", self.directory], check=True)

    @property
    def tmp(self) -> Path:
        return self.scene.tmp

    @property
    def target(self) -> str:
        """The name of the database that it restores to, or refreshes."""
        return f"target_{self.token}"

    def makes(self, database: str) -> bool:
        return self.token in database


@contextmanager
def make_case(
    world: World, rng: random.Random, stores: tuple[str, ...], encrypted: bool, tmpfs: bool = False
) -> Iterator[Case]:
    """Make the repositories of a case.

    :param stores: ``local`` or ``s3``, of the repository and, for an upload, of the one that it copies to.
    :param tmpfs: whether its files are on a file system of their own.
    """
    token = f"{rng.getrandbits(32):08x}{secrets.token_hex(2)}"
    directory = world.top / token
    directory.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if tmpfs:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", directory], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", directory], check=True)
        tmp = directory / "t"
        tmp.mkdir()
        proxy = stack.enter_context(FaultyS3(world.s3.endpoint_url).running())
        repositories = []
        for store, name in zip(stores, ("here", "there"), strict=False):
            template = world.template(encrypted, name)
            if store == "local":
                shutil.copytree(template, directory / name)
                repositories.append(open_repository(f"file://{directory / name}"))
            else:
                _upload(world, template, f"{token}/{name}")
                options = S3Options(client_factory=lambda: world.client)
                repositories.append(open_repository(f"s3://{world.bucket}/{token}/{name}", s3=options))
        here, there = repositories[0], repositories[-1]
        scene = Scene(
            repositories=repositories,
            tmp=tmp,
            servers=[world.server.params],
            secrets=[PASSWORD, world.s3.secret_key, str(world.identity)],
            context=world.context(),
        )
        names = {"here": here.uri, "there": there.uri, "old": str(directory / "old"), "target": f"target_{token}"}
        case = Case(
            world, rng, stores, encrypted, directory, token, proxy, here, there, scene, names, _environment(world, tmp)
        )
        case.env["AWS_ENDPOINT_URL_S3"] = proxy.url
        if encrypted:
            case.env["PGBACKUP_RECIPIENTS"] = str(world.identity.to_public())
        try:
            yield case
        finally:
            case.settle()
            _drop(world, token)


def _environment(world: World, tmp: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "TMPDIR": str(tmp),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",  # CPython before 3.12.8 leaves a truncated file where the size is limited
        "PGHOST": "127.0.0.1",
        "PGPORT": str(world.relay.port),
        "PGUSER": world.server.params.user,
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": "app",
        "AWS_ACCESS_KEY_ID": world.s3.access_key,
        "AWS_SECRET_ACCESS_KEY": world.s3.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "2",
        "AWS_RETRY_MODE": "standard",
        "PGBACKUP_S3": '{"min_part_size": 5242880}',
        "PGBACKUP_IDENTITY_FILE": str(world.identity_file),
        "PGBACKUP_LOCK_WAIT_TIMEOUT": "2",
    }


def _upload(world: World, template: Path, prefix: str) -> None:
    def put(path: Path) -> None:
        key = f"{prefix}/{path.relative_to(template)}"
        world.client.put_object(Bucket=world.bucket, Key=key, Body=path.read_bytes())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, (path for path in template.rglob("*") if path.is_file())))


def _drop(world: World, token: str) -> None:
    with world.server.params.connect() as session:
        names = session.execute("SELECT datname FROM pg_database WHERE datname ~ %s", [token]).fetchall()
        for (name,) in names:
            with suppress(psycopg.Error):
                session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
