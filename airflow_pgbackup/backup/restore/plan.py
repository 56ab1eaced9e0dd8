"""What a restore will do, decided before anything is touched; and what would stop it half-way, said all at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import ConfigurationError, OptionError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.tools.capabilities import runs_scripts_of
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.manifest import Manifest

_OURS = {
    "create": "use mode='create'",
    "restrict_key": "it is for scripts that are kept",
    "no_data_for_failed_tables": "a restore stops at the first error",
}


class Loader(Protocol):
    """A backup on its way into a database: an archive or a script."""

    @property
    def client(self) -> Client: ...
    @property
    def dumped_from(self) -> int: ...
    @property
    def needs(self) -> Requirements: ...
    @property
    def properties(self) -> DatabaseProperties: ...
    @property
    def makes_public(self) -> bool: ...
    def to_one_job(self) -> bool: ...
    def lines(self) -> list[str]: ...
    def load(self, params: ConnectionParams, *, single_transaction: bool, public_exists: bool) -> None: ...


@dataclass(frozen=True)
class RestoreStrategy:
    """How.

    :ivar fresh: into a new database, which then gets the name.
    :ivar single_transaction: all or nothing by the tool itself.
    :ivar why: why it is a new database although the target is there and empty.
    """

    fresh: bool
    single_transaction: bool
    why: str = ""


def check_request(target: RestoreTarget, options: RestoreOptions, manifest: Manifest) -> None:
    """Refuse what makes no sense, before any server is asked.

    :raises ConfigurationError: what, and what to do instead.
    """
    target.validate()
    options.validate()
    for name, hint in _OURS.items():
        if getattr(options, name):
            raise OptionError(f"{name} cannot be used in a restore", hint=hint)
    if options.clean and target.mode != "into_existing":
        raise OptionError(
            f"clean makes no sense with mode={target.mode!r}: there is nothing to drop",
            hint="leave it out, or see mode='into_existing'",
        )
    jobs = options.jobs or 1
    if jobs > 1 and manifest.artifact.format not in ("custom", "directory"):
        raise OptionError(
            f"jobs={jobs} and a backup in {manifest.artifact.format} format do not go together",
            hint="only custom and directory archives restore in parallel",
        )
    if jobs > 1 and target.mode == "into_existing":
        raise OptionError(
            f"jobs={jobs} and mode='into_existing' do not go together: it is one transaction, and so one session",
            hint="leave jobs out, or restore into a database of its own",
        )
    if options.transaction_size and target.mode == "into_existing":
        raise OptionError("transaction_size and mode='into_existing' do not go together: it is one transaction")
    if manifest.kind == "cluster" and target.mode != "into_empty":
        raise ConfigurationError(
            f"mode is {target.mode!r}, and the backup is of a whole cluster",
            hint="a cluster backup makes its own databases: leave mode at 'into_empty', and connect to any database",
        )


def choose_strategy(
    target: RestoreTarget, options: RestoreOptions, server: ServerInfo, needs: Requirements
) -> RestoreStrategy:
    """Decide: all or nothing by a transaction where that can be, else by a new database."""
    parallel = (options.jobs or 1) > 1
    # Half of the lock table: the server has others to serve.
    fits = needs.locks <= server.locks // 2
    if target.mode == "into_existing":
        return RestoreStrategy(fresh=False, single_transaction=True)
    single = not parallel and not options.transaction_size and (fits or options.single_transaction)
    if target.mode != "into_empty":
        return RestoreStrategy(fresh=True, single_transaction=single)
    if single:
        return RestoreStrategy(fresh=False, single_transaction=True)
    why = (
        f"{options.jobs} jobs"
        if parallel
        else "transaction_size"
        if options.transaction_size
        else f"about {needs.locks} locks, more than a single transaction should take here"
    )
    return RestoreStrategy(fresh=True, single_transaction=False, why=why)


def check_versions(dumped_from: int, server: ServerInfo, *, allow_older: bool, label: str) -> None:
    """:raises ConfigurationError: the server is older than the one that was dumped."""
    if dumped_from > server.major and not allow_older:
        timeout = ": it knows no transaction_timeout, for one" if not runs_scripts_of(server.major, dumped_from) else ""
        raise ConfigurationError(
            f"the backup is of PostgreSQL {dumped_from}, {label} is {server.major}{timeout}",
            hint=f"restore into PostgreSQL {dumped_from} or newer; PostgreSQL does not promise the way back, "
            "allow_older_server tries it",
        )


def check_needs(
    needs: Requirements,
    server: ServerInfo,
    *,
    label: str,
    new_roles: Iterable[str] = (),
    new_tablespaces: Iterable[str] = (),
) -> None:
    """:raises ConfigurationError: everything that the server lacks, at once."""
    missing = []
    hints = []
    if roles := sorted(needs.roles - server.roles - set(new_roles)):
        missing.append(f"roles {', '.join(roles)}")
        hints.append(
            "create the roles, restore them first from a cluster backup (globals), or set no_owner and no_privileges"
        )
    if extensions := sorted(needs.extensions - server.extensions.keys()):
        missing.append(f"extensions {', '.join(extensions)}")
        hints.append("install the extensions' packages on the server, or leave them out by use_list")
    if tablespaces := sorted(needs.tablespaces - server.tablespaces - set(new_tablespaces)):
        missing.append(f"tablespaces {', '.join(tablespaces)}")
        hints.append("create the tablespaces, or set no_tablespaces")
    if missing:
        raise ConfigurationError(f"{label} lacks what the backup needs: {'; '.join(missing)}", hint="; ".join(hints))
