"""Drop the temporary databases of a process that was killed: run as a script, never imported.

The first line of stdin is a JSON object: the module search path, the connection, the token in the databases' names.
Then the script waits: ``done`` on stdin means that the parent has dropped them; the end of stdin without it means that
the parent was killed.
"""

import json
import signal
import sys
import time

SECONDS = 60.0
PAUSE = 0.5


def main() -> None:
    # Signals to the process group or from a service manager are meant for the parent; its end is what we wait for.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    order = json.loads(sys.stdin.readline())
    if sys.stdin.read().strip() == "done":
        return
    sys.path[:] = order["path"]
    from airflow_pgbackup.backup.databases.temporary_database import drop_by_token
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

    params = ConnectionParams(keywords=order["keywords"], password=order["password"])
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            # The parent's last statement may still run: CREATE DATABASE does not notice that its client is gone.
            if drop_by_token(params, order["token"]):
                return
        except Exception:  # noqa: BLE001, S110  no one reads a message; the next restore drops them
            pass
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
