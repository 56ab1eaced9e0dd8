"""Names inside an archive: refuse what pg_dump never writes, before a PostgreSQL tool opens the archive.

pg_restore opens every path that ``toc.dat`` and ``blobs*.toc`` of a directory archive name, ``../`` and symbolic links
included. A file outside the archive then becomes a large object or rows of a table (``setFilePath`` and ``_LoadLOs`` in
``src/bin/pg_dump/pg_backup_directory.c``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.toc import TocEntry, read_toc

_NUMBER = "[0-9]{1,10}"
_TABLE = re.compile(rf"{_NUMBER}\.dat")
_LIST = re.compile(rf"blobs(?:_{_NUMBER})?\.toc")
_BLOB = re.compile(rf"blob_{_NUMBER}\.dat")
_LISTED = re.compile(rb"[0-9]{1,10} (blob_[0-9]{1,10}\.dat)")
_SUFFIX = re.compile(r"\.(?:gz|zst|lz4)\Z")
_LONGEST_LINE = 64
_CHUNK = 1 << 16


def check_tar_member(name: str, kind: bytes) -> None:
    """Raise if a member of a tar archive is not a file that pg_dump writes.

    :param kind: the type flag of its header.
    """
    if kind not in (b"0", b"\0"):
        raise VerificationFailed(f"the tar file has a member {name!r} that is a link or another special file")
    if name not in ("toc.dat", "restore.sql") and not any(p.fullmatch(name) for p in (_TABLE, _LIST, _BLOB)):
        raise VerificationFailed(f"the tar file has a member {name!r}, a name that pg_dump never writes")


def check_data_name(entry: TocEntry) -> None:
    """Raise if the table of contents names a data file that pg_dump would not use for the entry."""
    if entry.file and not (_LIST if entry.kind == "BLOBS" else _TABLE).fullmatch(entry.file):
        raise VerificationFailed(f"{entry.label} names its data file {entry.file!r}, which pg_dump never writes")


def check_member_names(names: list[str]) -> None:
    """Raise if a directory archive has a file that pg_dump never writes, or the same file in two compressions."""
    stems: set[str] = set()
    for name in names:
        stem = stem_of(name)
        compressible = _TABLE.fullmatch(stem) or _BLOB.fullmatch(stem)
        if not (compressible or name == "toc.dat" or _LIST.fullmatch(name)):
            raise VerificationFailed(f"the directory has a file {name!r}, a name that pg_dump never writes")
        if stem in stems:
            raise VerificationFailed(f"the directory has {stem} twice, in different compressions")
        stems.add(stem)


def check_directory_names(directory: Path, on_step: Callable[[], None]) -> None:
    """Raise if a name in a directory archive leads out of it.

    :param directory: has regular files only, and nobody else can write to it.
    :param on_step: called at each entry; may raise.
    :raises VerificationFailed: a name that pg_dump never writes, or the name of a file that the directory lacks.
    :raises ClientError: a newer PostgreSQL wrote the archive than this package supports.
    """
    names = [path.name for path in directory.iterdir()]
    check_member_names(names)
    stems = {stem_of(name) for name in names}
    if "toc.dat" not in stems:
        raise VerificationFailed("the directory lacks toc.dat, its table of contents")
    with (directory / "toc.dat").open("rb") as file:
        toc, _ = read_toc(file, what="toc.dat")
    if toc.format == "custom":
        raise VerificationFailed("toc.dat of a directory archive is in custom format")
    check_data_files(toc.entries, stems, on_step)
    # pg_restore 15 and 16 read blobs.toc even if the table of contents does not name it.
    for name in filter(is_list, names):
        with (directory / name).open("rb") as file:
            for blob in listed_large_objects(file, name):
                on_step()
                if blob not in stems:
                    raise VerificationFailed(f"the directory lacks {blob}, the data of a large object")


def check_data_files(entries: Iterable[TocEntry], stems: Collection[str], on_step: Callable[[], None]) -> None:
    """Raise if a directory archive lacks a file that its table of contents names, or if pg_dump never writes that name.

    :param stems: :func:`stem_of` each file.
    :param on_step: called at each entry; may raise.
    """
    for entry in entries:
        on_step()
        check_data_name(entry)
        if entry.file and entry.file not in stems:
            raise VerificationFailed(f"the directory lacks {entry.file}, the data of {entry.label}")


def stem_of(name: str) -> str:
    """Return the name of a member without the suffix for its compression."""
    return _SUFFIX.sub("", name)


def is_list(name: str) -> bool:
    """Return whether a member is a ``blobs*.toc``, a list of large objects."""
    return _LIST.fullmatch(name) is not None


def listed_large_objects(source: Readable, what: str) -> Iterator[str]:
    """Yield the names of the files that a ``blobs*.toc`` lists.

    :param what: names it in errors.
    :raises VerificationFailed: it is truncated, or has a line that pg_dump never writes.
    """
    damaged = VerificationFailed(f"{what}, the list of large objects, is truncated or damaged")
    left: bytes | None = None
    while data := source.read(_CHUNK):
        *lines, left = ((left or b"") + data).split(b"\n")
        if len(left) > _LONGEST_LINE:
            break
        for line in lines:
            if not (match := _LISTED.fullmatch(line)):
                raise damaged
            yield match[1].decode("ascii")
    if left != b"":  # also of an empty list
        raise damaged
