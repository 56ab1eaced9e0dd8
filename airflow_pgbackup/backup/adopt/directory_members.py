"""Check the files of a directory dump while they are read for their digests, in one pass and in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airflow_pgbackup.byte_streams import PIECE, Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.directory_format import has_end_marker
from airflow_pgbackup.postgres.archive.member_names import (
    check_data_files,
    check_member_names,
    is_list,
    listed_large_objects,
    stem_of,
)
from airflow_pgbackup.postgres.archive.toc import Toc

_METHODS = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}


class DirectoryMembers:
    """The members of a directory dump.

    :param names: of its files.
    :param on_step: called every few MiB; may raise.
    :raises VerificationFailed: a name that pg_dump never writes, or the data of a table is missing.
    """

    def __init__(self, toc: Toc, names: Iterable[str], on_step: Callable[[], None]) -> None:
        names = list(names)
        check_member_names(names)
        self._stems = {stem_of(name) for name in names}
        self._on_step = on_step
        check_data_files(toc.entries, self._stems, on_step)
        self._tables = {entry.file: entry for entry in toc.entries if entry.file and entry.kind != "BLOBS"}

    def check(self, source: Readable, name: str) -> None:
        """Read a member to its end.

        :raises VerificationFailed: it is empty or truncated, or lists a large object that is missing.
        """
        if is_list(name):
            for blob in listed_large_objects(source, name):
                self._on_step()
                if blob not in self._stems:
                    raise VerificationFailed(f"the directory lacks {blob}, the data of a large object")
            return
        stem = stem_of(name)
        method = _METHODS.get(name.removeprefix(stem))
        data = Decompressed(source, method, name, on_step=self._on_step) if method else source
        tail, size = b"", 0
        while read := data.read(PIECE):
            self._on_step()
            tail, size = (tail + read)[-8:], size + len(read)
        table = self._tables.get(stem)
        # For a large object without data, pg_dump writes an empty file, except with gzip. A table has an end marker.
        unwritten = isinstance(data, Decompressed) and method == "gzip" and not data.streams
        if unwritten or (table and not has_end_marker(tail, table)):
            what = table.label if table else "a large object"
            raise VerificationFailed(f"{name}, the data of {what}, is {'truncated' if size else 'empty'}")
