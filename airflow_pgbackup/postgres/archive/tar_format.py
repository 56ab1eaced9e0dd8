"""An archive in tar format: its members, checked to the end of the file before pg_restore opens it.

pg_restore loops endlessly on some truncated tar archives, so the members and the two zero blocks at the end are checked
first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import BinaryIO

from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.member_names import check_tar_member
from airflow_pgbackup.postgres.archive.toc import TocEntry

BLOCK = 512
MAX_MEMBERS = 1 << 22
"""Tables and large objects together. Their names are held in memory."""

TOC = "toc.dat"
_MAGIC = slice(257, 262)  # POSIX and GNU alike: src/port/tar.c


def is_tar(head: bytes) -> bool:
    """Return whether a file is a tar archive of pg_dump, whose first member is ``toc.dat``.

    :param head: the first 512 bytes of the file.
    """
    return head[:100].rstrip(b"\0") == TOC.encode() and head[_MAGIC] == b"ustar"


def toc_size(head: bytes) -> int:
    """Return the size of the table of contents, which follows a first block of which :func:`is_tar` is true.

    :raises VerificationFailed: the block is damaged.
    """
    return _tar_header(head, 0)[1]


def tar_members(file: BinaryIO, on_step: Callable[[], None]) -> dict[str, tuple[int, int]]:
    """Return the members of a tar file: name to offset and size of the content, in bytes.

    :param on_step: called at each member; may raise.
    :raises VerificationFailed: a header is damaged, a member is truncated, the two zero blocks are missing, or a member
        is one that pg_dump never writes.
    :raises NotProven: more than :data:`MAX_MEMBERS` members.
    """
    size = file.seek(0, 2)
    if not size:
        raise VerificationFailed("the tar file is empty")
    members: dict[str, tuple[int, int]] = {}
    position = 0
    while True:
        on_step()
        file.seek(position)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise VerificationFailed(
                f"the tar file is truncated: it ends after {size} bytes, without the end-of-archive blocks"
            )
        if not any(header):
            if any(file.read(BLOCK)) or size < position + 2 * BLOCK:
                raise VerificationFailed(f"the tar file does not end with two zero blocks: {size} bytes")
            return members
        name, length = _tar_header(header, position)
        check_tar_member(name, header[156:157])
        if name in members:
            raise VerificationFailed(f"the tar file has {name} twice")
        if len(members) == MAX_MEMBERS:
            raise NotProven(
                f"the tar file has more than {MAX_MEMBERS:,} members",
                hint="Restore the dump with pg_restore to prove that it is sound; dump in custom format from now on.",
            )
        members[name] = (position + BLOCK, length)
        position += BLOCK + -(-length // BLOCK) * BLOCK
        if position > size:
            raise VerificationFailed(
                f"the tar file is truncated: member {name} ends at byte {position}, the file at byte {size}"
            )


def check_tar_entries(members: Iterable[str], entries: Iterable[TocEntry]) -> None:
    """Raise if the table of contents names a member that the tar file lacks: pg_restore would search for it endlessly.

    :raises VerificationFailed: the missing member, and the table or large object whose data it is.
    """
    found = set(members)
    for entry in entries:
        if not entry.file:
            continue
        # The entry of the large objects names a file that pg_dump never writes.
        names = [f"blobs_{entry.dump_id}.toc", "blobs.toc"] if entry.kind == "BLOBS" else [entry.file]
        if not found.intersection(names):
            raise VerificationFailed(f"the tar file lacks {names[0]}, the data of {entry.label}")


def _tar_header(header: bytes, position: int) -> tuple[str, int]:
    """POSIX 1003.1-1988, ustar; sizes of 8 GiB and more in GNU's base 256, as ``src/port/tar.c`` writes them."""
    name = header[:100].rstrip(b"\0").decode("ascii", "backslashreplace")
    checksum = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    if _tar_number(header[148:156]) != checksum or not name:
        raise VerificationFailed(f"the tar file is damaged: checksum mismatch in the header at byte {position}")
    if (size := _tar_number(header[124:136])) < 0:
        raise VerificationFailed(f"the tar file is damaged: no size in the header at byte {position}")
    return name, size


def _tar_number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else -1
