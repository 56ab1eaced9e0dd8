"""The kinds of things in a sound database that a restore of tomorrow would stumble over: one table, for code and docs.

:mod:`.check_restorability` looks for them; ``docs/restorability.md`` is made from this; the tests run every example,
see that it is found, and that it is not any more once mended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.findings import WARNING, Database, Finding, Findings, named


@dataclass(frozen=True)
class Kind:
    """One kind of thing.

    :ivar code: as in :class:`.findings.Finding`.
    :ivar severity: ``error``: a restore fails or loses something for certain; ``warning``: it does so under conditions
        that the catalogs alone do not show.
    :ivar found: what was found; ``{}`` stands for the objects.
    :ivar at_restore: what happens then.
    :ivar mend: what to do, with the statement; ``{}`` as there.
    :ivar example: SQL that makes it; "" where that takes more than SQL.
    :ivar mended: SQL after which the example is not found any more.
    :ivar objects: of the finding, in the example.
    """

    code: str
    severity: str
    found: str
    at_restore: str
    mend: str
    example: str = ""
    mended: str = ""
    objects: tuple[str, ...] = ()


def report(where: Database | Findings, code: str, objects: Sequence[str], *, found: str = "", mend: str = "") -> None:
    """Take down a finding of a kind, if there are any objects.

    :param where: a database; or the findings, for what is about the whole server.
    :param found, mend: instead of the kind's own, where they say more.
    """
    if not objects:
        return
    kind = KINDS[code]
    about = f"{where.where}: " if isinstance(where, Database) else ""
    list_ = named(objects)
    finding = Finding(
        kind.severity,
        kind.code,
        f"{about}{found or kind.found.format(list_)}: {kind.at_restore}",
        mend or kind.mend.format(list_),
        tuple(objects),
        where.name if isinstance(where, Database) else None,
    )
    (where.findings if isinstance(where, Database) else where).add(finding)


_ALL = (
    Kind(
        "encoding",
        WARNING,
        found="{} is not valid in every encoding",
        at_restore="bytes are restored as they are into SQL_ASCII only; a database in UTF8 refuses them",
        mend="Convert the database: dump it with encoding set to what its text really is, and restore that into UTF8; "
        "rename roles and databases whose names are not UTF-8.",
        example="CREATE DATABASE old ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0;",
        objects=("old",),
    ),
)
KINDS = {kind.code: kind for kind in _ALL}
