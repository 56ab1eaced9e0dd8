"""An archive in directory format: every member present and complete.

pg_restore takes an emptied or truncated member for a table with fewer rows, and exits 0.

One case cannot be detected, since nothing else in the archive holds the length: an uncompressed large object that was
truncated or emptied. Level ``integrity`` finds it by the sha256 in the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import check_complete
from airflow_pgbackup.postgres.archive.member_names import check_data_name, listed_large_objects
from airflow_pgbackup.postgres.archive.toc import TocEntry

_BLOB = re.compile(r"(blob_[0-9]+\.dat)(?:\.(?:gz|zst|lz4))?")
_SUFFIXES = ("", ".gz", ".zst", ".lz4")


def check_directory(directory: Path, entries: Iterable[TocEntry], on_step: Callable[[], None]) -> None:
    """Raise if a member of a directory archive is missing, emptied or truncated.

    :param on_step: called every few MiB; may raise.
    :raises VerificationFailed: the member, and the table or large object whose data it is.
    """
    listed: set[str] = set()
    for entry in entries:
        if not entry.file:
            continue
        on_step()
        check_data_name(entry)
        member = _find_member(directory, entry.file, entry.label)
        if entry.kind == "BLOBS":
            with member.open("rb") as file:
                for blob in listed_large_objects(file, member.name):
                    listed.add(blob)
                    _check_member(_find_member(directory, blob, "a large object"), None, on_step)
        else:
            _check_member(member, entry, on_step)
    for path in directory.iterdir():
        match = _BLOB.fullmatch(path.name)
        if match and match.group(1) not in listed:
            raise VerificationFailed(f"no list of large objects names {path.name}: a blobs*.toc is truncated")


def member_of(directory: Path, name: str) -> Path | None:
    """Return the file of a member, whose name has a suffix for its compression; None if there is none."""
    paths = (directory / (name + suffix) for suffix in _SUFFIXES)  # listing a million large objects takes long
    return next((path for path in paths if path.is_file()), None)


def _find_member(directory: Path, name: str, what: str) -> Path:
    path = member_of(directory, name)
    if path is None:
        raise VerificationFailed(f"the directory lacks {name}, the data of {what}")
    return path


def _check_member(path: Path, table: TocEntry | None, on_step: Callable[[], None]) -> None:
    """Check that a member is complete.

    :param table: None for a large object, which may be empty and has no end marker.
    :raises VerificationFailed: the member is empty or truncated.
    """
    suffix = path.suffix.removeprefix(".")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tail: bytes | None
        if suffix == "dat":
            file.seek(max(size - 8, 0))
            tail = file.read()
        elif size or suffix == "gz":  # for no data, pg_dump's zstd and lz4 write an empty file
            file.seek(0)
            tail = check_complete(file, suffix, path.name, on_step)
        else:
            tail = b""
    if table and tail is not None and not has_end_marker(tail, table):
        raise VerificationFailed(
            f"{path.name} is empty" if not size else f"{path.name}, the data of {table.label}, is truncated"
        )


def has_end_marker(tail: bytes, table: TocEntry) -> bool:
    """Return whether data ends as ``dumpTableData_copy`` or ``dumpTableData_insert`` in ``pg_dump.c`` ends it."""
    if table.copy_statement:
        return tail.endswith(b"\\.\n\n\n")
    return tail.endswith(b";\n\n\n") or tail == b"\n\n"
