"""Which release of PostgreSQL has which feature: one predicate per feature, with its source.

The classes in :mod:`airflow_pgbackup.postgres.options` keep the releases of each command-line option.
"""

from __future__ import annotations

from collections.abc import Sequence

Version = tuple[int, int]
"""Major and minor version, ``(18, 4)``."""

OLDEST_MAJOR = 15
"""The oldest major version of clients and servers that this package supports."""

NEWEST_MAJOR = 18
"""The newest major version whose options and output this package knows; newer clients are asked by ``--help``."""

RESTRICT_SINCE: tuple[Version, ...] = ((15, 14), (16, 10), (17, 6), (18, 0))
"""psql's ``\\restrict`` and the option ``--restrict-key``: the fix of CVE-2025-8714 went to every branch.

https://www.postgresql.org/support/security/CVE-2025-8714/
"""


def is_since(version: Version, releases: Sequence[Version]) -> bool:
    """Return whether a version has what came with these releases.

    :param releases: the first release of each major version, oldest first. Every later major version has it too.
    """
    same_major = [first for first in releases if first[0] == version[0]]
    return version >= (same_major or releases)[-1]


def since_text(releases: Sequence[Version]) -> str:
    """Return the releases for a message: ``15.14, 16.10, 17.6, 18 or newer``."""
    return f"{', '.join(str(major) if minor == 0 else f'{major}.{minor}' for major, minor in releases)} or newer"


def has_restrict(version: Version) -> bool:
    """Return whether this release's psql knows ``\\restrict``."""
    return is_since(version, RESTRICT_SINCE)


def sets_transaction_timeout(client_major: int) -> bool:
    """Return whether the scripts of this pg_dump, pg_dumpall and pg_restore begin with ``SET transaction_timeout``.

    _doSetFixedOutputState() in src/bin/pg_dump/pg_backup_archiver.c, since version 17.
    """
    return client_major >= 17


def has_transaction_timeout(server_major: int) -> bool:
    """Return whether the server knows ``transaction_timeout``. https://www.postgresql.org/docs/17/release-17.html"""
    return server_major >= 17


def runs_scripts_of(server_major: int, client_major: int) -> bool:
    """Return whether the server knows every parameter that the scripts of this client set."""
    return has_transaction_timeout(server_major) or not sets_transaction_timeout(client_major)


def loads_enums_through_root(version: Version) -> bool:
    """Return whether pg_dump loads partitions through their root table if the hash of an enum distributes the rows.

    https://www.postgresql.org/docs/release/15.3/
    """
    return version >= (15, 3)


def has_compression_methods(client_major: int) -> bool:
    """Return whether ``pg_dump --compress`` takes ``METHOD[:DETAIL]``; before, it takes a gzip level only.

    https://www.postgresql.org/docs/16/release-16.html
    """
    return client_major >= 16


def has_checksums_by_default(server_major: int) -> bool:
    """Return whether initdb enables data checksums, and has ``--no-data-checksums``.

    https://www.postgresql.org/docs/18/release-18.html
    """
    return server_major >= 18


def has_initdb_settings(server_major: int) -> bool:
    """Return whether initdb has ``-c name=value``: https://www.postgresql.org/docs/16/release-16.html"""
    return server_major >= 16


def has_login_triggers(server_major: int) -> bool:
    """Return whether the server has event triggers for logins, and the parameter ``event_triggers``.

    https://www.postgresql.org/docs/17/event-trigger-definition.html
    """
    return server_major >= 17


def has_drop_database_force(server_major: int) -> bool:
    """Return whether the server has ``DROP DATABASE … WITH (FORCE)``.

    https://www.postgresql.org/docs/13/sql-dropdatabase.html
    """
    return server_major >= 13


def lock_table_privileges(server_major: int) -> str:
    """Return the table privileges any of which allows ``LOCK TABLE … IN ACCESS SHARE MODE``, as pg_dump does it.

    https://www.postgresql.org/docs/16/release-16.html, "LOCK TABLE".

    :return: as has_table_privilege() takes them, separated by commas.
    """
    return "select, update, delete, truncate" if server_major >= 16 else "select"
