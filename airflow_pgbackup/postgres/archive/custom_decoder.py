"""The rows of a custom archive, decoded in this process instead of by pg_restore.

A rehearsal uses it while pg_restore restores the same file. It takes half the CPU time of a second pg_restore that
writes to a pipe, and two independent decoders have to find the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from airflow_pgbackup.byte_streams import PieceReader, Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.custom_format import BLOBS, CustomArchive, ExpectedBlocks
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.script_reader import CopyBlock, check_large_objects
from airflow_pgbackup.postgres.archive.summary import ArchiveSummary, LargeObjects, SequenceValue
from airflow_pgbackup.postgres.archive.toc import Toc, TocEntry
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.postgres.sql.names import NameDecoder, client_encoding, copy_target, setval
from airflow_pgbackup.postgres.sql.statement import excerpt
from airflow_pgbackup.postgres.sql.window import CHUNK
from airflow_pgbackup.postgres.tools.deadline import Deadline

_METHODS = {"none": None, "gzip": "zlib", "zstd": "zstd"}  # inside an archive gzip is a zlib stream
_COPY_END = b"\\.\n\n\n"  # dumpTableData_copy in pg_dump.c


def decodable(toc: Toc) -> bool:
    """Return whether this module can decode all data of an archive: large objects, tables by COPY but not by INSERT,
    and a compression that it knows.
    """
    data = [entry for entry in toc.entries if entry.has_data]
    return (
        toc.format == "custom"
        and toc.compression in _METHODS
        and all(entry.kind == "BLOBS" or (entry.kind == "TABLE DATA" and entry.copy_statement) for entry in data)
    )


def copy_blocks(source: Readable, toc: Toc, summary: ArchiveSummary, deadline: Deadline) -> Iterator[CopyBlock]:
    """Yield COPY blocks in the order of the archive, as :meth:`.ArchiveReader.blocks` does.

    :param source: an archive that is :func:`decodable`, positioned behind its table of contents.
    :param summary: receives sequences and sizes; complete at the end of the iteration.
    :param deadline: checked at each piece of data.
    :raises VerificationFailed: the archive is truncated or damaged.
    """
    archive = CustomArchive(source, what="the archive", chunk_size=CHUNK, toc=toc)
    decoder = NameDecoder()  # for names in UTF-8: read_toc has decoded them
    for each in toc.entries:
        if each.kind == "STDSTRINGS":
            decoder.standard_strings = "off" not in each.definition
        elif each.kind == "ENCODING" and (encoding := client_encoding(encoded(each.definition.strip()))):
            summary.encodings[None] = encoding
        elif each.kind == "SEQUENCE SET" and (value := setval(encoded(each.definition.strip()), decoder)):
            schema, name, last_value, is_called = value
            summary.sequences.append(SequenceValue(schema or each.schema or "", name, last_value, is_called))
    with_data = {entry.dump_id: entry for entry in toc.entries if entry.has_data}
    expected = ExpectedBlocks(with_data.values())
    while block := expected.next(archive):
        kind, dump_id, _ = block
        entry = with_data.pop(dump_id)
        if kind == BLOBS:
            _large_objects(archive, summary, deadline)
            continue
        data = _Data(archive, entry, summary, deadline)
        statement = encoded((entry.copy_statement or "").strip())
        if not (statement.startswith(b"COPY ") and statement.endswith(b" FROM stdin;")):
            archive.fail(f"{entry.label} has an invalid COPY statement: {excerpt(statement)}")
        target = copy_target(statement, decoder)
        yield CopyBlock(None, target.schema or entry.schema or "", target.name, target.columns or (), data.chunks)
        data.skip()
    check_large_objects(toc.entries, summary)


def _large_objects(archive: CustomArchive, summary: ArchiveSummary, deadline: Deadline) -> None:
    """Read a block of large objects: the OID of each precedes its data."""
    if not summary.large_objects:
        summary.large_objects.append(LargeObjects())
    method = _METHODS[archive.toc.compression]
    while found := archive.large_object():
        deadline.check()
        oid, size, content = found[0], 0, hashlib.sha256()
        stored = PieceReader(archive.chunks())
        what = f"the data of large object {oid}"
        source = Decompressed(stored, method, what, on_step=deadline.check) if method else stored
        while data := source.read(CHUNK):
            deadline.check()
            content.update(data)
            size += len(data)
        summary.large_objects[0].add(oid, size, content.digest())
        summary.bytes += size


class _Data:
    """The data of one entry, without the end marker of COPY."""

    def __init__(self, archive: CustomArchive, entry: TocEntry, summary: ArchiveSummary, deadline: Deadline) -> None:
        self._summary = summary
        self._deadline = deadline
        self._entry = entry
        stored = PieceReader(archive.chunks())
        method = _METHODS[archive.toc.compression]
        what = f"the data of {entry.label}"
        self._source = Decompressed(stored, method, what, on_step=deadline.check) if method else stored
        self._pieces = self._rows()

    def chunks(self) -> Iterator[bytes]:
        return self._pieces

    def skip(self) -> None:
        """Read the data that was not consumed, to check it too."""
        for _ in self._pieces:
            pass

    def _rows(self) -> Iterator[bytes]:
        held = b""
        while data := self._source.read(CHUNK):
            self._deadline.check()
            self._summary.bytes += len(data)
            held += data
            if len(held) > len(_COPY_END):
                yield held[: -len(_COPY_END)]
                held = held[-len(_COPY_END) :]
        if held != _COPY_END:
            raise VerificationFailed(f"the data of {self._entry.label} is truncated")
