"""Read a dump of a source once, to its end: what it is, the digests of its files, and whether it is truncated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import BinaryIO

from airflow_pgbackup.backup.adopt.directory_members import DirectoryMembers
from airflow_pgbackup.backup.adopt.partial_dumps import missing_part
from airflow_pgbackup.backup.adopt.script_outline import ScriptOutline
from airflow_pgbackup.backup.adopt.sources import TOC, Candidate, DumpSource, Seen
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.streams import Meter
from airflow_pgbackup.byte_streams import PIECE, Readable
from airflow_pgbackup.errors import ClientError, ConfigurationError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.custom_format import BLOBS, DATA, INT, ZERO, CustomArchive
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.sniff import Dump, sniff_directory, sniff_file
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.repository.manifest import FileDigest, directory_sha256

_TRAILER = {
    False: b"-- PostgreSQL database dump complete",
    True: b"-- PostgreSQL database cluster dump complete",
}
_ROLES_ONLY = re.compile(r"^(?!.*global).*(?<![a-z])roles?(?![a-z])", re.IGNORECASE | re.DOTALL)
_END_OF_TAR = bytes(1024)


@dataclass(frozen=True)
class FoundDump:
    """A dump in a source.

    :param files: of a directory, or one.
    :param seen: the same files, as they were when they were read.
    :param scope: of a script by pg_dumpall, one of :data:`.layout.SCOPES`; None: all of a cluster.
    :param kinds: as in :attr:`.Dump.kinds`, of a script too.
    """

    source: DumpSource
    candidate: Candidate
    content: Dump
    files: tuple[FileDigest, ...]
    seen: tuple[Seen, ...]
    scope: str | None = None
    kinds: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def tables(self) -> int:
        """The number of tables that it has."""
        return self.kinds.get("TABLE", 0) + self.kinds.get("PARTITIONED TABLE", 0)

    @property
    def modified(self) -> datetime:
        return max(seen.modified for seen in self.seen)

    @property
    def sha256(self) -> str:
        return directory_sha256(self.files) if self.candidate.members is not None else self.files[0].sha256

    @contextmanager
    def open(self, seen: Seen) -> Iterator[BinaryIO]:
        """Open one of its files again.

        :raises OSError: it cannot be opened, or is not a regular file.
        """
        with self.source.open(seen.name, again=seen) as (stream, _):
            yield stream


def read_dump(source: DumpSource, candidate: Candidate, context: RunContext) -> FoundDump | None:
    """Read a dump to its end. None: it is not a dump.

    :raises VerificationFailed: its header is damaged, it is truncated, or a directory lacks files or has some that
        pg_dump never writes.
    :raises ConfigurationError: it has only a part of a database, or several dumps.
    :raises NotProven, ClientError: as :func:`.sniff_file`.
    :raises OSError: a file of it cannot be opened, or is not a regular file.
    """
    last = candidate.name.rpartition("/")[2]
    if candidate.members is None:
        with source.open(candidate.name) as (stream, _):
            content = sniff_file(stream, last)
        names = [candidate.name]
    else:
        with source.open(f"{candidate.name}/{TOC}") as (stream, _):
            content = sniff_directory(stream)
        names = [f"{candidate.name}/{member}" for member in candidate.members]
    if content is None:
        return None
    members = _members(source, candidate, context)
    files, seen, outline = [], [], None
    with context.step(f"reading {last}") as step:
        for name in names:
            with source.open(name) as (stream, file):
                meter = Meter(stream, on_bytes=step.advance)
                if members:
                    members.check(meter, name.rpartition("/")[2])
                else:
                    outline = _require_complete(meter, content, last, context)
                while meter.read(PIECE):
                    context.cancel.check()
            if content.format == "tar" and meter.tail[-len(_END_OF_TAR) :] != _END_OF_TAR:
                raise VerificationFailed(
                    f"{last} is truncated after {meter.size} bytes: the end-of-archive blocks are missing"
                )
            files.append(FileDigest(name.rpartition("/")[2], meter.size, meter.sha256))
            seen.append(file)
    kinds = outline.kinds if outline else content.kinds
    if why := missing_part(kinds):
        raise ConfigurationError(f"not a complete dump: {why}")
    scope = _scope(outline, last) if outline and content.cluster else None
    return FoundDump(source, candidate, content, tuple(files), tuple(seen), scope, kinds)


def _members(source: DumpSource, candidate: Candidate, context: RunContext) -> DirectoryMembers | None:
    if candidate.members is None:
        return None
    with source.open(f"{candidate.name}/{TOC}") as (stream, _):
        toc, _ = read_toc(stream, what=TOC)
    return DirectoryMembers(toc, candidate.members, context.cancel.check)


def _require_complete(meter: Meter, content: Dump, what: str, context: RunContext) -> ScriptOutline | None:
    """Check what one pass over the bytes shows: that a script has its trailer, and a custom archive its data.

    That is less than a verification: nothing of the data is decoded.

    :return: what a script contains.
    :raises VerificationFailed: the dump is truncated, or its compression is damaged.
    :raises ConfigurationError: another dump follows in the script.
    """
    if content.format == "plain":
        source = Decompressed(meter, content.compression, what) if content.compression else meter
        return _require_trailer(source, meter, content.cluster, what, context)
    if content.format == "custom":
        try:
            missing = _missing_data(CustomArchive(meter, what=what, keep=attrgetter("has_data")), context)
        except (ClientError, NotProven):  # of a layout that only its pg_restore knows
            return None
        except VerificationFailed:
            if meter.read(1):  # not the end of the file: the layout is not what we expect, and verify reads it fully
                return None
            raise VerificationFailed(f"{what} is truncated after {meter.size} bytes, inside its data") from None
        if missing:
            raise VerificationFailed(f"{what} is truncated after {meter.size} bytes: it lacks the data of {missing}")
    return None


def _require_trailer(source: Readable, meter: Meter, cluster: bool, what: str, context: RunContext) -> ScriptOutline:
    outline, tail, size = ScriptOutline(cluster), b"", 0
    while data := source.read(PIECE):
        context.cancel.check()
        outline.add(data)
        tail, size = (tail + data)[-4096:], size + len(data)
    if outline.several:
        raise ConfigurationError(
            "several dumps, one after another, in one file",
            hint="Split it before each '-- PostgreSQL database dump', and adopt the parts.",
        )
    if not re.search(rb"^--\r?\n" + _TRAILER[cluster] + rb"\r?\n--\r?$", tail, re.MULTILINE):
        packed = f", {size} decompressed" if source is not meter else ""
        raise VerificationFailed(
            f"{what} is truncated after {meter.size} bytes{packed}: '{_TRAILER[cluster].decode()}' is missing"
        )
    return outline


def _scope(outline: ScriptOutline, what: str) -> str | None:
    parts = outline.parts  # they begin as src/bin/pg_dump/pg_dumpall.c writes them
    if "databases" in parts:
        return None
    if "roles" not in parts:
        return "tablespaces" if "tablespaces" in parts else None
    # Of a server without tablespaces --globals-only and --roles-only write the same; then the name decides.
    return "roles" if "tablespaces" not in parts and _ROLES_ONLY.search(what) else "globals"


def _missing_data(archive: CustomArchive, context: RunContext) -> str | None:
    missing = {entry.dump_id: entry.label for entry in archive.toc.entries if entry.has_data}
    archive.release()
    while archive.more():
        context.cancel.check()
        kind, dump_id, _ = archive.block()
        if kind not in (DATA, BLOBS):
            archive.fail(f"unexpected block of type {kind}")
        if kind == DATA:
            _skip(archive, context)
        else:
            while archive.take(INT) != ZERO:
                _skip(archive, context)
        missing.pop(dump_id, None)
    return next(iter(missing.values()), None)


def _skip(archive: CustomArchive, context: RunContext) -> None:
    for _ in archive.chunks():
        context.cancel.check()
