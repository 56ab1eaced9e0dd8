"""The head of a cluster's script, its roles and tablespaces, made to fit a throwaway server."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_pgbackup.postgres.database_sql import IDENTIFIER, unquoted
from airflow_pgbackup.postgres.window import Readable

_TABLESPACE = re.compile(r"(CREATE TABLESPACE .*) LOCATION E?'(?:[^']|'')*';\Z", re.DOTALL)
_MEMBERSHIP = re.compile(
    rf"GRANT (?P<role>{IDENTIFIER}) TO (?P<member>{IDENTIFIER})(?P<options>.*) GRANTED BY (?P<grantor>{IDENTIFIER});\Z",
    re.DOTALL,
)


class ClusterHead:
    """What of a cluster's global statements fits no throwaway server, and instead of it.

    :ivar bootstrap: the source's own superuser, so far as it shows: who granted a membership without having been
        granted its administration. That role is there before the script begins.
    """

    def __init__(self, statements: Sequence[str]) -> None:
        memberships = [match for match in map(_MEMBERSHIP.match, statements) if match]
        administered = {(m["role"], m["member"]) for m in memberships if "ADMIN" in m["options"]}
        grantors = {m["grantor"] for m in memberships if (m["role"], m["grantor"]) not in administered}
        self.bootstrap = unquoted(min(grantors)) if grantors else None
        self.replacements: dict[str, str] = {}
        for statement in statements:
            if match := _TABLESPACE.match(statement):
                self.replacements[statement] = f"{match[1]} LOCATION '';"
            elif grantors and statement == f"CREATE ROLE {min(grantors)};":
                self.replacements[statement] = ""

    def fit(self, script: bytes) -> bytes:
        """:param script: its beginning, up to the first database."""
        for statement, instead in self.replacements.items():
            script = script.replace(f"\n{statement}\n".encode(), f"\n{instead}\n".encode(), 1)
        return script


class FittedScript:
    """A cluster's script with a head that fits. The head is before the first database, and small."""

    def __init__(self, source: Readable, head: ClusterHead) -> None:
        self._source = source
        self._fit = head.fit
        self._head: bytes | None = None

    def read(self, size: int = -1, /) -> bytes:
        if self._head is None:
            head = b""
            while b"\n\\connect " not in head and (data := self._source.read(1 << 20)):
                head += data
            globals_, mark, rest = head.partition(b"\n\\connect ")
            self._head = self._fit(globals_) + mark + rest
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._source.read(size)
