"""The head of a cluster's script, its roles and tablespaces, made to fit a throwaway server."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_pgbackup.postgres.definitions.database import IDENTIFIER, unquoted

_TABLESPACE = re.compile(r"(CREATE TABLESPACE .*) LOCATION E?'(?:[^']|'')*';\Z", re.DOTALL)
_MEMBERSHIP = re.compile(
    rf"GRANT (?P<role>{IDENTIFIER}) TO (?P<member>{IDENTIFIER})(?P<options>.*) GRANTED BY (?P<grantor>{IDENTIFIER});\Z",
    re.DOTALL,
)


class ClusterGlobals:
    """What of a cluster's global statements fits no throwaway server, and instead of it.

    :ivar instead: statements of the script, and what to run instead of them.
    :ivar bootstrap: the source's own superuser, so far as it shows: who granted a membership without having been
        granted its administration. That role is there before the script begins.
    """

    def __init__(self, statements: Sequence[str]) -> None:
        memberships = [match for match in map(_MEMBERSHIP.match, statements) if match]
        administered = {(m["role"], m["member"]) for m in memberships if "ADMIN" in m["options"]}
        grantors = {m["grantor"] for m in memberships if (m["role"], m["grantor"]) not in administered}
        self.bootstrap = unquoted(min(grantors)) if grantors else None
        self.instead: dict[bytes, bytes] = {}
        for statement in statements:
            if match := _TABLESPACE.match(statement):
                self.instead[statement.encode()] = f"{match[1]} LOCATION '';".encode()
            elif grantors and statement in (f"CREATE ROLE {min(grantors)};", f"DROP ROLE IF EXISTS {min(grantors)};"):
                self.instead[statement.encode()] = b""
