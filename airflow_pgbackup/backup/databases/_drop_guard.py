"""Drops the temporary databases of a process that was killed: run as a script, never imported.

The first line of stdin is the order: where Python's modules are, how to connect, how the databases' names begin. Then
it waits. ``done`` on stdin is the end; the end of stdin without that means that whoever started us is gone.
"""

import json
import signal
import sys
import time

SECONDS = 60.0
PAUSE = 0.5


def main() -> None:
    # What is sent to a group or by a service manager is for the one who started us; his end is what we wait for.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    order = json.loads(sys.stdin.readline())
    if sys.stdin.read().strip() == "done":
        return
    sys.path[:] = order["path"]
    from airflow_pgbackup.backup.databases.temporary_database import drop_left
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

    params = ConnectionParams(keywords=order["keywords"], password=order["password"])
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            # Its last statement may still run: a CREATE DATABASE does not notice that nobody waits for it.
            if drop_left(params, order["token"]):
                return
        except Exception:  # noqa: BLE001, S110  nobody is left to tell; the next restore sweeps
            pass
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
