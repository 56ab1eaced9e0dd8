"""Drop the temporary databases of a worker that was killed: ``python -I -S _drop_guard.py ORDER``, run as a script.

For the protocol see :mod:`airflow_pgbackup.supervision`. ORDER has ``path``, where Python finds modules, and ``token``,
with which the names of the databases begin. The first message is how to connect. Others replace it, as its password may
expire. The message "done" ends the guard; if the worker closes the pipe or dies without it, the guard drops the
databases.
"""

import os
import sys
import time

# At the end, so that no module of this package hides one of the standard library.
sys.path.append(os.path.abspath(f"{__file__}/../../../.."))  # noqa: PTH100

from airflow_pgbackup import supervision

SECONDS = 60.0
PAUSE = 0.5


def main() -> None:
    supervision.ignore_signals()
    worker = supervision.Worker()
    worker.watch()
    connection = message = worker.receive()
    while isinstance(message, dict):
        connection, message = message, worker.receive()
    if connection is None or message is not None:
        return
    sys.path[:] = worker.order["path"]
    from airflow_pgbackup.backup.databases.temporary_database import drop_by_token
    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

    params = ConnectionParams(**connection)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            # The worker's last statement can still be running: CREATE DATABASE does not notice a lost client.
            if drop_by_token(params, worker.order["token"]):
                return
        except Exception:  # noqa: BLE001, S110  no one reads a message; the next restore drops them
            pass
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
