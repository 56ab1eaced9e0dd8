"""Fit the statements about roles to a user who has CREATEROLE but is not a superuser, as on managed services.

pg_dumpall writes out every attribute of a role. PostgreSQL lets only a superuser mention SUPERUSER, REPLICATION and
BYPASSRLS, in either form (``AlterRole`` in ``user.c``); since 16 also a role that has the latter two itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER
from airflow_pgbackup.postgres.definitions.memberships import Membership

_ATTRIBUTES = re.compile(rf"ALTER ROLE {IDENTIFIER} WITH((?: [A-Z]+)*)")
_DEFAULT = re.compile(r" NO(?:SUPERUSER|CREATEROLE|CREATEDB|LOGIN|REPLICATION|BYPASSRLS)(?=[ ;])")
_RESERVED = ("SUPERUSER", "REPLICATION", "BYPASSRLS")
_ADMIN = re.compile(r"(?<= WITH )ADMIN (?:OPTION|TRUE)(?:, )?")


def without_defaults(statement: str) -> str:
    """Return a statement about a new role without the attributes that such a role lacks anyway."""
    if not (match := _ATTRIBUTES.match(statement)):
        return statement
    start, end = match.span(1)
    return statement[:start] + _DEFAULT.sub("", statement[start : end + 1]) + statement[end + 1 :]


def reserved_attributes(statement: str) -> list[str]:
    """Return the attributes that a statement gives a role, and that a superuser must give."""
    match = _ATTRIBUTES.match(statement)
    return [word for word in match[1].split() if word in _RESERVED] if match else []


def granted_by_user(membership: Membership, server: ServerInfo) -> str | None:
    """Return a membership that the user of the connection grants; None if that is not needed.

    Since PostgreSQL 16 the user gets the ADMIN option on the roles that he creates, and may not grant it to himself.
    """
    if membership.member != server.user or server.major < 16 or not membership.admin:
        return membership.without_grantor
    how = _ADMIN.sub("", membership.how).removesuffix(" WITH ")
    if how == " WITH INHERIT FALSE, SET FALSE":
        return None
    return membership.without_grantor.removesuffix(f"{membership.how};") + f"{how};"


def may_be_refused(membership: Membership, server: ServerInfo, admins: Collection[tuple[str, str]]) -> bool:
    """Return whether the user may lack the ADMIN option that a membership in an existing role needs since 16."""
    return server.major >= 16 and membership.role in server.roles and (membership.role, server.user) not in admins
