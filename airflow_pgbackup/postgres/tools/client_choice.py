"""Choosing among the clients on this machine: the only module that decides which one does what.

A client that talks to a server is of the server's own major version, else of the lowest newer one: pg_dump refuses a
server newer than itself, and what a newer pg_dump writes may not restore into an older server (pg_dump manual page,
"Notes"). Of a major version the newest patch release is used.

A client that reads an archive is at least as new as the pg_dump that wrote it, and built with its compression.

Lists of clients are those of :func:`.clients.find_clients`, newest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from airflow_pgbackup.errors import ClientError
from airflow_pgbackup.postgres.tools import seccomp
from airflow_pgbackup.postgres.tools.capabilities import (
    OLDEST_MAJOR,
    RESTRICT_SINCE,
    has_restrict,
    runs_scripts_of,
    since_text,
)
from airflow_pgbackup.postgres.tools.clients import Client, search_clients, where_to_get

SERVER_TOOLS = ("initdb", "postgres", "psql")
"""The programs that a throwaway server needs."""


@dataclass(frozen=True)
class ReaderRequirements:
    """The properties that a client needs to read an archive.

    :param dump_version: of the pg_dump that wrote the archive, ``18.4``.
    :param major: the lowest major version of pg_restore that can read it.
    :param compression: ``gzip``, ``lz4``, ``zstd``; None for an archive without compression.
    """

    dump_version: str
    major: int
    compression: str | None


def choose_client(
    server_version: int,
    *,
    clients: Sequence[Client] | None = None,
    tools: Sequence[str] = ("pg_dump",),
    client_dirs: Sequence[str] = (),
) -> Client:
    """Return the client for a server: of its own major version, else of the lowest newer one.

    :param server_version: ``server_version_num`` of the server, 180004.
    :param clients: the clients to choose among; None searches the machine.
    :param tools: programs that must all be in the client's directory. pg_dumpall needs pg_dump beside it.
    :param client_dirs: directories to search first.
    :raises ClientError: no client fits; the message says which were found where, the hint how to get one.
    """
    tools = list(dict.fromkeys(tools))
    problems: list[str] = []
    if clients is None:
        clients, problems = search_clients(client_dirs)
    wanted = max(server_version // 10000, OLDEST_MAJOR)
    if fitting := _in_order(clients, wanted, tools):
        return fitting[0]
    found = [_described(client, tools) for client in clients] + problems
    raise ClientError(
        f"no {' and '.join(tools)} here fits PostgreSQL {server_version // 10000}: "
        f"found {'; '.join(found) if found else 'none at all'}",
        hint=where_to_get(wanted, tools=tools),
    )


def choose_servers(clients: Iterable[Client], major: int) -> list[Client]:
    """Return the server programs for a throwaway server of this major version or newer, the best first."""
    return _in_order(clients, major, SERVER_TOOLS)


def choose_same_major(clients: Iterable[Client], major: int, tools: Sequence[str]) -> Client | None:
    """Return the newest patch release of exactly this major version that has the programs, or None."""
    return next((client for client in _in_order(clients, major, tools) if client.major == major), None)


def choose_psql(clients: Iterable[Client], server_major: int) -> Client:
    """Return the client whose psql runs a script from outside: of the server's major version, else the newest.

    :raises ClientError: no psql here can be restricted.
    :raises ConfigurationError: this machine cannot keep psql from starting processes.
    """
    seccomp.no_processes()
    found = [client for client in clients if client.has("psql")]
    fitting = [client for client in found if has_restrict(client.version)]
    if fitting:
        return min(fitting, key=lambda client: client.major != server_major)
    where = where_to_get(max(server_major, OLDEST_MAJOR), tools=("psql",))
    if found:
        raise ClientError(
            f"no psql here has \\restrict, which keeps a script from running commands on this machine: needed "
            f"{since_text(RESTRICT_SINCE)}, found {'; '.join(map(str, found))}",
            hint=f"Update psql to the newest patch release. {where}",
        )
    raise ClientError("no psql found", hint=where)


def choose_reader(clients: Iterable[Client], archive: ReaderRequirements) -> Client:
    """Return the newest client whose pg_restore reads the archive.

    :raises ClientError: no client here does.
    """
    clients = list(clients)
    for client in _readers(clients, archive):
        return client
    raise _no_reader(clients, archive)


def choose_restorer(clients: Iterable[Client], archive: ReaderRequirements, server_major: int) -> Client:
    """Return the client whose pg_restore reads the archive and fits the server best.

    It is the nearest to the server's major version, and one whose scripts the server runs comes before all others.

    :raises ClientError: no client here reads the archive.
    """
    clients = list(clients)

    def distance(client: Client) -> tuple[bool, int, int]:
        direct = runs_scripts_of(server_major, client.major)
        return not direct, abs(client.major - server_major), -client.version[1]

    if readers := list(_readers(clients, archive)):
        return min(readers, key=distance)
    raise _no_reader(clients, archive)


def choose_loader(clients: Iterable[Client], archive: ReaderRequirements, server_major: int) -> Client | None:
    """Return the client that loads the archive into a server for a rehearsal, or None.

    It is the oldest one that reads the archive, and the server must run its scripts: a rehearsal changes none of them.
    """
    candidates = _in_order(clients, archive.major, ("pg_restore", "pg_dump"))
    return next(_readers((one for one in candidates if runs_scripts_of(server_major, one.major)), archive), None)


def check_can_read(client: Client, archive: ReaderRequirements) -> None:
    """Check that a client's pg_restore can read an archive.

    :raises ClientError: it is too old for the archive, or lacks its compression.
    """
    if client.major < archive.major:
        raise ClientError(
            f"pg_restore {client} cannot read an archive of pg_dump {archive.dump_version}",
            hint=f"Use PostgreSQL {archive.major} or newer.",
        )
    if not _has_compression(client, archive):
        raise ClientError(
            f"pg_restore {client} was built without {archive.compression}, the compression of the archive",
            hint=f"Use a PostgreSQL client built with {archive.compression}, such as your distribution's.",
        )


def _readers(clients: Iterable[Client], archive: ReaderRequirements) -> Iterator[Client]:
    """Yield the clients that read the archive. Lazy, because a client's compression takes a process to find out."""
    for client in clients:
        if client.has("pg_restore") and client.major >= archive.major and _has_compression(client, archive):
            yield client


def _has_compression(client: Client, archive: ReaderRequirements) -> bool:
    return archive.compression is None or archive.compression in client.compression_methods


def _no_reader(clients: Iterable[Client], archive: ReaderRequirements) -> ClientError:
    found = "; ".join(str(client) for client in clients if client.has("pg_restore")) or "none at all"
    compressed = f" compressed with {archive.compression}" if archive.compression else ""
    return ClientError(
        f"no pg_restore here can read an archive of pg_dump {archive.dump_version}{compressed}: found {found}",
        hint=where_to_get(archive.major, tools=("pg_restore",), embedded=archive.compression in (None, "gzip")),
    )


def _in_order(clients: Iterable[Client], oldest: int, tools: Sequence[str]) -> list[Client]:
    """Return the clients of this major version or newer that have the programs: lowest major, newest patch first."""
    return sorted((client for client in clients if client.major >= oldest and client.has(*tools)), key=_preference)


def _preference(client: Client) -> tuple[int, int]:
    return client.major, -client.version[1]


def _described(client: Client, tools: Sequence[str]) -> str:
    missing = [tool for tool in tools if not client.has(tool)]
    without = f", without {' and '.join(missing)}" if missing else ""
    return f"{client.version_text} in {client.bin_dir} ({client.source}{without})"
