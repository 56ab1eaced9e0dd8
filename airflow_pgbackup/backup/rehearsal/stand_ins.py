"""Stand-ins for the roles that a scratch server lacks. Rehearsals that run at the same time share them.

A rehearsal holds an advisory lock in shared mode as long as it uses stand-ins, so they stay as they are. It creates
those that are missing. To drop stand-ins, or to replace those with other rights than it needs, it takes the lock in
exclusive mode, when no other rehearsal uses any. The server releases the lock of a rehearsal that was killed.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.databases.sessions import Session, fetch_column, fetch_value, session
from airflow_pgbackup.backup.rehearsal.provisioning import create_role, grant_membership
from airflow_pgbackup.errors import ConnectError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.interrupt import interrupt
from airflow_pgbackup.postgres.sql.anybytes import Identifier
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.quantities import human_seconds
from airflow_pgbackup.repository.source_roles import RecordedMembership

if TYPE_CHECKING:
    from typing_extensions import Self

_MARK = "stand-in of airflow-pgbackup, for a rehearsal"
_OLD = "pgbackup_old_"
"""Prefix for a stand-in that could not be dropped and was renamed."""
_KEY = (737262, 0)
_CREATION_KEY = (737262, 1)
_TRY = {True: "pg_try_advisory_lock_shared", False: "pg_try_advisory_lock"}
_LOCK = {True: "pg_advisory_lock_shared", False: "pg_advisory_lock"}
_UNLOCK = {True: "pg_advisory_unlock_shared", False: "pg_advisory_unlock"}
_DROP_TIMEOUT = 1.0  # seconds that DROP ROLE waits for a transaction that uses the role
_INTERVAL = 0.25  # seconds between two interruptions of a statement
_LONGEST = (1 << 31) - 1  # milliseconds, of lock_timeout


@dataclass(frozen=True)
class StandIn:
    """The rights of a stand-in.

    :param member_of: the roles whose privileges it inherits, as far as they have stand-ins.
    """

    superuser: bool = False
    bypass_rls: bool = False
    member_of: frozenset[str] = frozenset()

    @property
    def mark(self) -> str:
        """The comment of the role. Rehearsals share a stand-in if all need one with this comment."""
        rights = f"{self.superuser} {self.bypass_rls} {sorted(self.member_of)}"
        return f"{_MARK} {hashlib.sha256(rights.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"


class StandIns:
    """The stand-ins of one rehearsal, dropped at the end of the ``with`` if no other rehearsal uses any.

    :param params: a superuser's connection to the scratch server.
    :param label: names the server in errors.
    :param timeout: seconds to wait for other rehearsals.
    :param say: takes log lines.
    """

    def __init__(
        self, params: ConnectionParams, *, label: str, timeout: float, cancel: Cancel, say: Callable[[str], None]
    ) -> None:
        self._params = params
        self._label = label
        self._timeout = timeout
        self._cancel = cancel
        self._say = say
        self._ours: dict[str, StandIn] = {}
        self._holder: Session | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        kept = self._holder is None or self._release(self._holder)
        self._stack.close()
        with suppress(ConnectError, psycopg.Error), session(_lock_database(self._params)) as connection:
            if _call(connection, _TRY[False]):
                _drop_all(connection)
        if not kept and (error is None or isinstance(error, VerificationFailed)):
            raise NotProven(
                f"another rehearsal could change the stand-ins for roles on {self._label}: the session that prevents "
                "that ended",
                hint="Rehearse again.",
            ) from error

    def create(self, roles: Mapping[str, StandIn]) -> set[str]:
        """Create stand-ins for roles that the server lacks; wait if other rehearsals use other ones.

        :return: the names of those that we did not have before.
        :raises NotProven: others still used them after the timeout.
        """
        with session(self._params, self._cancel) as connection:
            own = {name for name, mark in _marks(connection).items() if mark is None}
        created = roles.keys() - own - self._ours.keys()
        if created:
            self._ensure({name: roles[name] for name in created})
        return created

    def make_superusers(self, names: Iterable[str]) -> None:
        """Make stand-ins of ours superusers, when no other rehearsal uses them.

        :raises NotProven: others still used them after the timeout.
        """
        self._ensure({name: replace(self._ours[name], superuser=True) for name in names})

    def _ensure(self, changed: Mapping[str, StandIn]) -> None:
        """Add stand-ins to ours, or change their rights, and hold the lock while all of ours exist with their rights.

        :raises NotProven: others still used them after the timeout, or somebody else changed them.
        """
        self._ours |= changed
        if self._holder is None:
            self._holder = self._stack.enter_context(session(_lock_database(self._params), self._cancel))
            if _call(self._holder, _TRY[False]):
                self._replace(self._holder)
            else:
                self._wait(self._holder, "to replace the stand-ins for roles", shared=True)
        if not self._create(self._holder):
            _call(self._holder, _UNLOCK[True])
            self._wait(self._holder, "to end: they use stand-ins for roles with other rights", shared=False)
            self._replace(self._holder)
            if not self._create(self._holder):
                raise NotProven(
                    f"roles on {self._label} were changed while stand-ins were created", hint="Rehearse again."
                )

    def _replace(self, holder: Session) -> None:
        """Drop all stand-ins and create ours, holding the lock in exclusive mode; then hold it in shared mode."""
        _drop_all(holder)
        self._create(holder)
        _call(holder, _LOCK[True])
        _call(holder, _UNLOCK[False])

    def _create(self, holder: Session) -> bool:
        """Create our stand-ins that are missing; return whether all have the rights that we need."""
        with holder.transaction():
            holder.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s, %s)", _CREATION_KEY)
            missing = sorted(self._ours.keys() - _marks(holder).keys())
            for name in missing:
                role = self._ours[name]
                holder.execute(create_role(name, superuser=role.superuser, bypass_rls=role.bypass_rls))
                holder.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(Identifier(name), sql.Literal(role.mark)))
            for name in missing:
                for granted in sorted(self._ours[name].member_of & self._ours.keys()):
                    grant_membership(holder, RecordedMembership(granted, name))
            marks = _marks(holder)
            return all(marks.get(name) == role.mark for name, role in self._ours.items())

    def _wait(self, holder: Session, event: str, *, shared: bool) -> None:
        """Wait for the lock.

        :param event: what the others must do before, for the log.
        """
        if _call(holder, _TRY[shared]):
            return
        others = ", ".join(map(str, fetch_column(holder, _HOLDERS, _KEY)))
        self._say(f"waiting for other rehearsals on {self._label} (server process {others or 'unknown'}) {event}")
        start = time.monotonic()
        _set_lock_timeout(holder, max(self._timeout, 0.001))
        try:
            with _interrupted(holder, self._cancel):
                _call(holder, _LOCK[shared])
        except psycopg.errors.LockNotAvailable:
            names = ", ".join(sorted(self._ours))
            raise NotProven(
                f"after {human_seconds(time.monotonic() - start)}, other rehearsals on {self._label} still use "
                f"stand-ins for roles with other rights than {names} need",
                hint="Create these roles there as they are on the source, or rehearse one backup after the other.",
            ) from None
        _set_lock_timeout(holder, 0)
        self._timeout -= time.monotonic() - start

    def _release(self, holder: Session) -> bool:
        """Release the lock; return whether we held it until now."""
        kept = False
        with suppress(psycopg.Error):
            kept = bool(_call(holder, _UNLOCK[True]))
            # A cancellation may have left us with the exclusive one.
            holder.execute("SELECT pg_catalog.pg_advisory_unlock_all()")
        return kept


_HOLDERS = """
    SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND classid = %s AND objid = %s AND objsubid = 2 AND pid <> pg_catalog.pg_backend_pid()
"""


@contextmanager
def _interrupted(connection: Session, cancel: Cancel) -> Iterator[None]:
    """Interrupt the statement of the block repeatedly while `cancel` is set: it may not have begun at the first
    interrupt."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_INTERVAL):
            if cancel.is_set():
                interrupt(connection)

    watcher = threading.Thread(target=watch, name="interrupt waiting", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _call(connection: Session, function: str) -> object:
    """Call a function of our advisory lock."""
    return fetch_value(connection, sql.SQL("SELECT pg_catalog.{}(%s, %s)").format(sql.Identifier(function)), _KEY)


def _lock_database(params: ConnectionParams) -> ConnectionParams:
    """Return the database for our lock: an advisory lock is one of a database, so it must be the same for all."""
    with session(params) as connection:
        usable = "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = 'postgres' AND datallowconn"
        return params.with_database("postgres") if fetch_value(connection, usable) else params


def _marks(connection: Session) -> dict[str, str | None]:
    """Return the comments of all stand-ins, and None for the server's own roles. One that can log in is its own."""
    rows = connection.execute(
        "SELECT rolname, CASE WHEN NOT rolcanlogin AND pg_catalog.starts_with(comment, %s) THEN comment END FROM "
        "(SELECT *, pg_catalog.shobj_description(oid, 'pg_authid') AS comment FROM pg_catalog.pg_roles) AS roles",
        [_MARK],
    )
    return dict(rows.fetchall())


def _drop_all(connection: Session) -> None:
    """Drop all stand-ins. One that is still used, by what a killed rehearsal left, gets another name."""
    _set_lock_timeout(connection, _DROP_TIMEOUT)
    for name in sorted(name for name, mark in _marks(connection).items() if mark is not None):
        role = Identifier(name)
        try:
            connection.execute(sql.SQL("DROP ROLE {}").format(role))
        except psycopg.errors.UndefinedObject:
            pass
        except (psycopg.errors.DependentObjectsStillExist, psycopg.errors.LockNotAvailable):
            if not name.startswith(_OLD):
                oid = fetch_value(connection, "SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %s", [name])
                with connection.transaction():
                    connection.execute(sql.SQL("ALTER ROLE {} NOSUPERUSER").format(role))
                    connection.execute(sql.SQL("ALTER ROLE {} RENAME TO {}").format(role, Identifier(f"{_OLD}{oid}")))
    _set_lock_timeout(connection, 0)


def _set_lock_timeout(connection: Session, seconds: float) -> None:
    milliseconds = str(min(int(seconds * 1000), _LONGEST))
    connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", [milliseconds])
