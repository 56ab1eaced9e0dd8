"""The target of a restore: a database of a server, and what may happen to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.errors import ConfigurationError, ConnectError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.wording import database, parameter

MODES = {
    "into_empty": "into an existing database without user objects",
    "into_existing": "into an existing database, beside its objects, in a single transaction",
    "create": "into a database that does not exist yet",
    "replace": "into a new database, which then takes the name of the existing one",
}

# The databases that createdb connects to (connectMaintenanceDatabase in src/fe_utils/connect_utils.c).
_MAINTENANCE = ("postgres", "template1")

# initdb creates them, and other programs expect them: renaming postgres or template1 would break them.
_NEVER_REPLACED = ("postgres", "template0", "template1")


@dataclass(frozen=True, kw_only=True)
class RestoreTarget:
    """The target of a restore.

    :param connection: the target database. For a cluster backup, any database of the target server.
    :param mode: one of :data:`MODES`.
    :param into_schema: with ``into_existing``, restore tables into this new schema instead of their own, see
        :mod:`.beside`.
    :param keep_old: with ``replace``, keep the old database under a name with the date; False drops it at the end.
    :param terminate_sessions: end the sessions of others in the database that is replaced. With False, the restore
        fails before it begins if there are any, or at the rename if some have connected since.
    :param maintenance_database: the database to connect to while the target is created, renamed or dropped; None tries
        ``postgres``, then ``template1``.
    :param update_passwords: roles of the backup that exist on the server get the passwords they have in the backup,
        except the role of the connection; nothing else about existing roles is changed.
    :param with_properties: with ``into_empty``, the database also gets the owner, settings, privileges, limits and
        comment of the dumped one; what fails is a warning.
    :param allow_older_server: restore into an older major version than the dump's, which PostgreSQL does not support.
    """

    connection: ConnectionParams
    mode: str = "into_empty"
    into_schema: str | None = None
    keep_old: bool = True
    terminate_sessions: bool = True
    maintenance_database: str | None = None
    allow_older_server: bool = False
    update_passwords: bool = False
    with_properties: bool = False

    @property
    def database(self) -> str:
        return self.connection.dbname

    def validate(self) -> None:
        """Check the fields.

        :raises ConfigurationError: unknown mode, no valid database name, or a database that is never replaced.
        """
        if self.mode not in MODES:
            raise ConfigurationError(
                f"invalid {parameter('mode')} {self.mode!r}", hint=f"Choose one of {', '.join(MODES)}."
            )
        if not self.database:
            raise ConfigurationError(
                f"no database given for {self.connection.label}",
                hint=f"Set {database()}.",
            )
        if self.into_schema is not None and self.mode != "into_existing":
            raise ConfigurationError(
                f"{parameter('into_schema')} cannot be combined with {parameter('mode', self.mode)}",
                hint=f"Use {parameter('mode', 'into_existing')}: the schema is created in an existing database.",
            )
        if len(encoded(self.database)) > 63:
            raise ConfigurationError(
                f"database name {self.database!r} is too long",
                hint="PostgreSQL truncates names to 63 bytes: choose a shorter one.",
            )

        if self.mode == "replace":
            self.check_may_be_replaced(
                f"Restore with {parameter('mode', 'create')} under another name, or with "
                f"{parameter('mode', 'into_empty')} if it is empty."
            )

    def check_may_be_replaced(self, hint: str) -> None:
        """Check that the database is not one of those that are never replaced.

        :raises ConfigurationError: it is one; with `hint`.
        """
        if self.database in _NEVER_REPLACED:
            raise ConfigurationError(
                f'database "{self.database}" is never replaced, as programs connect to it to manage the others',
                hint=hint,
            )

    def maintenance(self, cancel: Cancel | None = None) -> ConnectionParams:
        """Return a database to connect to while the target is created, renamed or dropped.

        :raises ConfigurationError: `maintenance_database` is the target itself.
        :raises ConnectError: no connection to any of them.
        """
        names = [self.maintenance_database] if self.maintenance_database else list(_MAINTENANCE)
        names = [name for name in names if name != self.database]
        if not names:
            raise ConfigurationError(
                f"{parameter('maintenance_database')} {self.maintenance_database!r} is the target itself",
                hint="Name another database of that server, one that always exists.",
            )
        return _first_reachable(
            self.connection,
            names,
            cancel,
            hint=f"Set {parameter('maintenance_database')} to a database that this user can connect to.",
        )

    def maintenance_of_cluster(self, cancel: Cancel | None = None) -> ConnectionParams:
        """Return a database to connect to while the databases of a cluster are created and renamed.

        Only if there is no other one, it is that of the connection, which need not be the target.

        :raises ConnectError: no connection to any of them.
        """
        others = [name for name in _MAINTENANCE if name != self.database]
        names = [self.maintenance_database] if self.maintenance_database else [*others, self.database]
        hint = f"Set {parameter('maintenance_database')} to a database that this user can connect to."
        return _first_reachable(self.connection, names, cancel, hint=hint)


def connect_for_cluster(
    connection: ConnectionParams, database: str | None = None, cancel: Cancel | None = None
) -> ConnectionParams:
    """Return a database of a server for the restore of a cluster, which creates its databases itself.

    :param database: this one; None tries ``postgres``, that of the connection, and ``template1``.
    :raises ConnectError: no connection to any of them.
    """
    first, *others = _MAINTENANCE
    names = [database] if database else [first, *filter(None, [connection.dbname]), *others]
    return _first_reachable(connection, names, cancel, hint="Name a database that this user can use.")


def _first_reachable(
    connection: ConnectionParams, names: Sequence[str], cancel: Cancel | None, *, hint: str
) -> ConnectionParams:
    """Return the first of the databases that accepts a connection.

    :raises ConnectError: that of the first, with `hint` if it has none.
    """
    errors: list[ConnectError] = []
    for name in names:
        params = connection.with_database(name)
        try:
            with session(params, cancel):
                return params
        except ConnectError as refused:
            errors.append(refused)
    raise ConnectError(errors[0].message, hint=errors[0].hint or hint)
