"""What a manifest says about the roles of the dumped server: attributes and memberships, which no dump contains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from airflow_pgbackup.repository.json_document import Content

MAX_LISTED = 10_000
"""The most entries in each list, also in the manifest's schema."""

_MAX_BYTES = 63  # NAMEDATALEN - 1
_RESERVED = ("public", "none")


@dataclass(frozen=True)
class RecordedMembership:
    """A role whose privileges `member` inherits."""

    role: str
    member: str


@dataclass(frozen=True, kw_only=True)
class SourceRoles:
    """The rights of the roles that own objects of a dumped database, as far as a restore needs them.

    :param superusers: those that are superusers.
    :param bypass_rls: those that have BYPASSRLS.
    :param memberships: whose privileges they inherit, directly and indirectly.
    """

    superusers: tuple[str, ...] = ()
    bypass_rls: tuple[str, ...] = ()
    memberships: tuple[RecordedMembership, ...] = ()

    @classmethod
    def decode(cls, content: Content) -> SourceRoles:
        return cls(
            superusers=tuple(content["superusers"]),
            bypass_rls=tuple(content["bypass_rls"]),
            memberships=tuple(RecordedMembership(each["role"], each["member"]) for each in content["memberships"]),
        )

    @property
    def valid(self) -> bool:
        """Whether each list is bounded, and each name can be the name of a role."""
        lists = (self.superusers, self.bypass_rls, self.memberships)
        members = (name for each in self.memberships for name in (each.role, each.member))
        names = (*self.superusers, *self.bypass_rls, *members)
        return all(len(each) <= MAX_LISTED for each in lists) and all(map(_is_role_name, names))

    def with_inherited(self, names: Iterable[str]) -> set[str]:
        """Return roles together with all whose privileges they inherit."""
        found, pending = set[str](), set(names)
        while pending:
            found.add(name := pending.pop())
            pending |= self.granted_to(name) - found
        return found

    def granted_to(self, name: str) -> frozenset[str]:
        """Return the roles whose privileges a role inherits directly."""
        return self._granted.get(name, frozenset())

    @cached_property
    def _granted(self) -> dict[str, frozenset[str]]:
        granted: dict[str, set[str]] = {}
        for each in self.memberships:
            granted.setdefault(each.member, set()).add(each.role)
        return {member: frozenset(roles) for member, roles in granted.items()}


def _is_role_name(name: str) -> bool:
    try:
        size = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False
    return 0 < size <= _MAX_BYTES and "\0" not in name and name not in _RESERVED
