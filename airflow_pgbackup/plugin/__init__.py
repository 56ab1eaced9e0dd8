"""The "Backups" page in Airflow's UI: an entry of its navigation, and the app behind it.

Every Airflow process imports this module, so the app itself is imported with its first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_pgbackup.links import PAGE_PREFIX, PAGE_ROUTE

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _LazyApp:
    """Import the app with the first request, in a thread: that takes a second, and Airflow answers others meanwhile."""

    _app: Callable[[_Scope, _Receive, _Send], Awaitable[None]] | None = None

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if self._app is None:
            self._app = await asyncio.to_thread(_import_app)
        await self._app(scope, receive, send)


def _import_app() -> Callable[[_Scope, _Receive, _Send], Awaitable[None]]:
    from airflow_pgbackup.plugin.app import app

    return app()


class BackupsPlugin(AirflowPlugin):
    """What Airflow registers; see "Plugins" and "External views" in Airflow's documentation."""

    name = "pgbackup"
    fastapi_apps = [{"name": "pgbackup", "app": _LazyApp(), "url_prefix": PAGE_PREFIX}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Backups",
            "href": f"{PAGE_PREFIX[1:]}/",  # relative to Airflow's base URL
            "destination": "nav",
            "nav_top_level": True,
            "url_route": PAGE_ROUTE,
            "icon": f"{PAGE_PREFIX[1:]}/static/icon-light.svg",
            "icon_dark_mode": f"{PAGE_PREFIX[1:]}/static/icon-dark.svg",
        }
    ]
