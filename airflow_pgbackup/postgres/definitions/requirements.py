"""The requirements of a dump on the target server: roles, extensions, tablespaces, locks.

A restore checks them before it starts, rather than fail after hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.definitions.database import session_owner, statements
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, unquoted

_LIST = rf"{IDENTIFIER}(?:, {IDENTIFIER})*"
# In the forms in which pg_dump writes them. PUBLIC in upper case without quotes is not an identifier.
_ROLES = [
    re.compile(rf"ALTER .* OWNER TO ({IDENTIFIER});\Z", re.DOTALL),
    re.compile(
        rf"(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) .* (?:TO|FROM) ({_LIST})(?: WITH GRANT OPTION)?;\Z", re.DOTALL
    ),
    re.compile(rf"ALTER DEFAULT PRIVILEGES FOR ROLE ({IDENTIFIER}) "),
    re.compile(rf"ALTER ROLE ({IDENTIFIER}) IN DATABASE "),
    re.compile(rf"CREATE POLICY .*? TO ({_LIST})(?: USING| WITH CHECK|;)", re.DOTALL),
    re.compile(rf"CREATE USER MAPPING FOR ({IDENTIFIER}) SERVER "),
]
_SUPERUSERS = re.compile(
    rf"ALTER (EVENT TRIGGER|FOREIGN DATA WRAPPER|SUBSCRIPTION) {IDENTIFIER} OWNER TO ({IDENTIFIER});\Z"
)
_EXTENSION = re.compile(rf"CREATE EXTENSION (?:IF NOT EXISTS )?({IDENTIFIER})")
_TABLESPACE = re.compile(rf"SET default_tablespace = ({IDENTIFIER});")
_GRANTOR = re.compile(rf"SET SESSION AUTHORIZATION ({IDENTIFIER});")
_NAME = re.compile(IDENTIFIER)
_HEADS = ("ALTER ", "GRANT ", "REVOKE ", "CREATE POLICY ", "CREATE USER MAPPING ", "CREATE EXTENSION ", "SET ")
# pg_restore sets the owner of every object with a DROP, except these, which belong to a table (_printTocEntry).
_OWNERLESS = frozenset(
    (
        *("CAST", "CHECK CONSTRAINT", "CONSTRAINT", "DATABASE PROPERTIES", "DEFAULT", "FK CONSTRAINT", "INDEX"),
        *("POLICY", "ROW SECURITY", "RULE", "TRIGGER", "USER MAPPING"),
    )
)
# Their owners must be superusers.
_OWNED_BY_SUPERUSERS = frozenset({"EVENT TRIGGER", "FOREIGN DATA WRAPPER"})
_SUBSCRIPTIONS_OF_OTHERS = 16  # the first version in which the owner of a subscription need not be a superuser
_KINDS = frozenset({"ACL", "DEFAULT ACL", "POLICY", "USER MAPPING", "DATABASE PROPERTIES"})

# Locks held to the end of the transaction that creates an object: a table also locks its TOAST table and index.
_LOCKS = {"TABLE": 3, "MATERIALIZED VIEW": 3, "VIEW": 1, "SEQUENCE": 1, "INDEX": 1, "CONSTRAINT": 1, "BLOB": 1}


@dataclass
class Requirements:
    """Roles, extensions and tablespaces that the target server must have.

    :ivar superusers: those of the roles that own something only a superuser may own.
    :ivar subscribers: those that own a subscription.
    :ivar as_owners: the owners create the objects, as with ``--use-set-session-authorization``.
    :ivar locks: estimated entries in the lock table if one transaction restores everything.
    """

    roles: set[str] = field(default_factory=set)
    superusers: set[str] = field(default_factory=set)
    subscribers: set[str] = field(default_factory=set)
    extensions: set[str] = field(default_factory=set)
    tablespaces: set[str] = field(default_factory=set)
    as_owners: bool = False
    locks: int = 0

    @property
    def names(self) -> int:
        """Number of roles, extensions and tablespaces."""
        return len(self.roles) + len(self.extensions) + len(self.tablespaces)

    def superusers_of(self, major: int) -> set[str]:
        """Return the roles that must be superusers on a server of a major version."""
        return self.superusers | (self.subscribers if major < _SUBSCRIPTIONS_OF_OTHERS else set())

    @classmethod
    def of_entries(
        cls, entries: Iterable[TocEntry], *, owners: bool = True, privileges: bool = True, tablespaces: bool = True
    ) -> Requirements:
        """Return the requirements of archive entries, without those that the options of a restore exclude."""
        found = cls()
        for entry in entries:
            if owners and entry.owner and entry.drop_statement and entry.kind not in _OWNERLESS:
                found.roles.add(entry.owner)
                if entry.kind in _OWNED_BY_SUPERUSERS:
                    found.superusers.add(entry.owner)
                elif entry.kind == "SUBSCRIPTION":
                    found.subscribers.add(entry.owner)
            if tablespaces and entry.tablespace:
                found.tablespaces.add(entry.tablespace)
            if entry.kind == "EXTENSION":
                found.extensions.add(entry.name)
            if entry.kind in _KINDS and (privileges or not entry.kind.endswith("ACL")):
                for statement in statements(entry.definition):
                    found.add(statement)
            found.locks += _LOCKS.get(entry.kind, 0)
            if entry.kind == "BLOB METADATA":
                found.locks += entry.definition.count("\n") + 1
        return found

    def add(self, statement: str) -> None:
        """Add the names that one statement of a script requires."""
        if not statement.startswith(_HEADS):
            return
        for pattern in _ROLES:
            if match := pattern.match(statement):
                self.roles.update(unquoted(name) for name in _NAME.findall(match[1]))
        if match := _SUPERUSERS.match(statement):
            (self.subscribers if match[1] == "SUBSCRIPTION" else self.superusers).add(unquoted(match[2]))
        if match := _GRANTOR.match(statement):
            self.roles.add(unquoted(match[1]))
        if owner := session_owner(statement):
            self.roles.add(owner)
            self.as_owners = True
        self.roles.discard("public")  # not a valid role name; pg_dump writes PUBLIC in lower case for user mappings
        if match := _EXTENSION.match(statement):
            self.extensions.add(unquoted(match[1]))
        if match := _TABLESPACE.match(statement):
            self.tablespaces.add(unquoted(match[1]))

    def add_locks(self, words: tuple[bytes, ...]) -> None:
        """Add the locks that one statement of a script takes, by its first words."""
        if words[:1] == (b"CREATE",):
            if b"INDEX" in words[:3]:
                self.locks += 1
            else:
                made = {b"TABLE": 3, b"MATERIALIZED": 3, b"UNLOGGED": 3, b"VIEW": 1, b"SEQUENCE": 1}
                self.locks += made.get(words[1] if len(words) > 1 else b"", 0)
        elif words[:2] == (b"ALTER", b"TABLE"):
            self.locks += b"ADD" in words
        elif words[:1] == (b"SELECT",):
            self.locks += b"LO_CREATE" in words
