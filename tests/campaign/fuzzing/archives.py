"""Archives in each format, read by this package and by pg_restore.

What must hold: what we accept, pg_restore accepts, with as many rows and bytes; the decoder in this process and
pg_restore find the same tables, rows and sequences; and pg_restore makes the same of an archive that we compressed as
of the one that pg_dump wrote.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from campaign.fuzzing.engine import Target, Violation
from campaign.fuzzing.mutations import some_bytes, with_words
from campaign.fuzzing.postgres_programs import DEADLINE, client_of, dumps, newest, packed, pg_restore, unpacked

from airflow_pgbackup.backup.streams import compressed_inside
from airflow_pgbackup.errors import ClientError, NotProven, PgBackupError, VerificationFailed
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary
from airflow_pgbackup.postgres.archive.sniff import sniff_file
from airflow_pgbackup.postgres.archive.toc import read_toc

REFUSALS = (VerificationFailed, NotProven, ClientError)
_UNKNOWN_KIND = "don't know how to set owner for object type"
"""pg_restore's error for an entry of an unknown kind."""
_PACKAGE = "airflow_pgbackup.postgres.archive"
_WORDS = [
    *(b"PGDMP", b"\x01\x10\x00\x04\x08\x01", b"\x00\x00\x00\x00\x00", b"\x01\x01\x00\x00\x00", b"\x00\xff\xff\xff\x7f"),
    *(b"\x01\x00\x00\x00\x80", b"\x00\x01\x00\x00\x00", b"TABLE DATA", b"BLOBS", b"BLOB METADATA", b"SEQUENCE SET"),
    *(b"COPY public.rows (a, b) FROM stdin;\n", b"\\.\n", b"\\.\n\n\n", b"SET client_encoding = 'LATIN1';\n", b"1\n"),
    *(b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x78\x9c", b"\x50\x2a\x4d\x18", b"\x00" * 512),
]  # fmt: skip


@contextmanager
def _place() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def _digest(path: Path, format: str, *, in_process: bool = False) -> ArchiveSummary:
    reader = ArchiveReader(path, format=format, client=client_of(newest()), deadline=DEADLINE, in_process=in_process)
    return reader.digest()


def _figures(summary: ArchiveSummary) -> tuple[int, int]:
    copied = [table for table in summary.tables if table.comparable == "copy"]
    return sum(table.rows for table in copied), sum(table.bytes for table in copied)


def _accepted_by_both(path: Path, format: str, summary: ArchiveSummary) -> None:
    """Raise unless pg_restore accepts an archive that we accepted, with the same rows."""
    try:
        restored = pg_restore(newest(), path, format, "--section=data")
    except subprocess.TimeoutExpired:
        raise Violation("accepted, but pg_restore does not end") from None
    if restored.script is None:
        raise Violation("accepted, but pg_restore refuses it")
    if restored.copies != _figures(summary):
        raise Violation("accepted with other rows than pg_restore finds")


def _toc(data: bytes) -> str:
    toc, read = read_toc(io.BytesIO(data), what="the archive")
    if toc.size > len(read):
        raise Violation("a table of contents larger than what was read")
    for entry in toc.entries:
        str(entry.label), repr(entry)
    sniff_file(io.BytesIO(data), "the archive")
    return "accepted"


def _custom(data: bytes) -> str:
    with _place() as place:
        file = place / "archive"
        file.write_bytes(data)
        try:
            decoded = _digest(file, "custom", in_process=True)
        except REFUSALS as error:
            # Sound for pg_restore, but not for our decoder, would condemn a sound backup: count it.
            sound = pg_restore(newest(), file, "custom", "--section=data").script is not None
            return f"refused: {type(error).__name__}{', though pg_restore reads it' if sound else ''}"
        try:
            read = _digest(file, "custom")
        except REFUSALS as error:
            if _UNKNOWN_KIND in str(error):  # the decoder skips what has no data, and the restore fails
                return f"accepted by the decoder, {_UNKNOWN_KIND}"
            raise Violation("the decoder accepts what pg_restore's reader refuses") from None
        _accepted_by_both(file, "custom", decoded)
        if read.tables != decoded.tables or read.sequences != decoded.sequences:
            raise Violation("the decoder and pg_restore find different tables or sequences")
        return "accepted"


def _file_of(format: str) -> Callable[[bytes], str]:
    def run(data: bytes) -> str:
        with _place() as place:
            path = place / "archive"
            if format == "directory":
                path.mkdir()
                for name, content in unpacked(data).items():
                    (path / name).write_bytes(content)
            else:
                path.write_bytes(data)
            _accepted_by_both(path, format, _digest(path, format))
            return "accepted"

    return run


def _recompressed(data: bytes) -> str:
    # Only pg_dump 16 and later have zstd.
    possible = data[6:7] >= b"\x0f" and "zstd" in client_of(newest()).compression_methods
    method = "zstd" if len(data) % 2 and possible else "gzip"
    archive = compressed_inside(io.BytesIO(data), method, None).read()
    with _place() as place:
        before, after = place / "before", place / "after"
        before.write_bytes(data)
        after.write_bytes(archive)
        # pg_restore would read a changed table of contents the same way in both; the text shows the data too.
        if pg_restore(newest(), before, "custom") != pg_restore(newest(), after, "custom"):
            raise Violation(f"compressed with {method}, pg_restore makes something else of it")
    return "accepted"


def _mutate_directory(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    files = unpacked(data)
    if not files:
        return some_bytes(random, data, others)
    name = random.choice(sorted(files))
    kind = random.randrange(8)
    if kind == 0:
        del files[name]
    elif kind == 1:
        other = random.choice(sorted(files))
        files[name], files[other] = files[other], files[name]
    elif kind == 2:
        files[name + random.choice((".gz", ".zst", ".lz4", "x"))] = files.pop(name)
    elif kind == 3:
        files.update(random.sample(sorted(unpacked(random.choice(others)).items()), 1))
    else:
        files[name] = some_bytes(random, files[name], list(unpacked(random.choice(others)).values()), _WORDS)
    return packed(files)


def _uncompressed() -> Sequence[bytes]:
    return [data for data in (*dumps("custom"), *dumps("inserts")) if is_uncompressed(data)]


def is_uncompressed(data: bytes) -> bool:
    try:
        return read_toc(io.BytesIO(data), what="the archive")[0].compression == "none"
    except PgBackupError:
        return False


_BYTES = with_words(_WORDS)
TARGETS = [
    Target("toc", lambda: dumps("custom"), _BYTES, _toc, REFUSALS, (f"{_PACKAGE}.toc", f"{_PACKAGE}.sniff")),
    Target("custom", lambda: dumps("custom"), _BYTES, _custom, REFUSALS,
           (f"{_PACKAGE}.toc", f"{_PACKAGE}.custom_format", f"{_PACKAGE}.custom_decoder", f"{_PACKAGE}.decompression",
            f"{_PACKAGE}.zstd_blocks", f"{_PACKAGE}.script_reader")),
    Target("recompressor", _uncompressed, _BYTES, _recompressed, REFUSALS,
           (f"{_PACKAGE}.recompression", f"{_PACKAGE}.custom_format", f"{_PACKAGE}.toc")),
    Target("tar", lambda: dumps("tar"), _BYTES, _file_of("tar"), REFUSALS,
           (f"{_PACKAGE}.tar_format", f"{_PACKAGE}.archive_file", f"{_PACKAGE}.script_reader")),
    Target("directory", lambda: dumps("directory"), _mutate_directory, _file_of("directory"), REFUSALS,
           (f"{_PACKAGE}.directory_format", f"{_PACKAGE}.member_names", f"{_PACKAGE}.decompression")),
]  # fmt: skip
