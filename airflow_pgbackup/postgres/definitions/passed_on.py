"""Find the grants in a dump whose grantor is not the owner, but a role with the grant option.

buildACLCommands() of PostgreSQL writes them between ``SET SESSION AUTHORIZATION role;`` and ``RESET SESSION
AUTHORIZATION;``. Nothing of their text is run: they are rewritten from the names in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, quoted, unquoted

_PRIVILEGE = "(?:ALTER SYSTEM|CONNECT|CREATE|SET|TEMPORARY)"
_GRANT = re.compile(
    rf"GRANT (ALL|{_PRIVILEGE}(?:,{_PRIVILEGE})*) ON (DATABASE|PARAMETER|TABLESPACE) ({IDENTIFIER}) "
    rf"TO (PUBLIC|{IDENTIFIER})( WITH GRANT OPTION)?;"
)
# PostgreSQL does not report that a role made only a part of a GRANT ALL, so ALL is written out.
_ALL = {"DATABASE": "CREATE,TEMPORARY,CONNECT", "PARAMETER": "SET,ALTER SYSTEM", "TABLESPACE": "CREATE"}
_BEGIN = re.compile(rf"SET SESSION AUTHORIZATION ({IDENTIFIER});")
_END = "RESET SESSION AUTHORIZATION;"


@dataclass(frozen=True)
class PassedOnGrant:
    """A grant, and the role that made it.

    :param statement: the GRANT, written by :func:`rewritten_grant`.
    """

    grantor: str
    statement: str


class GrantorScope:
    """Follow the statements of a dump, to find the grants of other roles."""

    def __init__(self) -> None:
        self._role = ""
        self._first: int | None = None

    def leave(self) -> None:
        """Forget a ``SET SESSION AUTHORIZATION``: something else than a grant follows it."""
        self._role, self._first = "", None

    def follow(self, statement: str, position: int) -> tuple[str, int] | None:
        """Take the next statement.

        :param position: of the statement in the caller's list.
        :return: if it ends the grants of a role: the role, and the position of its first grant.
        """
        role, first = self._role, self._first
        self.leave()
        if match := _BEGIN.fullmatch(statement):
            self._role = unquoted(match[1])
        elif role and _GRANT.fullmatch(statement):
            self._role, self._first = role, position if first is None else first
        elif statement == _END and first is not None:
            return role, first
        return None


def rewritten_grant(statement: str) -> str:
    """Return a grant on a database, tablespace or parameter with every name quoted, and ALL written out.

    :raises ValueError: the statement is not one in the form in which pg_dump and pg_dumpall write it.
    """
    match = _GRANT.fullmatch(statement)
    if match is None:
        raise ValueError("not a grant on a database, tablespace or parameter")
    privileges, kind, name, grantee, option = match.groups("")
    privileges = _ALL[kind] if privileges == "ALL" else privileges
    to = grantee if grantee == "PUBLIC" else quoted(unquoted(grantee))
    return f"GRANT {privileges} ON {kind} {quoted(unquoted(name))} TO {to}{option};"


def with_grantors(statements: Iterable[str]) -> list[str | PassedOnGrant]:
    """Return the statements of a script, in which each grant by another role than the owner is a
    :class:`PassedOnGrant`."""
    scope = GrantorScope()
    found: list[str | PassedOnGrant] = []
    for statement in statements:
        if ended := scope.follow(statement, len(found)):
            role, first = ended
            found[first:] = [PassedOnGrant(role, rewritten_grant(str(grant))) for grant in found[first:]]
        found.append(statement)
    return found
