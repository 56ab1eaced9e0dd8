"""The table of contents of an artifact in a repository, without its data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.streams import decrypted
from airflow_pgbackup.errors import BackupNotFound, ClientError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.archive_file import artifact_format
from airflow_pgbackup.postgres.archive.toc import Toc, TocEntry, parse_toc
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties
from airflow_pgbackup.postgres.definitions.database_locale import locale_options
from airflow_pgbackup.postgres.definitions.objects import Key, Objects, toc_digests, toc_objects
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.byte_source import CHUNK
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.manifest import FileDigest, Manifest

_TAR_BLOCK = 512
_TABLES = ("TABLE", "FOREIGN TABLE")
_SETVAL = re.compile(r", (-?\d+), (true|false)\);\s*\Z")
_SUFFIX = re.compile(r"\.(?:gz|zst|lz4)\Z")

Table = tuple[str | None, str, str]
"""Database (of a cluster's backup), schema, name."""


@dataclass(frozen=True)
class Contents:
    """The data of a table of contents.

    :param tables: all of them, with data or without.
    :param sizes: bytes that each table's data takes in the artifact; None where only the artifact's data shows it.
    :param locale: of the database; None where the dump has no CREATE DATABASE.
    :param digests: of definitions as they stand, see :func:`.toc_digests`.
    :param sequences: the value of each, by schema and name.
    :param large_objects: whether it has the content of any.
    :param is_checked: its digest was compared with the manifest.
    """

    database: str
    objects: Objects
    tables: frozenset[Table]
    sizes: Mapping[Table, int] | None
    locale: Mapping[str, str] | None
    is_checked: bool
    digests: Mapping[Key, bytes] = field(default_factory=dict)
    sequences: Mapping[str, str] = field(default_factory=dict)
    large_objects: bool = False


def read_contents(
    repository: Repository,
    manifest: Manifest,
    *,
    identities: Identities | None = None,
    cancel: CancelFlag | None = None,
) -> Contents | str:
    """Read the table of contents of an artifact: the head of a custom archive, ``toc.dat`` of a directory, the first
    member of a tar. Only that part of the artifact is read.

    :return: the contents, or why there are none.
    :raises RepositoryError: the store does not answer.
    """
    artifact = manifest.artifact
    if artifact.format == "plain":
        return "a plain dump has no table of contents"
    try:
        toc, is_checked = _read(repository, manifest, identities or Identities(), cancel)
    except BackupNotFound:
        return f"the artifact of {manifest.id} is missing"
    except (VerificationFailed, NotProven, ClientError) as error:
        return f"the table of contents of {manifest.id} cannot be read: {error.message}"
    return Contents(
        toc.database,
        _objects(toc.entries),
        frozenset((None, entry.schema or "", entry.name) for entry in toc.entries if entry.kind in _TABLES),
        _sizes(toc.entries, artifact.plain.files) if artifact.format == "directory" else None,
        _locale(toc.entries),
        is_checked,
        toc_digests(toc.entries),
        {f"{e.schema}.{e.name}": _value(e.definition) for e in toc.entries if e.kind == "SEQUENCE SET"},
        any(entry.kind == "BLOBS" for entry in toc.entries),
    )


def _objects(entries: Sequence[TocEntry]) -> Objects:
    """Return the definitions, with access methods; and the materialized views that a restore fills, as a kind."""
    objects = toc_objects(entries)
    for entry in entries:
        key = (None, entry.kind, entry.schema, entry.name)
        if entry.access_method and key in objects:
            objects[key] = tuple(f"{text}\naccess method {entry.access_method}" for text in objects[key])
        elif entry.kind == "MATERIALIZED VIEW DATA":
            objects[key] = ("",)
    return objects


def _value(definition: str) -> str:
    match = _SETVAL.search(definition)
    return definition.strip()[:200] if match is None else match[1] + ("" if match[2] == "true" else ", not used yet")


class _Hashed:
    """A reader that hashes what passes, up to so many bytes."""

    def __init__(self, source: Readable, most: int, cancel: CancelFlag | None) -> None:
        self._source, self._left, self._cancel = source, most, cancel
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        if self._cancel is not None:
            self._cancel.check()
        data = self._source.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        self._hash.update(data)
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _read(
    repository: Repository, manifest: Manifest, identities: Identities, cancel: CancelFlag | None
) -> tuple[Toc, bool]:
    artifact = manifest.artifact
    if artifact.format == "directory":
        return _read_member(repository, manifest, identities, cancel), True
    with (
        _opened(repository, manifest, artifact.files[0], cancel) as source,
        _plain(source, manifest, identities) as plain,
    ):
        if artifact.format == "tar":
            head = plain.read(_TAR_BLOCK)
            if artifact_format(head) != "tar":
                raise VerificationFailed(f"{artifact.name} is not a tar file whose first member is toc.dat")
        toc = parse_toc(plain, what=artifact.name)
    if (toc.format == "custom") != (artifact.format == "custom"):
        raise VerificationFailed(f"{artifact.name} is in {toc.format} format, expected {artifact.format}")
    return toc, False


def _read_member(repository: Repository, manifest: Manifest, identities: Identities, cancel: CancelFlag | None) -> Toc:
    artifact = manifest.artifact
    members = zip(artifact.files, artifact.plain.files, strict=True)
    file = next((file for file, plain in members if plain.path == "toc.dat"), None)
    if file is None:
        raise VerificationFailed("its manifest names no toc.dat")
    with _opened(repository, manifest, file, cancel) as source:
        with _plain(source, manifest, identities) as plain:
            toc = parse_toc(plain, what="toc.dat")
        while source.read(CHUNK):
            pass
    if source.sha256 != file.sha256:
        raise VerificationFailed(f"checksum mismatch: expected sha256 {file.sha256}, found {source.sha256}")
    return toc


@contextmanager
def _opened(
    repository: Repository, manifest: Manifest, file: FileDigest, cancel: CancelFlag | None
) -> Iterator[_Hashed]:
    key = manifest.key(file)
    entry = _sized(repository, key, file)
    with repository.read(key, pin=entry) as stream:
        yield _Hashed(stream, file.size, cancel)


def _plain(source: Readable, manifest: Manifest, identities: Identities) -> AbstractContextManager[Readable]:
    artifact = manifest.artifact
    if artifact.encryption is None:
        return nullcontext(source)
    return decrypted(source, identities, artifact.name, artifact.encryption.recipients)


def _sized(repository: Repository, key: str, file: FileDigest) -> Entry:
    entry = repository.stat(key)
    if entry is None:
        raise BackupNotFound(f"{repository.location(key)} does not exist")
    if entry.size != file.size:
        raise VerificationFailed(f"{file.path} has {entry.size} bytes, expected {file.size}")
    return entry


def _sizes(entries: Iterable[TocEntry], files: Iterable[FileDigest]) -> dict[Table, int]:
    """Return the total file size of each table in a directory. A partitioned table may have several files."""
    by_stem = {_SUFFIX.sub("", file.path): file.size for file in files}
    sizes: dict[Table, int] = {}
    for entry in entries:
        if entry.kind == "TABLE DATA" and entry.file in by_stem:
            table = (None, entry.schema or "", entry.name)
            sizes[table] = sizes.get(table, 0) + by_stem[entry.file]
    return sizes


def _locale(entries: Iterable[TocEntry]) -> dict[str, str] | None:
    create = DatabaseProperties.of_entries(entries).create
    return locale_options(create) if create else None
