"""How far a standby is behind its primary.

Sources: "Recovery Information Functions" and ``pg_stat_wal_receiver`` in PostgreSQL's manual. A user without
``pg_read_all_stats`` sees that a WAL receiver runs, but not the primary's position.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_pgbackup.errors import ConnectError, ReplayLagError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.wording import parameter

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# latest_end_lsn is the end of WAL on the primary as of its last message, which comes with WAL, or as a keepalive.
_REPLAY: LiteralString = """
select (select count(*) > 0 from pg_catalog.pg_stat_wal_receiver),
       pg_catalog.pg_wal_lsn_diff(
           greatest(pg_catalog.pg_last_wal_receive_lsn(), (select latest_end_lsn from pg_catalog.pg_stat_wal_receiver)),
           pg_catalog.pg_last_wal_replay_lsn())::int8,
       extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8
"""

_RECEIVED: LiteralString = "select pg_catalog.pg_last_wal_receive_lsn()::text"
_REPLAYED: LiteralString = "select pg_catalog.pg_last_wal_replay_lsn() >= %s::pg_lsn"
_POLL = 0.2  # seconds


@dataclass(frozen=True)
class Replay:
    """The replay of a standby.

    :param lag_bytes: WAL that the primary has written, as far as the standby knows, and the standby has not replayed;
        None if it knows nothing, like one that reads only archived WAL.
    :param lag_seconds: age of the data. It is 0 if all WAL is replayed while the WAL receiver is connected, however
        long ago the primary last wrote; else the time since the last replayed transaction; None if none was replayed.
    :param reported: False if the server has no functions that report its replay, like Amazon Aurora, whose readers
        share the writer's storage.
    """

    lag_bytes: int | None
    lag_seconds: float | None
    reported: bool = True

    def __str__(self) -> str:
        lag = "unknown" if self.lag_seconds is None else f"{self.lag_seconds:.1f} s"
        return lag if self.lag_bytes is None else f"{lag}, {self.lag_bytes:,} bytes"

    def require_at_most(self, max_replay_lag: float, label: str) -> None:
        """Check the lag.

        :param max_replay_lag: in seconds.
        :param label: the connection's name.
        :raises ReplayLagError: the lag is longer, or unknown.
        """
        if not self.reported:
            raise ReplayLagError(
                f"the replay lag of {label} is unknown: this server does not report it",
                hint=f"Omit {parameter('max_replay_lag')} for this server, or dump from the primary. Amazon Aurora "
                "reports the lag of its readers in CloudWatch (AuroraReplicaLag).",
            )
        if self.lag_seconds is None:
            raise ReplayLagError(
                f"the replay lag of {label} is unknown: this standby has replayed no transaction since its start",
                hint="Retry later. If it stays unknown, check primary_conninfo and the log of the standby.",
            )
        if self.lag_seconds > max_replay_lag:
            raise ReplayLagError(
                f"{label} is a standby with a replay lag of {self}, more than "
                f"{parameter('max_replay_lag')} = {max_replay_lag:g} s",
                hint="Retry when the standby has caught up (see pg_stat_wal_receiver there), or dump from the primary.",
            )


def read_replay(session: psycopg.Connection[Any]) -> Replay:
    """Query the replay of a standby.

    :param session: if it is in a transaction, that is aborted where the server does not report its replay.
    :raises psycopg.Error: the query failed.
    """
    try:
        row = session.execute(_REPLAY).fetchone()
    except psycopg.errors.FeatureNotSupported:  # Aurora: "Function … is currently not supported for Aurora"
        return Replay(None, None, reported=False)
    assert row is not None  # noqa: S101  a select without FROM has one row
    return replay_of(*row)


def await_received(connection: ConnectionParams, cancel: Cancel, at_most: float = 60) -> None:
    """Wait until a standby has replayed all WAL that it has received by now.

    A dump that begins in the middle of the WAL that canceled the one before may be canceled by the rest of it. Each
    query has a connection of its own, since replay cancels sessions that wait. A standby that cannot be asked is not
    waited for: the dump that follows says why.

    :param at_most: in seconds; replay may be paused.
    :raises Canceled: the flag is set.
    """
    end = time.monotonic() + at_most
    with contextlib.suppress(ConnectError, psycopg.Error):
        received = _ask(connection, _RECEIVED)
        while received is not None and not _ask(connection, _REPLAYED, received) and time.monotonic() < end:
            cancel.check()
            time.sleep(_POLL)


def _ask(connection: ConnectionParams, query: LiteralString, *values: str) -> Any:
    with connection.open_session() as session:
        row = session.execute(query, values).fetchone()
    return row and row[0]


def replay_of(receiving: bool, lag_bytes: int | None, since_last: float | None) -> Replay:
    """Return the lag from what the server reports.

    :param receiving: a WAL receiver runs.
    :param since_last: seconds since the last replayed transaction was committed on the primary.
    """
    if lag_bytes is not None:
        lag_bytes = max(lag_bytes, 0)
    if receiving and lag_bytes == 0:
        return Replay(0, 0.0)
    return Replay(lag_bytes, None if since_last is None else round(max(since_last, 0.0), 3))
