"""How a dump creates schema ``public``, which every new database has already.

pg_dump selects ``public`` with ``--schema``, and then writes ``CREATE SCHEMA public``. But it writes only those
privileges that differ from the ones of initdb, which a schema has only if initdb created it.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_WITHOUT = 15  # pg_dump 14 and older write all privileges of a schema public that they drop first (--clean)


@dataclass(frozen=True)
class PublicSchema:
    """How a dump creates schema public.

    :param owner: its owner then; None is the user of the connection.
    :param anew: the dump drops the schema first, and grants all privileges on the new one.
    """

    owner: str | None = None
    anew: bool = False


def drops_with_privileges(drops: bool, dumped_by: int) -> bool:
    """Return whether a dump that creates schema public replaces it, and grants all privileges on it.

    :param drops: it has DROP SCHEMA public.
    :param dumped_by: major version of pg_dump.
    """
    return drops and dumped_by < _FIRST_WITHOUT
