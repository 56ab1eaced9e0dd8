"""Log which session or prepared transaction holds the lock that a dump waits for.

pg_dump locks its tables before it writes anything. While it waits for DDL, it logs nothing; then it fails with a
timeout. Each query uses a short session of its own, so it does not occupy a connection of the dump's role for long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

if TYPE_CHECKING:
    from typing_extensions import LiteralString

INTERVAL = 5.0
"""Seconds between two looks, and before the first: shorter waits are of no interest."""

_PROGRAMS = ("pg_dump", "pg_dumpall")
_MARGIN = 5.0  # seconds between this process and the start of the dump's session
_QUERY_LENGTH = 60

# A role that is neither superuser nor in pg_read_all_stats sees less of other roles' sessions. For a prepared
# transaction, which has no session, pg_blocking_pids() returns 0; its lock on its own id leads to its name.
_HOLDERS: LiteralString = """
select distinct h.pid, h.usename, h.application_name, h.state,
       pg_catalog.to_char(coalesce(h.xact_start, p.prepared) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
       pg_catalog.left(h.query, %(length)s), l.relation, pg_catalog.quote_literal(p.gid), p.owner
  from pg_catalog.pg_stat_activity w
  cross join pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) b(pid)
  left join lateral (
    select l.relation as oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as relation
      from pg_catalog.pg_locks l
      join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
      join pg_catalog.pg_class c on c.oid = l.relation
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where l.pid = w.pid and not l.granted limit 1
  ) l on true
  left join pg_catalog.pg_stat_activity h on h.pid = b.pid
  left join lateral (
    select p.* from pg_catalog.pg_locks held
      join pg_catalog.pg_locks x on x.pid is null and x.virtualtransaction = held.virtualtransaction
      join pg_catalog.pg_prepared_xacts p on p.transaction = x.transactionid
     where b.pid = 0 and held.pid is null and held.relation = l.oid and held.mode = 'AccessExclusiveLock'
       and p.database = pg_catalog.current_database()
  ) p on true
 where w.wait_event_type = 'Lock' and w.usename = current_user and w.application_name = any (%(programs)s)
   and w.backend_start >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(age)s)
   and (h.pid is not null or p.gid is not null)
 order by h.pid
"""


class LockWatch:
    """Watch a dump for the length of a ``with``.

    :param connection: that of the dump.
    :param still_locking: returns whether the dump may still wait for a lock; when it returns False, the watch ends.
    :ivar holder: the last line that was logged, without its beginning; None if the dump waited for nobody.
    """

    def __init__(self, connection: ConnectionParams, context: RunContext, still_locking: Callable[[], bool]) -> None:
        self.holder: str | None = None
        self._connection = connection
        self._context = context
        self._still_locking = still_locking
        self._programs = [connection.keywords.get("application_name", ""), *_PROGRAMS]
        self._begin = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pgbackup-locks", daemon=True)

    def __enter__(self) -> LockWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(1.0)  # a connection that hangs holds nothing up

    def _watch(self) -> None:
        while not self._end.wait(INTERVAL) and self._still_locking():
            try:
                holder = self._look()
            except (PgBackupError, psycopg.Error):
                continue  # the server may have no room for a session now; the dump's own reports what is wrong
            if holder and holder != self.holder and not self._end.is_set():
                self.holder = holder
                self._context.log(f"waiting for a lock{holder}")

    def _look(self) -> str | None:
        values = {
            "length": _QUERY_LENGTH,
            "programs": self._programs,
            "age": time.monotonic() - self._begin + _MARGIN,
        }
        with self._connection.open_session() as session:
            found = session.execute(_HOLDERS, values).fetchone()
        if found is None:
            return None
        pid, user, application, state, since, query, relation, prepared, owner = found
        what = f" on {relation}" if relation else ""
        if prepared:
            gid = " ".join(str(prepared).split())
            return f"{what} held by the prepared transaction {gid} of user {owner}, prepared {since} UTC"
        parts = [f"pid {pid}", f"user {user or 'unknown'}"]
        if application:
            parts.append(f"application {application}")
        parts.append(f"in a transaction since {since} UTC" if since else "since an unknown time")
        if state:
            parts.append(str(state))
        if query and self._context.settings.lock_holder_query == "show":
            parts.append(f"query {' '.join(str(query).split())}")
        return f"{what} held by {', '.join(parts)}"
