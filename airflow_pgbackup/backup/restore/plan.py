"""Check a restore request, choose how to restore, and find what the server lacks: before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.restore.beside_selection import check_beside
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import ConfigurationError, OptionError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties
from airflow_pgbackup.postgres.definitions.public_schema import PublicSchema
from airflow_pgbackup.postgres.definitions.requirements import Requirements
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.sql.anybytes import decoded
from airflow_pgbackup.postgres.sql.names import NameDecoder
from airflow_pgbackup.postgres.tools.capabilities import runs_scripts_of
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.quantities import noun
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.wording import parameter

# Options of pg_restore that a restore does not accept, and why.
_REJECTED = {
    "restrict_key": "It is meant for scripts that are kept.",
    "no_data_for_failed_tables": "A restore stops at the first error.",
}


class Loader(Protocol):
    """Restores one backup into a database: an archive with pg_restore, or a script with psql."""

    @property
    def client(self) -> Client: ...
    @property
    def dumped_from(self) -> int: ...
    @property
    def needs(self) -> Requirements: ...
    @property
    def fires_event_triggers(self) -> bool: ...
    @property
    def drops(self) -> bool: ...
    @property
    def properties(self) -> DatabaseProperties: ...
    @property
    def public(self) -> PublicSchema | None: ...
    def fall_back_to_one_job(self) -> bool: ...
    def check_single_transaction(self) -> None: ...
    def check_rows(self) -> None: ...
    def lines(self) -> list[str]: ...
    def load(self, params: ConnectionParams, *, single_transaction: bool, public_exists: bool) -> None: ...


@dataclass(frozen=True)
class RestoreStrategy:
    """How a restore becomes visible all at once, or not at all.

    :param new_database: it fills a new database, which is renamed at the end; False fills the target itself.
    :param single_transaction: pg_restore or psql runs everything in one transaction.
    :param reason: why the restore needs a new database although the target exists and is empty.
    """

    new_database: bool
    single_transaction: bool
    reason: str = ""


def without_jobs_for_token(
    options: RestoreOptions, connection: ConnectionParams, warn: Callable[[str], None]
) -> RestoreOptions:
    """Return the options without jobs if the password is a token.

    With jobs, pg_restore connects again after the rows, with the password that it has read at its start. By then, a
    token may have expired.

    :param warn: takes a warning if jobs were asked for.
    """
    if connection.renew_every is None or (options.jobs or 1) == 1:
        return options
    warn(
        f"restoring with one job instead of {options.jobs}: {connection.label} is accessed with a token, which may "
        "expire before pg_restore connects again"
    )
    return replace(options, jobs=None)


def check_request(target: RestoreTarget, options: RestoreOptions, manifest: Manifest) -> None:
    """Check that target, options and backup can be combined, before connecting to a server.

    :raises ConfigurationError: they cannot.
    """
    target.validate()
    options.validate()
    if options.use_list is not None:
        _check_readable(Path(options.use_list))
    if options.create:
        raise OptionError(
            f"{parameter('create')} cannot be used in a restore", hint=f"Use {parameter('mode', 'create')} instead."
        )
    for name, hint in _REJECTED.items():
        if getattr(options, name):
            raise OptionError(f"{parameter(name)} cannot be used in a restore", hint=hint)
    if options.clean and target.mode != "into_existing":
        raise OptionError(
            f"{parameter('clean')} cannot be combined with {parameter('mode', target.mode)}, as there is nothing to "
            "drop",
            hint=f"Leave {parameter('clean')} out, or use {parameter('mode', 'into_existing')}.",
        )
    if target.into_schema is not None:
        check_beside(target.into_schema, options, manifest)
    jobs = options.jobs or 1
    if jobs > 1 and manifest.artifact.format not in ("custom", "directory"):
        raise OptionError(
            f"a backup in {manifest.artifact.format} format cannot be restored with {jobs} jobs",
            hint=f"Leave {parameter('jobs')} out: only custom and directory archives can be restored in parallel.",
        )
    for name, given in (("jobs", jobs > 1), ("transaction_size", options.transaction_size)):
        if given and target.mode == "into_existing":
            raise OptionError(
                f"{parameter(name)} cannot be combined with {parameter('mode', 'into_existing')}, which uses a single "
                "transaction",
                hint=f"Leave {parameter(name)} out, or restore into a database of its own.",
            )
    if manifest.kind == "cluster" and target.mode != "into_empty":
        raise ConfigurationError(
            f"{parameter('mode', target.mode)} cannot be used with the backup of a cluster",
            hint=f"Use {parameter('mode', 'into_empty')}, with any database of the server: a cluster backup creates "
            "its databases itself.",
        )


def _check_readable(use_list: Path) -> None:
    try:
        with use_list.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise OptionError(
            f"cannot read {use_list}, given with {parameter('use_list')}: {(error.strerror or str(error)).lower()}",
            hint="Give a file that pg_restore --list wrote.",
        ) from None


def choose_strategy(
    target: RestoreTarget, options: RestoreOptions, server: ServerInfo, needs: Requirements
) -> RestoreStrategy:
    """Return how to restore: in a single transaction if possible, else into a new database that is renamed."""
    parallel = (options.jobs or 1) > 1
    # At most half of the lock table, as other sessions need locks too.
    fits = needs.locks <= server.locks // 2
    if target.mode == "into_existing":
        return RestoreStrategy(new_database=False, single_transaction=True)
    single = not parallel and not options.transaction_size and (fits or options.single_transaction)
    if target.mode != "into_empty":
        return RestoreStrategy(new_database=True, single_transaction=single)
    if single:
        return RestoreStrategy(new_database=False, single_transaction=True)
    reason = (
        f"{options.jobs} jobs cannot share a transaction"
        if parallel
        else "transaction_size splits the transaction"
        if options.transaction_size
        else f"a single transaction would take about {needs.locks:,} locks, more than half of the lock table"
    )
    return RestoreStrategy(new_database=True, single_transaction=False, reason=reason)


def major_version(version: str) -> int:
    """Return 19 for ``19beta1`` and for ``19.2 (Debian 19.2-1)``; 0 for what is not a version."""
    match = re.match(r"\d{1,4}", version, re.ASCII)
    return int(match[0]) if match else 0


def check_versions(dumped_from: int, server: ServerInfo, *, allow_older: bool, label: str) -> None:
    """Check that the server is not older than the dumped one.

    :param dumped_from: major version.
    :param allow_older: skip the check.
    :param label: names the server in errors.
    :raises ConfigurationError: it is older.
    """
    if dumped_from > server.major and not allow_older:
        timeout = ", which does not know transaction_timeout" if not runs_scripts_of(server.major, dumped_from) else ""
        raise ConfigurationError(
            f"the backup is of PostgreSQL {dumped_from}, but {label} is version {server.major}{timeout}",
            hint=f"Restore into PostgreSQL {dumped_from} or newer. PostgreSQL does not support "
            f"a restore into an older version; {parameter('allow_older_server')} tries it.",
        )


def check_needs(
    needs: Requirements,
    server: ServerInfo,
    *,
    label: str,
    new_roles: Iterable[str] = (),
    new_tablespaces: Iterable[str] = (),
    encoding: str = "UTF8",
) -> None:
    """Check that the server has the roles, extensions and tablespaces that a backup needs.

    :param label: names the server in errors.
    :param new_roles, new_tablespaces: those that the restore creates.
    :param encoding: of the dumped database: a role's name has the bytes that a database of this encoding stores.
    :raises ConfigurationError: something is missing; names all of it.
    """
    missing = []
    hints = []
    known = server.roles | set(new_roles)
    if roles := sorted(name for name in needs.roles - known if _seen_in_utf8(name, encoding) not in known):
        missing.append(f"{noun(len(roles), 'role')} {', '.join(roles)}")
        hints.append(
            "Create the roles, restore them from a cluster backup (globals), or set "
            f"{parameter('no_owner')} and {parameter('no_privileges')}. Policies and user mappings need their roles in "
            f"any case: exclude them with {parameter('use_list')}."
        )
    if extensions := sorted(needs.extensions - server.extensions.keys()):
        missing.append(f"{noun(len(extensions), 'extension')} {', '.join(extensions)}")
        hints.append(f"Install the extensions' packages on the server, or exclude them with {parameter('use_list')}.")
    if tablespaces := sorted(needs.tablespaces - server.tablespaces - set(new_tablespaces)):
        missing.append(f"{noun(len(tablespaces), 'tablespace')} {', '.join(tablespaces)}")
        hints.append(f"Create the tablespaces, or set {parameter('no_tablespaces')}.")
    if missing:
        raise ConfigurationError(f"{label} lacks what the backup needs: {'; '.join(missing)}", hint=" ".join(hints))


def _seen_in_utf8(name: str, encoding: str) -> str:
    """Return the name of a role in a database of an encoding as a session in a UTF8 database sees it.

    The server does not convert names that its databases share.
    """
    decoder = NameDecoder()
    decoder.use(encoding)
    try:
        return decoded(decoder.bytes(name))
    except UnicodeEncodeError:
        return name
