"""The manifest of a backup, ``manifest.json``: what was dumped, by what, how big it is; and ``repository.json``.

:mod:`.json_document` writes and reads them; :mod:`.evidence` compares them with the backup beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.json_document import FORMAT_VERSION as FORMAT_VERSION
from airflow_pgbackup.repository.json_document import MAX_BYTES as MAX_BYTES
from airflow_pgbackup.repository.json_document import Content, integer, moment
from airflow_pgbackup.repository.json_document import Document as Document
from airflow_pgbackup.repository.layout import SCOPES, Series, artifact_key, parse_backup_id
from airflow_pgbackup.repository.source_roles import SourceRoles


@dataclass(frozen=True, kw_only=True)
class RepositoryFile(Document):
    schema: ClassVar[str] = "repository"
    uuid: str
    created_at: datetime

    @classmethod
    def _decode(cls, content: Content, unknown: Content) -> RepositoryFile:
        return cls(
            format_version=content["format_version"],
            unknown=unknown,
            uuid=content["uuid"],
            created_at=moment(content["created_at"]),
        )


@dataclass(frozen=True)
class FileDigest:
    """One file of an artifact. ``path``: its plain name in a directory; the artifact's name for a single file."""

    path: str
    size: int
    sha256: str

    @classmethod
    def decode(cls, content: Content) -> FileDigest:
        return cls(content["path"], int(content["size"]), content["sha256"])


US = "airflow-pgbackup"


@dataclass(frozen=True)
class RecordedCompression:
    """The compression of an artifact: inside its format, but around a plain dump.

    :param by: ``pg_dump`` or :data:`US`; None if it is not compressed.
    """

    method: str | None
    level: int | None
    by: str | None

    @classmethod
    def decode(cls, content: Content) -> RecordedCompression:
        return cls(content["method"], integer(content["level"]), content["by"])


ENCRYPTED = ".age"
"""The end of the name of an encrypted file."""


@dataclass(frozen=True)
class Encryption:
    """The encryption of an artifact, around its compression. Digests and sizes in the artifact are of encrypted bytes.

    :param method: ``age``.
    :param recipients: the public keys, as in the header of each file.
    :param files: the artifact's files in their order, decrypted: names, sizes and digests.
    """

    method: str
    recipients: tuple[str, ...]
    files: tuple[FileDigest, ...]

    @classmethod
    def decode(cls, content: Content) -> Encryption:
        files = tuple(FileDigest.decode(each) for each in content["files"])
        return cls(content["method"], tuple(content["recipients"]), files)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The dump itself. For a directory, ``size`` is the sum and ``sha256`` is :func:`directory_sha256`."""

    name: str
    format: str
    compression: RecordedCompression
    size: int
    sha256: str
    files: tuple[FileDigest, ...]
    attempt: str | None = None
    """The folder, inside the backup's, of the attempt that wrote it; None in version 1.0: beside the manifest."""
    encryption: Encryption | None = None
    """None: not encrypted; since version 1.4."""

    @classmethod
    def decode(cls, content: Content) -> Artifact:
        return cls(
            name=content["name"],
            format=content["format"],
            compression=RecordedCompression.decode(content["compression"]),
            size=int(content["size"]),
            sha256=content["sha256"],
            files=tuple(FileDigest.decode(each) for each in content["files"]),
            attempt=content.get("attempt"),
            encryption=Encryption.decode(content["encryption"]) if content.get("encryption") else None,
        )

    @property
    def plain(self) -> Artifact:
        """The artifact as PostgreSQL's tools read it, that is, decrypted."""
        if self.encryption is None:
            return self
        files = self.encryption.files
        size, sha256 = sum(file.size for file in files), files[0].sha256
        if self.format == "directory":
            sha256 = directory_sha256(files)
        name = self.name.removesuffix(ENCRYPTED)
        return replace(self, name=name, size=size, sha256=sha256, files=files, encryption=None)

    @property
    def rewritten(self) -> bool:
        """Whether this package compressed the artifact, so that its bytes are not those that PostgreSQL's tool wrote.

        Only reading such an artifact to its end verifies it: its digest would not show a fault of our compression.
        """
        return self.compression.by == US

    @property
    def compressed_around(self) -> str | None:
        """The method to decompress before PostgreSQL's tools can read the artifact; None if they decompress it."""
        return self._method if self.format == "plain" else None

    @property
    def compressed_inside(self) -> str | None:
        """The method that ``pg_restore`` must support to read the artifact; None if it is not compressed inside."""
        return self._method if self.format != "plain" else None

    @property
    def _method(self) -> str | None:
        return None if self.compression.method == "none" else self.compression.method


@dataclass(frozen=True)
class StandbyReplay:
    """How far a standby was behind its primary when the dump started; None where it could not be determined."""

    lag_bytes: int | None
    lag_seconds: float | None

    @classmethod
    def decode(cls, content: Content) -> StandbyReplay:
        seconds = content["lag_seconds"]
        return cls(integer(content["lag_bytes"]), None if seconds is None else float(seconds))


@dataclass(frozen=True, kw_only=True)
class DatabaseSource:
    """The source of a dump. ``database`` is None for a cluster; sizes in bytes, None if the role cannot see them."""

    database: str | None
    server_version: str
    server_version_num: int
    size_bytes: int | None
    encoding: str | None
    host: str | None
    extensions: Mapping[str, str] | None = None
    """Version of each extension of the database; None for a cluster, a foreign dump, and before version 1.1."""
    service: str | None = None
    """The managed service of the server, ``Amazon RDS for PostgreSQL``; since version 1.3."""
    replay: StandbyReplay | None = None
    """Of a dump from a standby; since version 1.3."""
    system_identifier: str | None = None
    """That of the server, by ``pg_control_system()``; None where the role may not read it, and before version 1.5."""
    roles: SourceRoles | None = None
    """Of a database: rights of the roles that own its objects; since version 1.5, None where they were not recorded."""
    time_zone: str | None = None
    """Of the sessions in the database, or in the server of a cluster, unless a role or a client sets another one; since
    version 1.5, None where it was not recorded."""

    @classmethod
    def decode(cls, content: Content) -> DatabaseSource:
        return cls(
            database=content["database"],
            server_version=content["server_version"],
            server_version_num=int(content["server_version_num"]),
            size_bytes=integer(content["size_bytes"]),
            encoding=content["encoding"],
            host=content["host"],
            extensions=content.get("extensions"),
            service=content.get("service"),
            replay=StandbyReplay.decode(content["replay"]) if content.get("replay") else None,
            system_identifier=content.get("system_identifier"),
            roles=SourceRoles.decode(content["roles"]) if content.get("roles") else None,
            time_zone=content.get("time_zone"),
        )


@dataclass(frozen=True)
class ClientInfo:
    """The program that did it: ``pg_dump``, ``18.4``, its path."""

    tool: str
    version: str
    path: str

    @classmethod
    def decode(cls, content: Content) -> ClientInfo:
        return cls(content["tool"], content["version"], content["path"])

    @property
    def major(self) -> int:
        """The major version: 18 for ``18.4``."""
        return int(self.version.split(".")[0])


@dataclass(frozen=True)
class RowCount:
    schema: str
    name: str
    rows: int

    @classmethod
    def decode(cls, content: Content) -> RowCount:
        return cls(content["schema"], content["name"], int(content["rows"]))


@dataclass(frozen=True, kw_only=True)
class Manifest(Document):
    """The description of a backup. Written last: a folder without one is not a backup."""

    schema: ClassVar[str] = "manifest"
    format_version: str = "1.5"
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
    """What the options of this dump, and of a cluster pg_dumpall, leave out; None: not determined, or nothing."""
    labels: tuple[str, ...] = ()
    """The names given to the backup when it was made; since version 1.2."""

    @property
    def name(self) -> str:
        """What people call it: ``prod/app/20261122T020000Z-3f9ac1``."""
        return f"{self.series}/{self.id}"

    @classmethod
    def _decode(cls, content: Content, unknown: Content) -> Manifest:
        series, rows, left_out = content["series"], content.get("source_rows"), content.get("left_out")
        return cls(
            format_version=content["format_version"],
            unknown=unknown,
            repository=content["repository"],
            series=Series(series["server"], series["database"], series.get("scope")),
            id=content["id"],
            kind=content["kind"],
            started_at=moment(content["started_at"]),
            finished_at=moment(content["finished_at"]),
            duration_seconds=float(content["duration_seconds"]),
            artifact=Artifact.decode(content["artifact"]),
            source=DatabaseSource.decode(content["source"]),
            client=ClientInfo.decode(content["client"]),
            options=content["options"],
            origin=content["origin"],
            restore_command=content["restore_command"],
            source_rows=None if rows is None else tuple(RowCount.decode(each) for each in rows),
            left_out=None if left_out is None else tuple(left_out),
            labels=tuple(content.get("labels") or ()),
        )

    @property
    def artifact_key(self) -> str:
        """The key of the artifact; of a directory, what its members' keys begin with."""
        return artifact_key(self.series, self.id, self.artifact.name, self.artifact.attempt)

    def key(self, file: FileDigest) -> str:
        """Return the key of one file of the artifact."""
        return f"{self.artifact_key}/{file.path}" if self.artifact.format == "directory" else self.artifact_key

    def moved(self, repository: str, attempt: str) -> Manifest:
        """Return the manifest of a copy.

        :param repository: the UUID of the repository of the copy.
        :param attempt: the attempt that wrote the copy.
        """
        version = "1.2" if self.format_version in ("1.0", "1.1") else self.format_version
        return replace(
            self, repository=repository, artifact=replace(self.artifact, attempt=attempt), format_version=version
        )

    def _contradiction(self) -> str | None:
        artifact, members = self.artifact, self.artifact.files
        try:
            self.series.path  # noqa: B018  raises for a name that cannot be in a key
        except ConfigurationError as error:
            return error.message
        if not all(map(str.isprintable, (artifact.name, *(file.path for file in members)))):
            return "a file name holds characters that cannot be printed"
        if (self.series.database is None) != (self.kind == "cluster"):
            return f"the series {self.series} is not of a {self.kind}"
        if (self.series.scope and self.series.database) or scope_of(self.options) not in (None, self.series.scope):
            return f"the series {self.series} is not of this dump"
        if self.started_at.replace(microsecond=0) != parse_backup_id(self.id):
            return f"{self.id} did not start at {self.started_at.isoformat()}"
        if self.source.roles and not self.source.roles.valid:
            return "a name in the roles of the source cannot be the name of a role"
        if artifact.format == "directory":
            if len({file.path for file in members}) < len(members):
                return "two files of the artifact have one name"
            whole = FileDigest(artifact.name, sum(file.size for file in members), directory_sha256(members))
        elif len(members) > 1:
            return f"an artifact of format {artifact.format} is one file, not {len(members)}"
        else:
            whole = members[0]
        if artifact.encryption and not _encrypts(artifact.encryption, artifact):
            return "the names of encrypted and decrypted files differ in more than .age"
        if whole != FileDigest(artifact.name, artifact.size, artifact.sha256):
            return "name, size or digest of the artifact differs from that of its files"
        return None


def _encrypts(encryption: Encryption, artifact: Artifact) -> bool:
    """Return whether the names of an encryption are those of the artifact."""
    names = [f"{file.path}{ENCRYPTED}" for file in encryption.files]
    return artifact.name.endswith(ENCRYPTED) and names == [file.path for file in artifact.files]


def scope_of(options: Mapping[str, object]) -> str | None:
    """Return which of :data:`.layout.SCOPES` the options of a pg_dumpall name; None for the complete cluster."""
    return next((scope for scope in SCOPES if options.get(f"{scope}_only")), None)


def directory_sha256(members: Iterable[FileDigest]) -> str:
    """Return one digest for a directory: SHA-256 over its sorted ``path NUL size NUL sha256 LF`` lines."""
    lines = (f"{m.path}\0{m.size}\0{m.sha256}\n" for m in sorted(members, key=lambda m: m.path.encode()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
