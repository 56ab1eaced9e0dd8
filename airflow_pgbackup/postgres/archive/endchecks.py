"""Is an artifact there to its last byte? What the tools do not notice, per format.

* tar: pg_restore spins for ever on some archives that are cut short, so members and the two zero blocks at the end are
  checked before it runs.
* directory: pg_restore takes an emptied or shortened member for a table with fewer rows.
* plain: psql restores what is left of a file and succeeds; only the trailer tells, and since ``\\restrict`` the
  trailer is no longer the last line.

What no check can see, as nothing else in the archive tells its length: a large object in a directory archive that is
not compressed, cut short or emptied; the integrity level finds it by the manifest's sha256.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, NoReturn

from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import check_complete
from airflow_pgbackup.postgres.archive.member_names import check_data_name, check_tar_member, listed_large_objects
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.sql.lexer import Comment, Event, MetaCommand
from airflow_pgbackup.postgres.sql.names import connected_name

BLOCK = 512
MOST_MEMBERS = 1 << 22
"""Of a tar file: tables and large objects. Their names are held in memory."""
_BLOB = re.compile(r"(blob_[0-9]+\.dat)(?:\.(?:gz|zst|lz4))?")
_SUFFIXES = ("", ".gz", ".zst", ".lz4")

_RESTRICT_KEY = re.compile(rb"[A-Za-z0-9]+")

_DATABASE_HEAD = b"-- PostgreSQL database dump"
_DATABASE_END = b"-- PostgreSQL database dump complete"
_CLUSTER_HEAD = b"-- PostgreSQL database cluster dump"
_CLUSTER_END = b"-- PostgreSQL database cluster dump complete"


def tar_members(file: BinaryIO, on_step: Callable[[], None]) -> dict[str, tuple[int, int]]:
    """Walk a tar file to its end.

    :param on_step: called at each member; may raise.
    :return: name to offset and size of its content.
    :raises VerificationFailed: a header is damaged, a member is cut short, or the two zero blocks are missing; a member
        is one that pg_dump never writes.
    :raises NotProven: it has more members than :data:`MOST_MEMBERS`.
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
                f"the tar file is cut short: it ends after {size} bytes, without the end-of-archive blocks"
            )
        if not any(header):
            if any(file.read(BLOCK)) or size < position + 2 * BLOCK:
                raise VerificationFailed(f"the tar file does not end with two zero blocks: {size} bytes")
            return members
        name, length = _tar_header(header, position)
        check_tar_member(name, header[156:157])
        if name in members:
            raise VerificationFailed(f"the tar file has {name} twice")
        if len(members) == MOST_MEMBERS:
            raise NotProven(
                f"the tar file has more than {MOST_MEMBERS:,} members",
                hint="If it is a sound dump, restore it with pg_restore, and dump in custom format.",
            )
        members[name] = (position + BLOCK, length)
        position += BLOCK + -(-length // BLOCK) * BLOCK
        if position > size:
            raise VerificationFailed(
                f"the tar file is cut short: member {name} needs {position} bytes, there are {size}"
            )


def _tar_header(header: bytes, position: int) -> tuple[str, int]:
    """POSIX 1003.1-1988, ustar; sizes of 8 GiB and more in GNU's base 256, as ``src/port/tar.c`` writes them."""
    name = header[:100].rstrip(b"\0").decode("ascii", "backslashreplace")
    checksum = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    if _tar_number(header[148:156]) != checksum or not name:
        raise VerificationFailed(f"the tar file is damaged: the header at byte {position} fails its checksum")
    return name, _tar_number(header[124:136])


def _tar_number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else -1


def check_tar_entries(members: Iterable[str], entries: Iterable[TocEntry]) -> None:
    """Raise if the table of contents names a member that the tar file lacks: pg_restore would look for it for ever."""
    there = set(members)
    for entry in entries:
        if not entry.file:
            continue
        # The entry of the large objects names a file that there never is.
        names = [f"blobs_{entry.dump_id}.toc", "blobs.toc"] if entry.kind == "BLOBS" else [entry.file]
        if not there.intersection(names):
            raise VerificationFailed(f"the tar file lacks {names[0]}, the data of {entry.label}")


def check_directory(folder: Path, entries: Iterable[TocEntry], on_step: Callable[[], None]) -> None:
    """Raise if a member of a directory archive is missing, emptied or cut short.

    :param on_step: called every few MiB; may raise.
    """
    listed: set[str] = set()
    for entry in entries:
        if not entry.file:
            continue
        on_step()
        check_data_name(entry)
        member = _find_member(folder, entry.file, entry.label)
        if entry.kind == "BLOBS":
            for blob in listed_large_objects(member):
                listed.add(blob)
                _check_member(_find_member(folder, blob, "a large object"), None, on_step)
        else:
            _check_member(member, entry, on_step)
    for path in folder.iterdir():
        match = _BLOB.fullmatch(path.name)
        if match and match.group(1) not in listed:
            raise VerificationFailed(f"{path.name} is in no list of large objects: a blobs*.toc is cut short")


def member_of(folder: Path, name: str) -> Path | None:
    """The file of a member, which has a suffix of its compression."""
    paths = (folder / (name + suffix) for suffix in _SUFFIXES)  # a listing of a million large objects takes long
    return next((path for path in paths if path.is_file()), None)


def _find_member(folder: Path, name: str, what: str) -> Path:
    path = member_of(folder, name)
    if path is None:
        raise VerificationFailed(f"the directory lacks {name}, the data of {what}")
    return path


def _check_member(path: Path, table: TocEntry | None, on_step: Callable[[], None]) -> None:
    """:param table: None for a large object, which may be empty and ends as it likes."""
    suffix = path.suffix.removeprefix(".")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tail: bytes | None
        if suffix == "dat":
            file.seek(max(size - 8, 0))
            tail = file.read()
        elif size or suffix == "gz":  # of nothing, the zstd and lz4 of pg_dump write nothing
            file.seek(0)
            tail = check_complete(file, suffix, path.name, on_step)
        else:
            tail = b""
    if table and tail is not None and not _ends_well(tail, table):
        raise VerificationFailed(
            f"{path.name} is empty" if not size else f"{path.name}, the data of {table.label}, is cut short"
        )


def _ends_well(tail: bytes, table: TocEntry) -> bool:
    """As ``dumpTableData_copy`` and ``dumpTableData_insert`` in ``pg_dump.c`` end their data."""
    if table.copy_statement:
        return tail.endswith(b"\\.\n\n\n")
    return tail.endswith(b";\n\n\n") or tail == b"\n\n"


class ScriptEnds:
    """Heads and trailers of a script by pg_dump, pg_dumpall or pg_restore. Feed it every event, then finish.

    :ivar cluster: whether it is pg_dumpall's.
    """

    def __init__(self) -> None:
        self.cluster = False
        self._seen: set[bytes] = set()
        self._open: list[bytes] = []  # the trailers that are still to come, innermost last
        self._key: bytes | None = None  # of the \restrict in force
        self._last: Event | None = None

    def event(self, event: Event) -> None:
        """:raises VerificationFailed: it does not begin as a dump, or something follows its trailer."""
        self._last = event
        if isinstance(event, Comment):
            self._comment(event)
        elif not self._open and not (isinstance(event, MetaCommand) and event.name == b"unrestrict"):
            raise VerificationFailed(
                f"there is something behind the dump's trailer, at byte {event.offset}"
                if self._seen
                else "it does not begin with the head of a dump"
            )
        if isinstance(event, MetaCommand):
            self._meta_command(event)

    def _comment(self, event: Comment) -> None:
        text = event.text
        if text in (_DATABASE_HEAD, _CLUSTER_HEAD):
            # Only in a cluster's dump there may be others, one after the other.
            if self._seen and (text == _CLUSTER_HEAD or self._open != [_CLUSTER_END]):
                raise VerificationFailed(f"a second dump begins at byte {event.offset}")
            self.cluster = self.cluster or text == _CLUSTER_HEAD
            self._open.append(_CLUSTER_END if text == _CLUSTER_HEAD else _DATABASE_END)
            self._seen.add(text)
        elif text in (_DATABASE_END, _CLUSTER_END):
            if self._open[-1:] != [text]:
                raise VerificationFailed(f"'{text.decode()}' at byte {event.offset}, where none belongs")
            self._open.pop()

    def _meta_command(self, event: MetaCommand) -> None:
        """The four that pg_dump and pg_dumpall write, with the arguments that they write."""
        if event.name == b"restrict":
            if self._key is not None:
                raise VerificationFailed(f"a second \\restrict at byte {event.offset}")
            if not _RESTRICT_KEY.fullmatch(event.argument):
                raise VerificationFailed(f"\\restrict at byte {event.offset} with a key that pg_dump never writes")
            self._key = event.argument
        elif event.name == b"unrestrict":
            if event.argument != self._key:
                raise VerificationFailed(
                    f"the key of \\unrestrict at byte {event.offset} is not that of the \\restrict before it"
                )
            self._key = None
        elif event.name == b"connect":
            connected_name(event.argument)
        elif (event.name, event.argument) != (b"encoding", b"SQL_ASCII"):  # for the \connect behind it
            name = event.name.decode("ascii", "backslashreplace")
            raise VerificationFailed(f"\\{name[:20]} at byte {event.offset}, which pg_dump never writes")

    def finish(self, trailing: bytes, size: int) -> None:
        """At the end of the script.

        :param trailing: the white space after the last event.
        :param size: of the whole script, bytes.
        :raises VerificationFailed: the trailer is missing, or not whole.
        """
        if not self._seen:
            raise VerificationFailed("it is empty" if not size else "it does not begin with the head of a dump")
        if self._open:
            self._cut(size, f"'{self._open[-1].decode()}' is missing")
        if self._key is not None:
            self._cut(size, "the last \\unrestrict is missing")
        # The trailer comment has a line of two dashes below it, and a blank line ends the script.
        if (isinstance(self._last, Comment) and self._last.text != b"--") or not trailing:
            self._cut(size, "its last line is missing")

    @staticmethod
    def _cut(size: int, detail: str) -> NoReturn:
        raise VerificationFailed(f"the dump is cut short after {size} bytes: {detail}")
