"""The PostgreSQL builds that the tests run on: the wheel's 16 and 18, and those of PGBACKUP_TEST_CLIENT_DIRS."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import CONFIGURED, find_clients
from airflow_pgbackup.settings import Settings


@dataclass(frozen=True)
class Build:
    bin_dir: Path
    version: tuple[int, int]
    tls: bool

    def __str__(self) -> str:
        return f"{self.version[0]}.{self.version[1]}{'-tls' if self.tls else ''}"

    @property
    def major(self) -> int:
        return self.version[0]

    @property
    def settings(self) -> Settings:
        """Its own client comes first."""
        return Settings(client_dirs=(str(self.bin_dir),))


def _builds() -> list[Build]:
    folders = [str(postgres_bin_dir(major)) for major in (16, 18)]
    folders += filter(None, os.environ.get("PGBACKUP_TEST_CLIENT_DIRS", "").split(os.pathsep))
    return sorted(
        (
            Build(client.bin_dir, client.version, _has_tls(client.bin_dir))
            for client in find_clients(folders, well_known=())
            if client.source == CONFIGURED and client.has("initdb", "postgres", "psql", "createdb")
        ),
        key=lambda build: build.version,
    )


def _has_tls(bin_dir: Path) -> bool:
    told = subprocess.run([bin_dir / "pg_config", "--configure"], capture_output=True, text=True).stdout
    return "--with-openssl" in told or "--with-ssl=openssl" in told


BUILDS = _builds()


def each(builds: Sequence[Build], name: str = "build") -> Callable[[Any], Any]:
    """Parametrize over builds. Where there is none the test does not exist, rather than being skipped."""
    return pytest.mark.parametrize(name, builds, ids=str) if builds else lambda test: None


def run_by_hand(command: str, folder: Path, server: PostgresServer, *, bin_dir: Path | None = None) -> None:
    """A manifest's restore command as a person runs it: in the artifact's folder, with PostgreSQL's tools alone.

    :param bin_dir: of the tools, where they are not the server's own.
    """
    with client_environment(server.params) as env:
        env = {**env, "PATH": f"{bin_dir or server.bin_dir}:{os.defpath}"}
        done = subprocess.run(["sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
