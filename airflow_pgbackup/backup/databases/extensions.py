"""Extensions whose version differs between a backup and a server.

A dump says CREATE EXTENSION without a version: a restore makes the one that is the default of its server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_INSTALLED = "SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY 1"
_AVAILABLE = "SELECT name, coalesce(default_version, '') FROM pg_catalog.pg_available_extensions"


def installed_versions(session: psycopg.Connection[Any]) -> dict[str, str]:
    """The extensions of the database that the session is in, and their versions.

    :raises psycopg.Error: as PostgreSQL says.
    """
    return _versions(session, _INSTALLED)


def available_versions(session: psycopg.Connection[Any]) -> dict[str, str]:
    """The extensions that the server could create, and the version that it would; '' where that has no default.

    :raises psycopg.Error: as PostgreSQL says.
    """
    return _versions(session, _AVAILABLE)


def version_differences(
    recorded: Mapping[str, str] | None, here: Mapping[str, str], *, names: Collection[str] | None = None
) -> list[str]:
    """A line for each extension that has another version here.

    :param recorded: by the backup's manifest; None: not recorded.
    :param names: only these; None: all.
    """
    return [
        f"extension {name}: {version} in the backup, {here[name]} here"
        for name, version in sorted((recorded or {}).items())
        if here.get(name, "") not in ("", version) and (names is None or name in names)
    ]


def _versions(session: psycopg.Connection[Any], query: LiteralString) -> dict[str, str]:
    return {str(name): str(version) for name, version in session.execute(query)}
