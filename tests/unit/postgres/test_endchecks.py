"""The ends of files: every proper beginning of a whole file is found to be cut short."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import Decompressed, check_complete
from airflow_pgbackup.postgres.archive.endchecks import ScriptEnds, check_directory, check_tar_entries, tar_members
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.sql.lexer import SqlLexer


def nothing() -> None:
    """Called at each step."""


def finish(script: bytes) -> ScriptEnds:
    ends = ScriptEnds()
    lexer = SqlLexer(io.BytesIO(script))
    for event in lexer:
        ends.event(event)
    ends.finish(lexer.trailing, lexer.offset)
    return ends


# Plain scripts, shortened from what the tools write.

HEAD = b"--\n-- PostgreSQL database dump\n--\n\n"
TRAILER = b"--\n-- PostgreSQL database dump complete\n--\n\n"
CLUSTER_HEAD = b"--\n-- PostgreSQL database cluster dump\n--\n\n"
CLUSTER_TRAILER = b"--\n-- PostgreSQL database cluster dump complete\n--\n\n"
BODY = b"SET a = 1;\n\nCOPY t (a) FROM stdin;\n1\n\\.\n\n\n"

OLD_DATABASE = HEAD + BODY + TRAILER
DATABASE = HEAD + b"\\restrict k3y\n\n" + BODY + TRAILER + b"\\unrestrict k3y\n\n"
CREATED = DATABASE.replace(
    b"SET a = 1;\n", b"CREATE DATABASE app;\n\n\\unrestrict k3y\n\\encoding SQL_ASCII\n\\connect app\n\\restrict k3y\n"
)
GLOBALS = CLUSTER_HEAD + b"\\restrict abc\n\nCREATE ROLE r;\n\n\\unrestrict abc\n\n" + CLUSTER_TRAILER
CLUSTER = GLOBALS.removesuffix(CLUSTER_TRAILER) + b"\\connect template1\n\n" + DATABASE + CREATED + CLUSTER_TRAILER
OLD_CLUSTER = CLUSTER_HEAD + b"CREATE ROLE r;\n\n\\connect a\n\n" + OLD_DATABASE * 2 + CLUSTER_TRAILER
LYING = DATABASE.replace(b"1\n\\.\n", TRAILER + b"\\unrestrict k3y\n\n\\.\n")
SCRIPTS = {
    "database": DATABASE,
    "before restrict": OLD_DATABASE,
    "with create": CREATED,
    "globals": GLOBALS,
    "cluster": CLUSTER,
    "old cluster": OLD_CLUSTER,
    "trailer as data": LYING,
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_script_is_whole_only_to_its_last_byte(script: bytes) -> None:
    assert finish(script).cluster == script.startswith(CLUSTER_HEAD)
    for length in range(len(script)):
        with pytest.raises(VerificationFailed):
            finish(script[:length])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (b"", "it is empty"),
        (b"\n\n", "does not begin with the head of a dump"),
        (b"SELECT 1;\n", "does not begin with the head of a dump"),
        (b"-- notes\n\n", "does not begin with the head of a dump"),
        (HEAD + BODY, f"cut short after {len(HEAD + BODY)} bytes: '-- PostgreSQL database dump complete' is missing"),
        (HEAD + b"\\restrict a\n" + TRAILER, r"the last \\unrestrict is missing"),
        (HEAD + b"\\restrict a\n" + TRAILER + b"\\unrestrict b\n\n", r"key of \\unrestrict at byte .* is not that of"),
        (HEAD + b"\\restrict a\n\\restrict b\n", r"a second \\restrict at byte 47"),
        (OLD_DATABASE + b"DROP TABLE t;\n", "something behind the dump's trailer, at byte 121"),
        (OLD_DATABASE * 2, "a second dump begins at byte 124"),
        (HEAD + OLD_DATABASE, "a second dump begins at byte 38"),
        (CLUSTER_HEAD + TRAILER, "where none belongs"),
        (HEAD + b"\\! rm -r .\n", r"\\! at byte 35, which pg_dump never writes"),
    ],
)
def test_what_is_wrong_with_a_script(script: bytes, message: str) -> None:
    with pytest.raises(VerificationFailed, match=message):
        finish(script)


# Compressed files


def lz4_frame(flags: int) -> bytes:
    """LZ4 blocks that are stored as they are: the frame is all that is looked at."""
    frame = (0x184D2204).to_bytes(4, "little") + bytes([0x40 | flags, 0x70])
    frame += bytes(8 if flags & 8 else 0) + bytes(4 if flags & 1 else 0) + b"\0"
    for block in (b"some data", b"more"):
        frame += (0x80000000 | len(block)).to_bytes(4, "little") + block + bytes(4 if flags & 16 else 0)
    return frame + bytes(4) + bytes(4 if flags & 4 else 0)


DATA = b"".join(b"%d\ttext of row %d\n" % (i, i * 7919) for i in range(60)) + b"\\.\n\n\n"
ZEROS = bytes(300_000)
WHOLE = {
    "gz": [gzip.compress(DATA), gzip.compress(b""), gzip.compress(DATA[:50]) + gzip.compress(DATA[50:])],
    "zst": [
        zstandard.ZstdCompressor().compress(DATA),
        zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(DATA),
        zstandard.ZstdCompressor().compress(ZEROS),
        b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.ZstdCompressor().compress(DATA),
    ],
    "lz4": [lz4_frame(flags) for flags in (0, 1, 4, 8, 16, 29)],
}


# The ids are ours: made of the bytes they would hold the time, and two processes of pytest-xdist would not agree.
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        pytest.param(suffix, content, id=f"{suffix}-{number}")
        for suffix, contents in WHOLE.items()
        for number, content in enumerate(contents)
    ],
)
def test_a_compressed_file_is_whole_only_to_its_last_byte(suffix: str, content: bytes) -> None:
    check_complete(io.BytesIO(content), suffix, "a file", nothing)
    whole_before = {0, 11} if content.startswith(b"\x50\x2a") else {0} if suffix != "gz" else set()
    whole_before |= {len(gzip.compress(DATA[:50]))}  # two streams: the first is one, too
    for length in set(range(len(content))) - whole_before:
        with pytest.raises(VerificationFailed, match=r"a file is (cut short|empty)"):
            check_complete(io.BytesIO(content[:length]), suffix, "a file", nothing)


@pytest.mark.parametrize("suffix", WHOLE)
def test_garbage_is_no_compressed_file(suffix: str) -> None:
    with pytest.raises(VerificationFailed, match="a file is corrupt"):
        check_complete(io.BytesIO(b"what is this?" * 10), suffix, "a file", nothing)
    with pytest.raises(VerificationFailed, match="a file is corrupt"):
        check_complete(io.BytesIO(WHOLE[suffix][0] + b"what is this?" * 10), suffix, "a file", nothing)


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize(
    ("method", "content"),
    [
        ("gzip", gzip.compress(DATA)),
        ("gzip", gzip.compress(DATA[:100]) + gzip.compress(DATA[100:])),
        ("zstd", zstandard.ZstdCompressor().compress(DATA)),
        ("zstd", zstandard.ZstdCompressor().compress(DATA[:100]) + zstandard.ZstdCompressor().compress(DATA[100:])),
    ],
    ids=["gzip", "two gzip streams", "zstd", "two zstd frames"],
)
def test_a_compressed_script_reads_as_it_was(method: str, content: bytes, size: int) -> None:
    reader = Decompressed(io.BytesIO(content), method, "the dump")
    assert b"".join(iter(lambda: reader.read(size), b"")) == DATA


@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_a_compressed_script_that_is_cut_short_does_not_end(method: str) -> None:
    content = gzip.compress(DATA) if method == "gzip" else zstandard.ZstdCompressor().compress(DATA)
    for length in range(1, len(content)):
        reader = Decompressed(io.BytesIO(content[:length]), method, "the dump")
        with pytest.raises(VerificationFailed, match=f"cut short after {length} bytes"):
            list(iter(lambda reader=reader: reader.read(1 << 20), b""))


def test_a_compression_that_is_not_known_says_nothing_about_the_dump() -> None:
    with pytest.raises(NotProven, match="lz4"):
        Decompressed(io.BytesIO(b"data"), "lz4", "the dump").read(1)


# tar


@pytest.fixture
def tar_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("toc.dat", b"PGDMP"), ("1.dat", DATA), ("2.dat", b""), ("restore.sql", b"x" * 512)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    # pg_dump writes two zero blocks and no more; tarfile fills a record of 20 blocks.
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content + bytes(-len(content) % 512 + 1024))
    return path


def test_the_members_of_a_tar_file(tar_file: Path) -> None:
    with tar_file.open("rb") as file:
        members = tar_members(file, nothing)
        offset, size = members["1.dat"]
        file.seek(offset)
        assert file.read(size) == DATA
    assert list(members) == ["toc.dat", "1.dat", "2.dat", "restore.sql"]


def test_a_tar_file_is_whole_only_to_its_last_byte(tar_file: Path) -> None:
    content = tar_file.read_bytes()
    for length in range(len(content)):
        with pytest.raises(VerificationFailed, match=r"tar file (is empty|is cut short|does not end with two zero)"):
            tar_members(io.BytesIO(content[:length]), nothing)


def test_a_damaged_tar_header_is_found(tar_file: Path) -> None:
    content = tar_file.read_bytes()
    for position in [*range(154), *range(156, 512)]:  # all but the padding behind the checksum
        damaged = content[:position] + bytes([content[position] ^ 0x20]) + content[position + 1 :]
        with pytest.raises(VerificationFailed, match="header at byte 0 fails its checksum"):
            tar_members(io.BytesIO(damaged), nothing)


def test_members_of_more_than_8_gib_have_their_size_in_base_256() -> None:
    size = 9 << 30
    header = bytearray(tarfile.TarInfo("1.dat").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 0x20 + sum(header[156:]))
    with pytest.raises(VerificationFailed, match=f"member 1.dat needs {512 + size} bytes, there are 1024"):
        tar_members(io.BytesIO(bytes(header) + bytes(512)), nothing)


def entry(file: str | None, kind: str = "TABLE DATA", copy: str | None = "COPY public.t (a) FROM stdin;\n") -> TocEntry:
    return TocEntry(7, 1259, 16384, kind, "public", "t", "owner", copy_statement=copy, file=file)


def test_a_tar_file_must_have_what_its_table_of_contents_names() -> None:
    check_tar_entries(["toc.dat", "7.dat"], [entry("7.dat"), entry(None, "TABLE")])
    check_tar_entries(["blobs.toc"], [entry("7.dat", "BLOBS")])
    check_tar_entries(["blobs_7.toc"], [entry("7.dat", "BLOBS")])
    with pytest.raises(VerificationFailed, match=r"lacks 7.dat, the data of TABLE DATA public.t \(entry 7\)"):
        check_tar_entries(["toc.dat", "8.dat"], [entry("7.dat")])


# Directories


@pytest.mark.parametrize(
    ("content", "copy"),
    [
        (b"\\.\n\n\n", True),
        (DATA, True),
        (b"\n\n", False),
        (b"INSERT INTO public.t VALUES (1);\nINSERT INTO public.t VALUES (2);\n\n\n", False),
    ],
)
def test_a_member_is_whole_only_to_its_last_byte(tmp_path: Path, content: bytes, copy: bool) -> None:
    entries = [entry("7.dat", copy="COPY public.t (a) FROM stdin;\n" if copy else None)]
    member = tmp_path / "7.dat"
    member.write_bytes(content)
    check_directory(tmp_path, entries, nothing)
    for length in range(len(content)):
        member.write_bytes(content[:length])
        with pytest.raises(VerificationFailed, match=r"7.dat is empty|7.dat, the data of .*, is cut short"):
            check_directory(tmp_path, entries, nothing)
    member.unlink()
    with pytest.raises(VerificationFailed, match="the directory lacks 7"):
        check_directory(tmp_path, entries, nothing)


@pytest.mark.parametrize("suffix", ["gz", "zst", "lz4"])
def test_an_emptied_compressed_member_is_found(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"7.dat.{suffix}").write_bytes(b"")
    with pytest.raises(VerificationFailed, match=f"7.dat.{suffix} is empty"):
        check_directory(tmp_path, [entry("7.dat")], nothing)


def test_every_large_object_is_listed_and_there(tmp_path: Path) -> None:
    entries = [entry("blobs_7.toc", "BLOBS", copy=None)]
    toc = tmp_path / "blobs_7.toc"
    whole = b"16401 blob_16401.dat\n16402 blob_16402.dat\n"
    toc.write_bytes(whole)
    (tmp_path / "blob_16401.dat").write_bytes(b"")
    (tmp_path / "blob_16402.dat.gz").write_bytes(gzip.compress(b"text"))
    check_directory(tmp_path, entries, nothing)
    for length in range(len(whole)):
        toc.write_bytes(whole[:length])
        with pytest.raises(VerificationFailed, match="cut short"):
            check_directory(tmp_path, entries, nothing)
    toc.write_bytes(whole)
    (tmp_path / "blob_16401.dat").unlink()
    with pytest.raises(VerificationFailed, match="the directory lacks blob_16401"):
        check_directory(tmp_path, entries, nothing)


def test_a_table_of_contents_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="which pg_dump never writes"):
        check_directory(tmp_path, [entry("../7.dat")], nothing)
