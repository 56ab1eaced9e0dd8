"""What a backup says of itself: ``manifest.json``, the verification files, ``repository.json``.

How they are written and read is in :mod:`.document`; whether the backup beside them is what they say is the business
of :mod:`.evidence`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar

from airflow_pgbackup.repository.document import FORMAT_VERSION as FORMAT_VERSION
from airflow_pgbackup.repository.document import MAX_BYTES as MAX_BYTES
from airflow_pgbackup.repository.document import Document as Document
from airflow_pgbackup.repository.layout import Series, artifact_key, parse_backup_id


@dataclass(frozen=True, kw_only=True)
class RepositoryFile(Document):
    schema: ClassVar[str] = "repository"
    uuid: str
    created_at: datetime


@dataclass(frozen=True)
class FileDigest:
    """One file of an artifact. ``path``: its plain name in a directory; the artifact's name for a single file."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Compression:
    """``by``: ``pg_dump`` or ``airflow-pgbackup``; None: by neither. Inside the format, but around a plain dump."""

    method: str | None
    level: int | None
    by: str | None


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The dump itself. For a directory, ``size`` is the sum and ``sha256`` is :func:`directory_sha256`."""

    name: str
    format: str
    compression: Compression
    size: int
    sha256: str
    files: tuple[FileDigest, ...]
    attempt: str | None = None
    """The folder, inside the backup's, of the attempt that wrote it; None in version 1.0: beside the manifest."""

    @property
    def compressed_around(self) -> str | None:
        """The method to undo before PostgreSQL's tools can read the artifact; None where they do that."""
        return self._method if self.format == "plain" else None

    @property
    def compressed_inside(self) -> str | None:
        """The method that the reading ``pg_restore`` must know; None for none."""
        return self._method if self.format != "plain" else None

    @property
    def _method(self) -> str | None:
        return None if self.compression.method == "none" else self.compression.method


@dataclass(frozen=True, kw_only=True)
class DatabaseSource:
    """What was dumped. ``database`` is None for a cluster; sizes in bytes, None where the role could not see them."""

    database: str | None
    server_version: str
    server_version_num: int
    size_bytes: int | None
    encoding: str | None
    host: str | None
    extensions: Mapping[str, str] | None = None
    """Version of each extension of the database; None for a cluster, a foreign dump, and before version 1.1."""


@dataclass(frozen=True)
class ClientInfo:
    """The program that did it: ``pg_dump``, ``18.4``, its path."""

    tool: str
    version: str
    path: str


@dataclass(frozen=True)
class RowCount:
    schema: str
    name: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class Manifest(Document):
    """A backup. Written last: it is there, or there is no backup."""

    schema: ClassVar[str] = "manifest"
    format_version: str = "1.1"
    repository: str
    series: Series
    id: str
    kind: str
    started_at: datetime
    finished_at: datetime
    duration_seconds: float
    artifact: Artifact
    source: DatabaseSource
    client: ClientInfo
    options: Mapping[str, object]
    origin: Mapping[str, object]
    restore_command: str
    source_rows: tuple[RowCount, ...] | None = None
    """Rows per table in the dump's own snapshot of the source, where they were counted."""
    left_out: tuple[str, ...] | None = None
    """What the database has and this dump's options leave out; None: not looked at."""

    @property
    def artifact_key(self) -> str:
        """The key of the artifact; of a directory, what its members' keys begin with."""
        return artifact_key(self.series, self.id, self.artifact.name, self.artifact.attempt)

    def key(self, file: FileDigest) -> str:
        """The key of one file of the artifact."""
        return f"{self.artifact_key}/{file.path}" if self.artifact.format == "directory" else self.artifact_key

    def moved(self, repository: str, attempt: str) -> Manifest:
        """The manifest of a copy.

        :param repository: the UUID of that one. :param attempt: which has written the copy.
        """
        version = "1.1" if self.format_version == "1.0" else self.format_version
        return replace(
            self, repository=repository, artifact=replace(self.artifact, attempt=attempt), format_version=version
        )

    def _contradiction(self) -> str | None:
        artifact, members = self.artifact, self.artifact.files
        if not all(map(str.isprintable, (artifact.name, *(file.path for file in members)))):
            return "a file name holds characters that cannot be printed"
        if (self.series.database is None) != (self.kind == "cluster"):
            return f"the series {self.series} is not of a {self.kind}"
        if self.started_at.replace(microsecond=0) != parse_backup_id(self.id):
            return f"{self.id} did not start at {self.started_at.isoformat()}"
        if artifact.format == "directory":
            if len({file.path for file in members}) < len(members):
                return "two files of the artifact have one name"
            whole = FileDigest(artifact.name, sum(file.size for file in members), directory_sha256(members))
        elif len(members) > 1:
            return f"an artifact of format {artifact.format} is one file, not {len(members)}"
        else:
            whole = members[0]
        if whole != FileDigest(artifact.name, artifact.size, artifact.sha256):
            return "name, size or digest of the artifact is not that of its files"
        return None


@dataclass(frozen=True)
class Check:
    name: str
    result: str
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableResult:
    """``database`` only for a cluster; ``rows`` and ``sha256`` as read from the archive."""

    schema: str
    name: str
    rows: int
    sha256: str | None
    result: str
    detail: str | None = None
    database: str | None = None


@dataclass(frozen=True)
class Difference:
    """One object that did not come back as it was dumped: ``index``, ``public.film_title_idx``, what is different."""

    kind: str
    name: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verification(Document):
    """One look at a backup. Appended beside it, never overwritten."""

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
    """The digest of the artifact that was looked at, as its manifest has it. None in version 1.0, which lacks it."""

    def _contradiction(self) -> str | None:
        if self.artifact_sha256 is None and self.format_version != "1.0":
            return f"version {self.format_version} names the artifact that was looked at, and this does not"
        return None


def directory_sha256(members: Iterable[FileDigest]) -> str:
    """One digest for a directory: sha256 over its sorted ``path NUL size NUL sha256 LF`` lines."""
    lines = (f"{m.path}\0{m.size}\0{m.sha256}\n" for m in sorted(members, key=lambda m: m.path.encode()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
