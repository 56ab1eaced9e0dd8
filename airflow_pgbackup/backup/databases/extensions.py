"""Extensions: versions that differ between a backup and a server, and the settings that some of them need.

A dump has CREATE EXTENSION without a version, so a restore creates the default version of the target server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from typing_extensions import LiteralString

DATABASE_SETTINGS = {"pg_cron": "cron.database_name", "pg_net": "pg_net.database_name"}
"""Extensions that can be created in one database of a server only, with the setting that names it."""

_INSTALLED = "SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY 1"
_AVAILABLE = "SELECT name, coalesce(default_version, '') FROM pg_catalog.pg_available_extensions"


def installed_versions(session: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the extensions of the session's database with their versions.

    :raises psycopg.Error: the query failed.
    """
    return _versions(session, _INSTALLED)


def available_versions(session: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the extensions that the server can create with their default versions; '' if there is no default.

    :raises psycopg.Error: the query failed.
    """
    return _versions(session, _AVAILABLE)


def version_differences(
    recorded: Mapping[str, str] | None, here: Mapping[str, str], *, names: Collection[str] | None = None
) -> list[str]:
    """Return a line for each extension whose version differs.

    :param recorded: the versions in the backup's manifest; None if it has none.
    :param here: the versions of the server, '' where unknown.
    :param names: the extensions to compare; None compares all.
    """
    return [
        f"extension {name}: version {version} in the backup, {here[name]} on the server"
        for name, version in sorted((recorded or {}).items())
        if here.get(name, "") not in ("", version) and (names is None or name in names)
    ]


def _versions(session: psycopg.Connection[Any], query: LiteralString) -> dict[str, str]:
    return {str(name): str(version) for name, version in session.execute(query)}
