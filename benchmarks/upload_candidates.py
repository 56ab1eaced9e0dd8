"""The candidates of ``bench_upload.py``: our dump to S3, the usual shell commands, and pg_dump to ``/dev/null``."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.clients import Client, find_clients

HERE = Path(__file__).parent
WEED, DISCARD, LINE, NULL = "weed mini", "discarding", "discarding, 40 MiB/s", "/dev/null"
OURS, OURS_DIRECTORY = "ours", "ours, directory, 2 jobs"
VERB = "ours, the dump alone"
TUTORIAL = "pg_dump -Ft to a file, then aws s3 cp"
PIPE = "pg_dump -Fc | aws s3 cp -"
PIPE_ZSTD = "pg_dump -Fc --compress=zstd:3 | aws s3 cp -"
DIRECTORY = "pg_dump -Fd -j2 --compress=zstd:3, then aws s3 cp --recursive"
FLOOR = "pg_dump -Fc, compressed as ours, > /dev/null"
Store = dict[str, str]


@dataclass
class Candidates:
    """:param work: a directory for the files of the scripts."""

    source: ConnectionParams
    client: Client
    aws: Path
    work: Path

    def run(self, name: str, store: Store | None, *, series: str) -> dict[str, Any]:
        """Run a candidate and return its measurements.

        ``wall`` is the seconds from the start of the process to its end, imports included; ``cpu`` is its CPU seconds
        and those of all its children, without the servers. For our dump, also ``seconds`` of the dump alone, as in a
        task whose process has loaded the libraries, and ``size``.
        """
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = name in (OURS, OURS_DIRECTORY)
        result = self._ours(name, store or {}, series) if ours else self._script(name, store)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {**result, "cpu": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime}

    def _script(self, name: str, store: Store | None) -> dict[str, Any]:
        dump, file, copy = self.client.tool("pg_dump"), self.work / "dump", f"{self.aws} s3 cp --only-show-errors"
        best = "zstd:3" if "zstd" in self.client.compression_methods else "gzip:1"
        script = {
            FLOOR: f"{dump} -Fc --compress={best} > /dev/null",
            PIPE: f"{dump} -Fc | {copy} - s3://bench/dump",
            PIPE_ZSTD: f"{dump} -Fc --compress=zstd:3 | {copy} - s3://bench/dump",
            TUTORIAL: f"{dump} -Ft -f {file} && {copy} {file} s3://bench/dump",
            DIRECTORY: f"{dump} -Fd -j2 --compress=zstd:3 -f {file} && {copy} --recursive {file} s3://bench/dump.dir",
        }[name]
        source = self.source
        environ = {"PATH": os.defpath, "HOME": str(self.work), "AWS_EC2_METADATA_DISABLED": "true"}
        environ |= {"PGHOST": source.host, "PGPORT": source.port, "PGUSER": source.user, "PGDATABASE": source.dbname}
        if store:
            environ |= {"AWS_ACCESS_KEY_ID": store["access_key"], "AWS_SECRET_ACCESS_KEY": store["secret_key"]}
            environ |= {"AWS_ENDPOINT_URL": store["endpoint"], "AWS_DEFAULT_REGION": "us-east-1"}
        started = time.perf_counter()
        subprocess.run(["/bin/bash", "-e", "-o", "pipefail", "-c", script], env=environ, check=True)
        seconds = time.perf_counter() - started
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        return {"wall": seconds}

    def _ours(self, name: str, store: Store, series: str) -> dict[str, Any]:
        options = {"format": "directory", "jobs": 2} if name == OURS_DIRECTORY else {}
        started = time.perf_counter()
        result = upload_once(
            **store,
            uri=f"s3://bench/{series}",
            keywords=dict(self.source.keywords),
            options=options,
            bin_dir=str(self.client.bin_dir),
        )
        result["wall"] = time.perf_counter() - started
        if result["client"] != self.client.version_text:
            raise SystemExit(f"pg_dump {result['client']} was chosen, not {self.client}")
        return result


def upload_once(**given: object) -> dict[str, Any]:
    """Run ``upload_once.py``."""
    run = subprocess.run(
        [sys.executable, HERE / "upload_once.py"], input=json.dumps(given), stdout=subprocess.PIPE, text=True
    )
    if run.returncode:
        raise SystemExit("the dump failed, see above")
    result: dict[str, Any] = json.loads(run.stdout)
    return result


@contextmanager
def weed() -> Iterator[Store]:
    with S3Server() as server:
        server.bucket("bench")
        yield {"endpoint": server.endpoint_url, "access_key": server.access_key, "secret_key": server.secret_key}


@contextmanager
def discarding(*mib_per_second: str) -> Iterator[Store]:
    argv = [sys.executable, str(HERE / "discarding_s3.py"), *mib_per_second]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield {"endpoint": process.stdout.readline().strip(), "access_key": "any", "secret_key": "any"}
        finally:
            process.communicate()


def install_aws() -> Path:
    """Return the AWS CLI from the package index, in an environment of its own that later runs reuse."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airflow-pgbackup" / "awscli"
    if not (cache / "bin" / "aws").exists():
        print("installing awscli", flush=True)
        subprocess.run([sys.executable, "-m", "venv", cache], check=True)
        subprocess.run([cache / "bin" / "pip", "install", "--quiet", "awscli"], check=True)
    return cache / "bin" / "aws"


def choose_clients() -> dict[str, Client]:
    """Return the newest client with zstd as ``zstd``, the newest with gzip only as ``gzip``; one may be missing."""
    directories = os.environ.get("PGBACKUP_TEST_CLIENT_DIRS", "").split(os.pathsep)
    chosen: dict[str, Client] = {}
    for client in find_clients([*filter(None, directories), str(postgres_bin_dir(18))]):
        if client.version >= (16, 0) and client.has("initdb", "postgres"):
            chosen.setdefault("zstd" if "zstd" in client.compression_methods else "gzip", client)
    return chosen
