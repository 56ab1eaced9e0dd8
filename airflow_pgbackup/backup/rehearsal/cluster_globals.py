"""Adapt the global statements of a cluster's script, its roles and tablespaces, to a throwaway server."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, unquoted
from airflow_pgbackup.postgres.definitions.memberships import Membership, in_order_of_grantors

_TABLESPACE = re.compile(r"(CREATE TABLESPACE .*) LOCATION E?'(?:[^']|'')*';\Z", re.DOTALL)
_MEMBERSHIP = re.compile(
    rf"GRANT (?P<role>{IDENTIFIER}) TO (?P<member>{IDENTIFIER})(?P<options>.*) GRANTED BY (?P<grantor>{IDENTIFIER});\Z",
    re.DOTALL,
)


class ClusterGlobals:
    """The global statements of a cluster's script that a throwaway server cannot run as they are.

    :ivar replacements: maps such a statement to the one to run instead, b"" for none.
    :ivar bootstrap: the bootstrap superuser of the dumped server, as far as the script shows it: a role that granted a
        membership without having the ADMIN option. It must exist before the script runs.
    """

    def __init__(self, statements: Sequence[str]) -> None:
        memberships = [match for match in map(_MEMBERSHIP.match, statements) if match]
        administered = {(m["role"], m["member"]) for m in memberships if "ADMIN" in m["options"]}
        grantors = {m["grantor"] for m in memberships if (m["role"], m["grantor"]) not in administered}
        self.bootstrap = unquoted(min(grantors)) if grantors else None
        granted = [statement for statement in statements if Membership.parse(statement)]
        ordered = in_order_of_grantors(granted, free=[] if self.bootstrap is None else [self.bootstrap])
        self.replacements: dict[bytes, bytes] = {
            was.encode(): new.encode() for was, new in zip(granted, ordered, strict=True) if new != was
        }
        for statement in statements:
            if match := _TABLESPACE.match(statement):
                self.replacements[statement.encode()] = f"{match[1]} LOCATION '';".encode()
            elif grantors and statement in (f"CREATE ROLE {min(grantors)};", f"DROP ROLE IF EXISTS {min(grantors)};"):
                self.replacements[statement.encode()] = b""
