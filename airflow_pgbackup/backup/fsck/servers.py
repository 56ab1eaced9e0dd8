"""Two servers that write one series: their system identifiers alternate, which a migration cannot cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from airflow_pgbackup.backup.fsck.findings import Faults
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.text import first_of
from airflow_pgbackup.wording import parameter

_MOST_NAMED = 3


def check_servers(servers: Mapping[Series, Sequence[tuple[str, str]]], findings: Faults) -> None:
    """Report each series to which a server came back after another one.

    :param servers: for each series, id and system identifier of the backups that have one.
    """
    for series, backups in servers.items():
        newest = {identifier: id for id, identifier in sorted(backups)}
        changes = sum(one != other for (_, one), (_, other) in pairwise(sorted(backups)))
        if changes < len(newest):
            continue
        named = sorted(newest.items(), key=lambda item: item[1], reverse=True)
        text = first_of([f"{identifier} (newest backup {id})" for identifier, id in named], _MOST_NAMED)
        findings.warning(
            "servers",
            series.path,
            f"backups of servers with different system identifiers alternate: {text}",
            "If two servers write this series, retention and freshness mix their backups: give each server its own "
            f"repository, prefix or {parameter('server')}. If you went back to a server after a migration, ignore this "
            "until prune has deleted its earlier backups.",
        )
