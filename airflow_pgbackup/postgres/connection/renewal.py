"""Renew a short-lived password while a process runs that has its own copy of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams

log = logging.getLogger(__name__)

_RETRY_SECONDS = 30.0  # after a renewal that failed: the old password is valid for a few minutes more


@contextmanager
def renewed_password(
    params: ConnectionParams, take: Callable[[str], None], *, needed: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Call `take` with a new password every ``params.renew_every`` seconds, in a thread, while the ``with`` lasts.

    :param take: not called after the end. If it fails, as if no password can be had, the log says so.
    :param needed: False ends the renewal.
    """
    every = params.renew_every
    if not every:
        yield
        return
    ended = threading.Event()
    taking = threading.Lock()

    def renew() -> None:
        pause = every
        while not ended.wait(pause) and needed():
            try:
                password = _new_password(params)
                with taking:
                    if not ended.is_set():
                        take(password)
                pause = every
            except Exception as error:  # noqa: BLE001  the old password may still work; if not, its user reports it
                log.warning("could not renew the password of %s: %s", params.label, type(error).__name__)
                pause = min(every, _RETRY_SECONDS)

    threading.Thread(target=renew, name="renew password", daemon=True).start()
    try:
        yield
    finally:
        with taking:  # waits until a password was taken, but not for a slow token service
            ended.set()


def _new_password(params: ConnectionParams) -> str:
    password = params.get_password()
    if password is None:
        raise ValueError("no password")
    return password
