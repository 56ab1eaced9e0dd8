"""Which PostgreSQL server programs and which client a rehearsal uses."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_pgbackup.backup.artifact import reader_requirements
from airflow_pgbackup.errors import ConfigurationError, NotProven
from airflow_pgbackup.postgres.tools import client_choice
from airflow_pgbackup.postgres.tools.client_choice import choose_psql, choose_servers
from airflow_pgbackup.postgres.tools.clients import Client, find_clients, where_to_get
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings


def choose_programs(manifest: Manifest, settings: Settings) -> tuple[Client, Client]:
    """Return the server programs for a rehearsal, and the client that restores into that server.

    The server has the major version of the pg_dump that wrote the dump, or else the lowest newer one. pg_restore must
    know the archive's compression, and the server the settings that pg_restore sends: since version 17 it sets
    ``transaction_timeout``, which older servers reject.

    :raises NotProven: this machine has no suitable programs.
    """
    wanted = manifest.client.major
    clients = find_clients(settings.client_dirs)
    servers = choose_servers(clients, wanted)
    if not servers:
        listed = "; ".join(str(client) for client in clients if client.has("initdb", "postgres")) or "none"
        raise NotProven(
            f"no server programs of PostgreSQL {wanted} or newer on this machine to rehearse with; found: {listed}",
            hint=where_to_get(wanted, tools=("initdb", "postgres")),
        )
    if manifest.artifact.format == "plain":
        return servers[0], choose_plain_loader(servers[0].major, clients)
    for server in servers:
        if loader := choose_loader(manifest, server.major, clients):
            return server, loader
    raise NotProven(
        f"no pg_restore on this machine that knows {manifest.artifact.compressed_inside} compression, with a server "
        f"that accepts its settings; found: {'; '.join(map(str, clients))}",
        hint=where_to_get(wanted, tools=("initdb", "postgres"), embedded=False),
    )


def choose_loader(manifest: Manifest, server: int, clients: Sequence[Client]) -> Client | None:
    """Return the client whose pg_restore restores an archive, or None.

    :param server: major version of the server.
    """
    return client_choice.choose_loader(clients, reader_requirements(manifest), server)


def choose_plain_loader(server: int, clients: Sequence[Client]) -> Client:
    """Return the client whose psql runs a plain dump.

    :param server: major version of the server.
    :raises NotProven: none of the clients can run it safely.
    """
    try:
        return choose_psql(clients, server)
    except ConfigurationError as error:
        raise NotProven(error.message, hint=error.hint) from None
