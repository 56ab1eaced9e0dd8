"""From a mapping of servers to their DAGs.

- :mod:`.model`: the schema.
- :mod:`.read`: all problems at once, or the servers with their settings.
- :mod:`.selection`: the databases that it names and leaves out.
- :mod:`.dags`: the DAGs of a server. :mod:`.describe`: what their pages say. :mod:`.prune_copies`: a task of theirs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import DAG

__all__ = ["pgbackup_dags"]


def pgbackup_dags(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, DAG]:
    """Make the DAGs of all servers in a mapping. A DAG file needs only this call::

        from airflow_pgbackup.pipelines import pgbackup_dags

        pgbackup_dags("fleet.yaml")

    ``pgbackup_<server>`` backs up the server's databases; ``pgbackup_<server>_drill`` and
    ``pgbackup_<server>_freshness`` exist where the mapping asks for them. The mapping is explained in
    ``docs/guides/fleet.md``.

    Nothing but the file is read: no connection, no repository. If anything is wrong, no DAG is made, so that a mistake
    is an import error of the DAG file.

    :param source: a YAML file, relative to the file that calls this function; or the same as a Python mapping.
    :return: the DAGs by their ids. Airflow finds them without a variable.
    :raises FleetError: the mapping is invalid. The error lists every problem, with its line.
    """
    from airflow_pgbackup.pipelines.fleet.dags import server_dags
    from airflow_pgbackup.pipelines.fleet.read import read_fleet

    if isinstance(source, Mapping):
        name = "a Python mapping"
    else:
        caller = sys._getframe(1).f_globals.get("__file__", "")
        source = Path(caller).absolute().parent / source
        name = source.name
    servers = read_fleet(source)
    return {dag.dag_id: dag for server in servers for dag in server_dags(server, servers[server], name)}
