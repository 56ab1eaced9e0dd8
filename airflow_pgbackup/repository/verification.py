"""The result of a verification: ``verification-….json``, beside the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from airflow_pgbackup.repository.json_document import Content, Document, moment
from airflow_pgbackup.repository.layout import reaches
from airflow_pgbackup.repository.manifest import ClientInfo

UNLISTED = "tables not listed"
"""The name of the check that a verification has if its file cannot hold the list of its tables."""


@dataclass(frozen=True)
class Check:
    name: str
    result: str
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableResult:
    """The result for one table: `rows` and `sha256` as read from the archive; `database` only for a cluster."""

    schema: str
    name: str
    rows: int
    sha256: str | None
    result: str
    detail: str | None = None
    database: str | None = None


@dataclass(frozen=True)
class Difference:
    """An object that was not restored as it was dumped: ``index``, ``public.film_title_idx``, what is different."""

    kind: str
    name: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verification(Document):
    """The result of one verification of a backup. Added to its folder, never overwritten."""

    schema: ClassVar[str] = "verification"
    format_version: str = "1.1"
    backup_id: str
    level: str
    result: str
    started_at: datetime
    finished_at: datetime
    duration_seconds: float
    checks: tuple[Check, ...]
    tables: tuple[TableResult, ...] = ()
    differences: tuple[Difference, ...] = ()
    restore_seconds: float | None = None
    """The measured recovery time, at level ``restore``."""
    client: ClientInfo | None = None
    origin: Mapping[str, object] = field(default_factory=dict)
    artifact_sha256: str | None = None
    """The digest of the verified artifact in its manifest; None in version 1.0, which lacks it."""

    @property
    def lists_tables(self) -> bool:
        """Whether all tables that were read are listed."""
        return all(check.name != UNLISTED for check in self.checks)

    @property
    def counts_rows(self) -> bool:
        """Whether the tables are those of a sound backup, each with its rows."""
        return self.result == "pass" and reaches(self.level, "archive") and self.lists_tables

    @classmethod
    def _decode(cls, content: Content, unknown: Content) -> Verification:
        seconds, client = content.get("restore_seconds"), content.get("client")
        return cls(
            format_version=content["format_version"],
            unknown=unknown,
            backup_id=content["backup_id"],
            level=content["level"],
            result=content["result"],
            started_at=moment(content["started_at"]),
            finished_at=moment(content["finished_at"]),
            duration_seconds=float(content["duration_seconds"]),
            checks=tuple(_check(each) for each in content["checks"]),
            tables=tuple(_table(each) for each in content.get("tables", ())),
            differences=tuple(
                Difference(each["kind"], each["name"], each["detail"]) for each in content.get("differences", ())
            ),
            restore_seconds=None if seconds is None else float(seconds),
            client=None if client is None else ClientInfo.decode(client),
            origin=content.get("origin", {}),
            artifact_sha256=content.get("artifact_sha256"),
        )

    def _contradiction(self) -> str | None:
        if self.artifact_sha256 is None and self.format_version != "1.0":
            return f"version {self.format_version} requires artifact_sha256, which is missing"
        return None


def last_count(verifications: Sequence[Verification]) -> Verification | None:
    """Return the newest of these, which are sorted by time, that counted rows; None: none has."""
    return next((seen for seen in reversed(verifications) if seen.counts_rows), None)


def _check(content: Content) -> Check:
    return Check(content["name"], content["result"], content.get("detail"))


def _table(content: Content) -> TableResult:
    return TableResult(
        database=content.get("database"),
        schema=content["schema"],
        name=content["name"],
        rows=int(content["rows"]),
        sha256=content["sha256"],
        result=content["result"],
        detail=content.get("detail"),
    )
