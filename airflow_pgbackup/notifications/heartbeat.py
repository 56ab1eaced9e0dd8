"""HeartbeatNotifier: tell a monitor outside Airflow that a task or run started, succeeded or failed.

A monitor that misses the heartbeat raises the alarm, also when Airflow itself has stopped.
"""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from airflow.sdk import BaseNotifier

from airflow_pgbackup.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["HeartbeatNotifier"]

TIMEOUT = 10
"""Seconds that a heartbeat may take, from the look-up of its host to the answer."""

_SHORTEST_SECRET = 16
"""Characters of a part of the URL that is masked by itself; shorter ones are words, which other log lines have too."""

_SUFFIXES = {"start": "/start", "success": "", "failure": "/fail"}


class HeartbeatNotifier(BaseNotifier):
    """Request the URL of a heartbeat, by the convention of healthchecks.io: the URL itself for a success, ``/start``
    and ``/fail`` appended to its path for the others.

    Use it as ``on_execute_callback``, ``on_success_callback`` and ``on_failure_callback``. It sends a GET without a
    body, follows no redirect, and never fails its task: an error is only a warning in the log.

    :param conn_id: a connection whose *password* is the URL, because anyone who knows the URL can send heartbeats. It
        must begin with ``https://``.
    :param event: ``start``, ``success`` or ``failure``.
    :raises ConfigurationError: another event.
    """

    def __init__(self, conn_id: str, event: str = "success", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if event not in _SUFFIXES:
            raise ConfigurationError(f"invalid event {event!r}", hint=f"Choose one of {', '.join(_SUFFIXES)}.")
        self.conn_id = conn_id
        self.event = event

    def notify(self, context: Context) -> None:
        try:
            problem = self._send()
        except Exception as error:  # noqa: BLE001  # a monitor must not decide about a backup
            problem = type(error).__name__  # its message might quote the URL
        if problem:
            self.log.warning("heartbeat %s of connection %s was not sent: %s", self.event, self.conn_id, problem)

    def _send(self) -> str | None:
        """Send the heartbeat; return what went wrong."""
        from airflow.sdk import BaseHook
        from airflow.sdk.log import mask_secret

        url = BaseHook.get_connection(self.conn_id).password or ""
        parts = urlsplit(url)
        for secret in (url, parts.path, *parts.path.split("/"), parts.query):
            if len(secret) >= _SHORTEST_SECRET:
                mask_secret(secret)
        if parts.scheme != "https" or not parts.hostname:
            return "the connection's password is not an https:// URL"
        url = parts._replace(path=parts.path.rstrip("/") + _SUFFIXES[self.event], fragment="").geturl()
        found: list[str | None] = []
        # The timeout of a socket bounds neither the look-up of the name nor an answer that trickles.
        thread = threading.Thread(target=lambda: found.append(_get(url)), daemon=True)
        thread.start()
        thread.join(TIMEOUT)
        return found[0] if found else f"no answer within {TIMEOUT} s"


class _NoRedirect(HTTPRedirectHandler):
    """A redirect could lead to plain HTTP, with the secret in it."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _get(url: str) -> str | None:
    opener = build_opener(ProxyHandler(), _NoRedirect(), HTTPSHandler(context=ssl.create_default_context()))
    try:
        with opener.open(Request(url, headers={"User-Agent": "airflow-pgbackup"}), timeout=TIMEOUT):  # noqa: S310
            return None
    except HTTPError as error:
        return f"the server answered {error.code}"
    except URLError as error:
        # Never a message: some quote the URL.
        return f"no connection ({type(error.reason).__name__})"
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
