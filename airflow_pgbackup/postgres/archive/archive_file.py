"""An archive on disk, in any of pg_dump's three formats: which one it is, and its table of contents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airflow_pgbackup.byte_streams import CountingReader, FileSection, Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.tar_format import TOC, check_tar_entries, is_tar, tar_members
from airflow_pgbackup.postgres.archive.toc import Keep, Toc, parse_toc

_FORMAT = slice(10, 11)  # after the magic, three bytes of version and two of sizes: ReadHead in pg_backup_archiver.c


def artifact_format(head: bytes) -> str:
    """Return what pg_restore would take a file for: ``custom``, ``directory`` for a single ``toc.dat``, ``tar``; else
    ``plain``.

    :param head: its first 512 bytes, or all of them.
    """
    if head.startswith(b"PGDMP"):
        return "custom" if head[_FORMAT] == b"\x01" else "directory"
    return "tar" if is_tar(head) else "plain"


def read_archive_toc(path: Path, format: str, on_step: Callable[[], None], *, keep: Keep | None = None) -> Toc:
    """Return the table of contents of an archive. A tar file is checked to its end, see :func:`.tar_members`.

    :param path: a file, or the directory of a directory archive.
    :param format: ``custom``, ``directory`` or ``tar``.
    :param on_step: called at each read; may raise.
    :param keep: by default all entries.
    :raises VerificationFailed, NotProven, ClientError: as :func:`.read_toc` and :func:`.tar_members`.
    """

    def parsed(source: Readable, what: str) -> Toc:
        return parse_toc(CountingReader(source, lambda size: on_step()), what=what, keep=keep)

    if format == "directory":
        try:
            with (path / TOC).open("rb") as file:
                return parsed(file, TOC)
        except FileNotFoundError:
            raise VerificationFailed(f"the directory lacks {TOC}, its table of contents") from None
    with path.open("rb") as file:
        if format == "custom":
            return parsed(file, "the archive")
        members = tar_members(file, on_step)
        if TOC not in members:
            raise VerificationFailed(f"the tar file lacks {TOC}, its table of contents")
        toc = parsed(FileSection(file, *members[TOC]), TOC)
    check_tar_entries(members, toc.entries)
    return toc
