"""A streaming standby of a throwaway server: pg_basebackup in place of initdb, then the same server program."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from airflow_pgbackup.postgres.server.throwaway import PostgresServer

# An autovacuum would cancel sessions on the standby whenever it likes; tests cause the conflicts that they need.
PRIMARY_SETTINGS = {"wal_level": "replica", "max_wal_senders": "4", "autovacuum": "off"}


@contextmanager
def streaming_standby(
    primary: PostgresServer, folder: Path, settings: Mapping[str, str] | None = None
) -> Iterator[PostgresServer]:
    """A standby that streams from `primary`, which trusts its socket. :param folder: for two programs."""
    folder.mkdir()
    (folder / "postgres").symlink_to(primary.bin_dir / "postgres")
    copy = [os.fspath(primary.bin_dir / "pg_basebackup"), "-h", os.fspath(primary.socket_dir), "-p", str(primary.port)]
    copy += ["-U", primary.superuser, "--write-recovery-conf", "--checkpoint=fast", "-D"]
    (folder / "initdb").write_text(f'#!/bin/sh\nfor data; do :; done\nexec {shlex.join(copy)} "$data"\n')
    (folder / "initdb").chmod(0o755)
    own = {**PRIMARY_SETTINGS, "hot_standby": "on", **(settings or {})}
    with PostgresServer(folder, superuser=primary.superuser, settings=own) as standby:
        yield standby
