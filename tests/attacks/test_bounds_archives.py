"""Reading an archive takes a few MiB of memory, whatever it decompresses to and whatever lengths it claims."""

from __future__ import annotations

import functools
import io
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import bombs
import pytest
from bombs import MIB, zstd_block, zstd_frame

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.restore.globals import plan_globals
from airflow_pgbackup.errors import DeadlineExceeded, NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive import script_reader, tar_format, toc, toc_bytes
from airflow_pgbackup.postgres.archive.custom_decoder import copy_blocks
from airflow_pgbackup.postgres.archive.decompression import Decompressed, check_complete
from airflow_pgbackup.postgres.archive.memory_limit import MemoryLimit
from airflow_pgbackup.postgres.archive.script_reader import ScriptReader
from airflow_pgbackup.postgres.archive.summary import ArchiveSummary
from airflow_pgbackup.postgres.archive.toc import parse_toc, read_toc
from airflow_pgbackup.postgres.definitions import script_scan
from airflow_pgbackup.postgres.definitions.objects import script_objects
from airflow_pgbackup.postgres.definitions.script_scan import scan_script
from airflow_pgbackup.postgres.tools.deadline import Deadline

MAX_MIB = 20  # with a window of zstd's level 19, 8 MiB
SIZE = 512  # MiB, of a bomb
HEAD = b"--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 18.4\n\n"
END = b"\n--\n-- PostgreSQL database dump complete\n--\n\n"

# -- decompression -----------------------------------------------------------------------------------------------------

READ_ALL = """
from airflow_pgbackup.postgres.archive.decompression import Decompressed
path, method = sys.argv[1:]
with open(path, "rb") as file:
    reader, size = Decompressed(file, method, "the dump"), 0
    size += len(reader.read(1))
    ready()
    while data := reader.read(1 << 18):
        size += len(data)
print(size)
"""

BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zstd": ("zstd", lambda: bombs.zstd(bombs.zeros(SIZE))),
    "zstd-19": ("zstd", lambda: bombs.zstd(bombs.zeros(SIZE), level=19)),
    "zstd-rle": (
        "zstd",
        lambda: zstd_frame(*[zstd_block(1, 128 << 10, b"x")] * (8 * SIZE - 1), zstd_block(1, 1 << 17, b"x", last=True)),
    ),
    "zstd-frames": ("zstd", lambda: zstd_frame(zstd_block(1, 128 << 10, b"x", last=True)) * (8 * SIZE)),
    "gzip": ("gzip", lambda: bombs.gzipped(bombs.zeros(SIZE))),
    "gzip-members": ("gzip", lambda: bombs.gzipped(bombs.zeros(1)) * SIZE),
    "zlib": ("zlib", lambda: zlib.compress(bytes(MIB)) + zlib.compress(bytes((SIZE - 1) * MIB))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_takes_little_memory(tmp_path: Path, name: str) -> None:
    method, make = BOMBS[name]
    path = tmp_path / "bomb"
    path.write_bytes(make())
    assert path.stat().st_size < 2 * MIB
    size, mib = bombs.grown(READ_ALL, str(path), method)
    assert int(size) == SIZE * MIB
    assert mib < MAX_MIB


def test_a_decompression_bomb_in_a_directory_archive_takes_little_memory(tmp_path: Path) -> None:
    """A gzip member must be decompressed to verify its checksum."""
    (tmp_path / "1.dat.gz").write_bytes(bombs.gzipped(bombs.zeros(SIZE)))
    code = """
from airflow_pgbackup.postgres.archive.decompression import check_complete
ready()
with open(sys.argv[1], "rb") as file:
    print(len(check_complete(file, "gz", "1.dat.gz", lambda: None)))
"""
    tail, mib = bombs.grown(code, str(tmp_path / "1.dat.gz"))
    assert (tail, mib < MAX_MIB) == ("8", True)


@pytest.mark.parametrize("level", [3, 19])
def test_the_largest_window_of_pg_dump_is_read(level: int) -> None:
    """``zstd --long`` and pg_dump's ``zstd:long`` need a window of 128 MiB."""
    data = bombs.zstd(bombs.zeros(2), level=level, window_log=27)
    reader = Decompressed(io.BytesIO(data), "zstd", "the dump")
    assert sum(map(len, iter(lambda: reader.read(MIB), b""))) == 2 * MIB


@pytest.mark.parametrize(
    "data", [bombs.zstd(bombs.zeros(1), window_log=28), zstd_frame(window=0xFF)], ids=["28", "claim"]
)
def test_a_larger_window_is_refused(data: bytes) -> None:
    with pytest.raises(NotProven, match=r"the dump needs a zstd window of [0-9]+ MiB; 128 MiB are allowed"):
        Decompressed(io.BytesIO(data), "zstd", "the dump").read(1)


class Stop(Exception):
    pass


EMPTY_INPUT: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", bombs.EMPTY_GZIP),
    "zstd-frames": ("zstd", zstd_frame(zstd_block(0, 0, last=True))),
    "zstd-skipped": ("zstd", bombs.skippable(b"")),
}


@pytest.mark.parametrize("name", EMPTY_INPUT)
def test_input_that_decompresses_to_nothing_has_a_deadline(name: str) -> None:
    method, piece = EMPTY_INPUT[name]
    source = _Endless(piece * 10_000)

    def on_step() -> None:
        if source.reads > 5:
            raise Stop

    with pytest.raises(Stop):
        Decompressed(source, method, "the dump", on_step=on_step).read(1)


def test_blocks_that_decompress_to_nothing_have_a_deadline() -> None:
    def stop() -> None:
        raise Stop

    frame = zstd_frame(*[zstd_block(0, 0)] * 10_000)
    with pytest.raises(Stop):
        check_complete(io.BytesIO(frame), "zst", "1.dat.zst", stop)
    source = _Endless(zstd_block(0, 0) * 10_000)
    source.first = zstd_frame()

    def on_step() -> None:
        if source.reads > 5:
            raise Stop

    with pytest.raises(Stop):
        Decompressed(source, "zstd", "the dump", on_step=on_step).read(1)


class _Endless:
    """A source that repeats a piece."""

    def __init__(self, piece: bytes) -> None:
        self.first = b""
        self.reads = 0
        self._piece = piece

    def read(self, size: int = -1, /) -> bytes:
        self.reads += 1
        first, self.first = self.first, b""
        return first + self._piece


@pytest.mark.parametrize("junk", [b"\0", b"(\xb5/\xfd" * 5, b"junk" * 10, b"P*M\x18\xff\xff\xff\xff"], ids=repr)
def test_junk_after_a_frame_is_an_error(junk: bytes) -> None:
    reader = Decompressed(io.BytesIO(bombs.zstd(bombs.zeros(1)) + junk), "zstd", "the dump")
    with pytest.raises(VerificationFailed):
        list(iter(lambda: reader.read(MIB), b""))


# -- archives ----------------------------------------------------------------------------------------------------------


def custom(*chunks: bytes, claimed: int | None = None) -> bytes:
    """Return an archive with one table. :param claimed: length that the last chunk claims."""
    lengths = [*map(len, chunks)]
    if claimed is not None:
        lengths[-1] = claimed
    data = b"".join(bombs.number(length) + chunk for length, chunk in zip(lengths, chunks, strict=True))
    return bombs.toc(bombs.entry(1)) + b"\1" + bombs.number(1) + data + bombs.number(0)


READ_ARCHIVE = """
import threading
from airflow_pgbackup.postgres.archive.custom_decoder import copy_blocks
from airflow_pgbackup.postgres.archive.summary import ArchiveSummary
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.tools.deadline import Deadline
from airflow_pgbackup.errors import VerificationFailed
with open(sys.argv[1], "rb") as file:
    ready()
    try:
        toc = read_toc(file, what="the archive")[0]
        file.seek(toc.size)
        for block in copy_blocks(file, toc, ArchiveSummary(), Deadline(60, work="reading")):
            print(block.name, sum(map(len, block.chunks())))
    except VerificationFailed as error:
        print(error)
"""


def test_a_row_of_any_length_takes_little_memory(tmp_path: Path) -> None:
    """pg_dump writes each row as a chunk, and a row may have 1 GiB."""
    row = b"x" * (64 * MIB) + b"\n"
    (tmp_path / "a.dump").write_bytes(custom(row, b"\\.\n\n\n"))
    said, mib = bombs.grown(READ_ARCHIVE, str(tmp_path / "a.dump"))
    assert said == f"t {len(row)}"
    assert mib < MAX_MIB


def test_a_chunk_that_is_shorter_than_it_claims(tmp_path: Path) -> None:
    (tmp_path / "a.dump").write_bytes(custom(b"x" * (128 * MIB), claimed=0x7FFFFFFF))
    said, mib = bombs.grown(READ_ARCHIVE, str(tmp_path / "a.dump"))
    assert "the file ends inside its data" in said
    assert mib < MAX_MIB


def test_a_chunk_of_negative_length_is_an_error() -> None:
    archive = custom(b"").removesuffix(bombs.number(0) * 2) + bombs.NO_TEXT
    source = io.BytesIO(archive)
    found = parse_toc(source, what="the archive")
    source.seek(found.size)
    block = next(copy_blocks(source, found, ArchiveSummary(), Deadline(60, work="reading")))
    with pytest.raises(VerificationFailed, match="a chunk has a negative length"):
        list(block.chunks())


CLAIMS: dict[str, Callable[[], bytes]] = {
    "entries": lambda: bombs.toc(bombs.entry(1), count=2**31 - 1),
    "text": lambda: bombs.toc(bombs.entry(1)[:10] + bombs.number(2**31 - 1)),
    "dependencies": lambda: bombs.toc(bombs.entry(1, depends_on=bombs.text(b"1") * 1000)[: -len(bombs.NO_TEXT) - 9]),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_table_of_contents_that_is_shorter_than_it_claims(name: str) -> None:
    with pytest.raises(VerificationFailed):
        read_toc(io.BytesIO(CLAIMS[name]()), what="the archive")


@pytest.mark.parametrize(
    ("limit", "entries"),
    [
        ("MAX_BYTES", [bombs.entry(1, definition=b"x" * (2 * MIB))]),
        ("MAX_BYTES", [bombs.entry(1, depends_on=bombs.text(b"1") * 400_000)]),
        ("MAX_ENTRIES", [bombs.entry(n) for n in range(1, 102)]),
    ],
    ids=["text", "dependencies", "entries"],
)
def test_a_table_of_contents_that_is_too_large(
    monkeypatch: pytest.MonkeyPatch, limit: str, entries: list[bytes]
) -> None:
    """The dump may still be sound."""
    module, value = {"MAX_BYTES": (toc_bytes, MIB), "MAX_ENTRIES": (toc, 100)}[limit]
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(NotProven, match="the table of contents of the archive has more than"):
        read_toc(io.BytesIO(bombs.toc(*entries)), what="the archive")


def test_a_table_of_contents_of_100000_tables_is_within_the_limits() -> None:
    """100,000 tables with an index and a sequence each are some 800,000 entries and 350 MB."""
    assert toc_bytes.MAX_BYTES >= 500 * MIB
    assert toc.MAX_ENTRIES >= 2_000_000


def test_a_tar_file_with_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_format, "MAX_MEMBERS", 3)
    headers = []
    for n in range(4):
        header = bytearray(512)
        name = b"%d.dat" % n
        header[: len(name)] = name
        header[124:136] = b"00000000000\0"
        header[156] = ord("0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        headers.append(bytes(header))
    with pytest.raises(NotProven, match="more than 3 members"):
        tar_format.tar_members(io.BytesIO(b"".join(headers) + bytes(1024)), lambda: None)


# -- scripts -----------------------------------------------------------------------------------------------------------

READ_SCRIPT = """
from airflow_pgbackup.postgres.archive.reader import ArchiveReader
ready()
summary = ArchiveReader(sys.argv[1], format="plain", client=None, deadline=240, compression="zstd").digest()
print(summary.rows)
"""
LONG, DENSE = 128, 24  # MiB; dense with tokens, which take longer to read


def long(begin: bytes, filling: bytes, end: bytes, size: int = LONG) -> Iterator[bytes]:
    yield HEAD + begin
    for _ in range(size):
        yield filling * (MIB // len(filling))
    yield end + END


SCRIPTS: dict[str, tuple[int, Iterator[bytes]]] = {
    "row": (1, long(b"COPY t (a) FROM stdin;\n", b"x", b"\n\\.\n")),
    "rows": (LONG * MIB + 1, long(b"COPY t (a) FROM stdin;\n", b"\n", b"\n\\.\n")),
    "insert": (1, long(b"INSERT INTO t VALUES ('", b"x", b"');\n")),
    "body": (0, long(b"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$", b"x", b"$$;\n")),
    "name": (0, long(b'COMMENT ON TABLE "', b"x", b"\" IS 'x';\n")),
    "comment": (0, long(b"-- ", b"x", b"\n")),
    "space": (0, long(b"", b"\n", b"")),
    "nested": (0, long(b"SELECT ", b" /* ", b" */" * (DENSE * MIB // 8) + b"1;\n", DENSE // 2)),
    "words": (0, long(b"SELECT ", b"abc ", b";\n", DENSE)),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_with_few_objects_takes_little_memory(tmp_path: Path, name: str) -> None:
    rows, pieces = SCRIPTS[name]
    path = tmp_path / "a.sql.zst"
    path.write_bytes(bombs.zstd(pieces))
    said, mib = bombs.grown(READ_SCRIPT, str(path))

    assert said == str(rows)
    assert mib < MAX_MIB


NAMING: dict[str, bytes] = {
    "tables": b"COPY t%d (a) FROM stdin;\n\\.\n",
    "inserts": b"INSERT INTO t%d VALUES (1);\n",
    "sequences": b"SELECT pg_catalog.setval('public.s%d', 1, false);\n",
    "views": b"REFRESH MATERIALIZED VIEW public.v%d;\n",
}


@pytest.mark.parametrize("name", NAMING)
def test_a_script_with_too_many_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(script_reader, "MemoryLimit", functools.partial(MemoryLimit, max_bytes=MIB))
    text = HEAD + b"".join(NAMING[name] % n for n in range(10_000)) + END
    with pytest.raises(NotProven, match="their names take more than 1 MiB"):
        list(ScriptReader(io.BytesIO(text), ArchiveSummary()).blocks())


def test_a_script_with_many_large_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no names: each takes 28 bytes."""
    monkeypatch.setattr(script_reader, "MemoryLimit", functools.partial(MemoryLimit, max_bytes=1 << 16))

    def read(count: int) -> int:
        summary = ArchiveSummary()
        opened = b"".join(b"SELECT pg_catalog.lo_open('%d', 131072);\n" % (16384 + n) for n in range(count))
        list(ScriptReader(io.BytesIO(HEAD + opened + END), summary).blocks())
        return summary.large_objects[0].count

    assert read((1 << 16) // 28) == (1 << 16) // 28
    with pytest.raises(NotProven, match="so many tables, roles and other objects"):
        read((1 << 16) // 28 + 1)


@pytest.mark.parametrize("statement", [b"GRANT ALL ON TABLE t TO r%d;\n", b"CREATE EXTENSION e%d;\n"])
def test_a_script_with_too_many_requirements(monkeypatch: pytest.MonkeyPatch, statement: bytes) -> None:
    monkeypatch.setattr(script_scan, "MemoryLimit", functools.partial(MemoryLimit, max_bytes=MIB))
    text = HEAD + b"".join(statement % n for n in range(10_000)) + END
    with pytest.raises(NotProven, match="their names take more than 1 MiB"):
        scan_script(io.BytesIO(text))
    repeated = HEAD + (statement % 1) * 10_000 + END
    assert scan_script(io.BytesIO(repeated)).sections[0].requirements.names == 1


NUMBERS = {
    "large object": b"SELECT pg_catalog.lo_open('9999999999', 131072);\n",
    "value": b"SELECT pg_catalog.setval('public.s', %s, true);\n" % (b"9" * 5000),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_an_error(name: str) -> None:
    with pytest.raises(VerificationFailed):
        list(ScriptReader(io.BytesIO(HEAD + NUMBERS[name] + END), ArchiveSummary()).blocks())


def test_a_version_out_of_range_is_read() -> None:
    text = HEAD.replace(b"18.4", b"9" * 6000) + END
    assert scan_script(io.BytesIO(text)).dumped_from < 10_000


def test_a_row_with_columns_in_another_order_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_pgbackup.postgres.archive import row_digests

    monkeypatch.setattr(row_digests, "_LONGEST_ROW", MIB)
    hasher = row_digests.RowHasher()
    hasher.begin_block(("a", "b"))
    hasher.begin_block(("b", "a"))
    hasher.update(b"1\t")
    hasher.update(b"2\n3\t4\n")
    straight = row_digests.RowHasher()
    straight.begin_block(("a", "b"))
    straight.update(b"2\t1\n4\t3\n")
    assert hasher.finish() == straight.finish()
    for _ in range(10):
        hasher.update(b"x" * 100_000)
    with pytest.raises(VerificationFailed, match="a row has more than 1,048,576 bytes"):
        hasher.update(b"x" * 100_000)


def test_a_deadline_ends_the_reading_of_a_table_of_contents(tmp_path: Path) -> None:
    from airflow_pgbackup.postgres.archive.reader import ArchiveReader

    path = tmp_path / "a.dump"
    path.write_bytes(bombs.toc(*[bombs.entry(n, definition=b"x" * 1000) for n in range(1, 20_000)]))
    reader = ArchiveReader(path, format="custom", client=None, deadline=1e-6)  # type: ignore[arg-type]
    with pytest.raises(DeadlineExceeded):
        list(reader.blocks())


# -- time --------------------------------------------------------------------------------------------------------------

HEADER = b"-- Name: " + b"; Type: ; Schema: " * 480 + b"\n"
NOBODYS = ServerInfo(180004, True, True, "me", 100, frozenset(), frozenset(), frozenset(), {})
PARAMETER = "GRANT SET ON PARAMETER " + " ON PARAMETER x TO " * 10_000


@pytest.mark.parametrize(
    "parse",
    [
        lambda: script_objects(io.BytesIO(HEADER)),
        lambda: plan_globals([PARAMETER], NOBODYS, bootstrap="postgres"),
    ],
    ids=["comment", "grant"],
)
def test_parsing_a_text_takes_linear_time(parse: Callable[[], object]) -> None:
    """A comment may have 64 KiB, a statement 1 MiB, and the cancel flag is not checked inside one."""
    start = time.process_time()
    parse()
    assert time.process_time() - start < 1.0
