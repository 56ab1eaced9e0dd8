"""Order the memberships of a pg_dumpall script as PostgreSQL 16 and newer accept them.

There, the grantor of a membership must have the ADMIN option on the role already. pg_dumpall of PostgreSQL 15 and older
sorts memberships by name (``dumpRoleMembership`` in ``pg_dumpall.c``), as the server did not check the grantor.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, unquoted

_MEMBERSHIP = re.compile(
    rf"(GRANT (?P<role>{IDENTIFIER}) TO (?P<member>{IDENTIFIER})(?P<how> WITH .*?)?)"
    rf"(?: GRANTED BY (?P<by>{IDENTIFIER}))?;"
)


@dataclass(frozen=True)
class Membership:
    """A GRANT of a role.

    :param how: its options, with `` WITH ``; empty if it has none.
    :param grantor: empty if the statement does not name it.
    """

    statement: str
    role: str
    member: str
    how: str
    grantor: str
    without_grantor: str

    @classmethod
    def parse(cls, statement: str) -> Membership | None:
        """Return the membership that a statement grants; None for other statements."""
        if not (match := _MEMBERSHIP.fullmatch(statement)):
            return None
        role, member, by = (unquoted(match[name] or "") for name in ("role", "member", "by"))
        return cls(statement, role, member, match["how"] or "", by, f"{match[1]};")

    @property
    def admin(self) -> bool:
        """The member may grant the role."""
        return "ADMIN OPTION" in self.how or "ADMIN TRUE" in self.how


def in_order_of_grantors(
    statements: Iterable[str], *, admins: Collection[tuple[str, str]] = (), free: Collection[str] = ()
) -> list[str]:
    """Return memberships, each after that which lets its grantor grant it.

    Where grantors depend on each other in a circle, one statement loses its GRANTED BY.

    :param statements: each is a membership.
    :param admins: roles, each with a member that has the ADMIN option already.
    :param free: grantors that need no ADMIN option: the bootstrap superuser.
    """
    may_grant = set(admins)
    waiting: dict[tuple[str, str], deque[Membership]] = {}
    ordered: list[str] = []

    def grant(first: Membership, text: str) -> None:
        ready = deque([(first, text)])
        while ready:
            each, text = ready.popleft()
            ordered.append(text)
            if each.admin:
                may_grant.add((each.role, each.member))
                ready += [(one, one.statement) for one in waiting.pop((each.role, each.member), ())]

    for each in filter(None, map(Membership.parse, statements)):
        pair = (each.role, each.grantor)
        if not each.grantor or each.grantor in free or pair in may_grant:
            grant(each, each.statement)
        else:
            waiting.setdefault(pair, deque()).append(each)
    while waiting:
        pair = next(iter(waiting))
        first = waiting[pair].popleft()
        if not waiting[pair]:
            del waiting[pair]
        grant(first, first.without_grantor)
    return ordered
