"""Check what the servers of a mapping have once groups and defaults are filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from airflow_pgbackup.pipelines.fleet.model import Fleet, Server, Settings, place_of
from airflow_pgbackup.pipelines.fleet.selection import named_databases
from airflow_pgbackup.yaml_mapping.problem import Path, Problem


def check_servers(servers: Mapping[str, Server]) -> Iterator[Problem]:
    """Find the problems of servers whose settings are complete: repositories, databases, ids of DAGs."""
    for name, server in servers.items():
        if server.repository is None:
            yield Problem(("servers", name), "no repository; set it here, in the group or in defaults")
        elif server.upload_to is not None and _copies_into_itself(server):
            yield Problem(("servers", name), "upload_to is the repository itself; copies need another one")
        if named_databases(server.databases, server.exclude) == []:
            yield Problem(("servers", name, "exclude"), "leaves no database to back up")
        for part in ("drill", "freshness"):
            if (other := f"{name}_{part}") in servers and getattr(server, part) is not None:
                yield Problem(("servers", other), f"its DAG would have the id of the {part} of {name}; rename it")


def check_copies(fleet: Fleet, servers: Mapping[str, Server]) -> Iterator[Problem]:
    """Find each upload_retention where no server that it is meant for has copies."""
    layers: dict[Path, Settings | None] = {("defaults",): fleet.defaults}
    layers |= {("groups", name): group for name, group in fleet.groups.items()}
    layers |= {("servers", name): server for name, server in fleet.servers.items()}
    for path, layer in layers.items():
        if layer is None or layer.upload_retention is None:
            continue
        meant = [
            servers[name]
            for name, server in fleet.servers.items()
            if path in (("defaults",), ("groups", server and server.group), ("servers", name))
        ]
        if meant and all(server.upload_to is None for server in meant):
            yield Problem(
                (*path, "upload_retention"), "there are no copies without upload_to; set it, or leave this out"
            )


def _copies_into_itself(server: Server) -> bool:
    """Return whether copies would go into the server's own repository. Another connection may be another store."""
    place = place_of(str(server.upload_to))
    same_store = server.aws_conn_id == server.upload_aws_conn_id or (isinstance(place, tuple) and place[0] == "file")
    return same_store and place == place_of(str(server.repository))
