"""What a backup says of itself: ``manifest.json``, the verification files, ``repository.json``.

Each is JSON with a JSON Schema (``schemas/``) and a ``format_version``. A newer minor version may add fields, which
are read, kept (those on the top level) and written back; a newer major version is refused. What is read here may
have been damaged or forged: size, syntax and schema are checked before anything believes it.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from airflow_pgbackup.errors import ManifestError
from airflow_pgbackup.repository.layout import Series

FORMAT_VERSION = "1.0"
MAX_BYTES = 16 * 1024**2
"""A directory dump of 100,000 members makes a manifest of about 14 MiB."""

D = TypeVar("D", bound="Document")


@dataclass(frozen=True, kw_only=True)
class Document:
    """Base of the three files."""

    format_version: str = FORMAT_VERSION
    unknown: Mapping[str, object] = field(default_factory=dict)
    """Top-level fields that a newer minor version has added."""

    schema: ClassVar[str]

    def to_json(self) -> bytes:
        content = _encode(self)
        content.update(content.pop("unknown"))
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A lone surrogate, from a foreign manifest, becomes its \udXXX escape, which is JSON again.
        return text.encode("utf-8", "backslashreplace")

    @classmethod
    def from_json(cls: type[D], data: bytes) -> D:
        """Read and check.

        :raises ManifestError: for what is too large, no JSON, of another major version, or against the schema.
        """
        if len(data) > MAX_BYTES:
            raise ManifestError(f"a {cls.schema} of {len(data)} bytes, at most {MAX_BYTES} are read")
        try:
            content = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"a {cls.schema} that is no JSON: {error}") from None
        _check_version(cls.schema, content)
        _validate(cls.schema, content)
        known = {f.name for f in fields(cls)}
        unknown = {name: value for name, value in content.items() if name not in known}
        try:
            document: D = _decode(cls, {**content, "unknown": unknown})
        except (ValueError, OverflowError) as error:  # a date like the 31st of February
            raise ManifestError(f"a {cls.schema} with a wrong value: {error}") from None
        return document


@dataclass(frozen=True, kw_only=True)
class RepositoryFile(Document):
    schema: ClassVar[str] = "repository"
    uuid: str
    created_at: datetime


@dataclass(frozen=True)
class FileDigest:
    """One file of an artifact. ``path``: relative to the artifact's folder; the artifact's name for a single file."""

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


def directory_sha256(members: Iterable[FileDigest]) -> str:
    """One digest for a directory: sha256 over its sorted ``path NUL size NUL sha256 LF`` lines."""
    lines = (f"{m.path}\0{m.size}\0{m.sha256}\n" for m in sorted(members, key=lambda m: m.path.encode()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_version(schema: str, content: object) -> None:
    version = content.get("format_version") if isinstance(content, dict) else None
    major, _, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise ManifestError(f"a {schema} without a format version: not one of ours")
    if major != FORMAT_VERSION.partition(".")[0]:
        raise ManifestError(
            f"a {schema} of format version {version}, this release reads {FORMAT_VERSION.partition('.')[0]}.x",
            hint="upgrade airflow-pgbackup; the artifact itself restores with PostgreSQL's own tools",
        )


def _validate(schema: str, content: object) -> None:
    error = next(_validator(schema).iter_errors(content), None)
    if error is not None:
        where = "/".join(str(step) for step in error.absolute_path) or "its top level"
        raise ManifestError(f"a {schema} against its schema at {where}: {error.message[:200]}")


@cache
def _validator(schema: str) -> Any:
    # Imported when first needed: it costs as much as the rest of this package together.
    from jsonschema import Draft202012Validator

    path = files("airflow_pgbackup.repository") / "schemas" / f"{schema}.json"
    text = path.read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _encode(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    if is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: _encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value


def _decode(kind: Any, value: Any) -> Any:
    """JSON that has passed its schema, as the type that an annotation names."""
    if get_origin(kind) in (Union, types.UnionType):
        return None if value is None else _decode(next(arg for arg in get_args(kind) if arg is not type(None)), value)
    if get_origin(kind) is tuple:
        return tuple(_decode(get_args(kind)[0], item) for item in value)
    if kind is datetime:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone(timezone.utc)
    if kind in (int, float):
        return kind(value)  # JSON knows one kind of number: 1.0 is an integer there
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        names = (f.name for f in fields(kind) if f.name in value)
        return kind(**{name: _decode(hints[name], value[name]) for name in names})
    return value
