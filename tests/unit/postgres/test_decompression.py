"""Every truncation of a complete compressed file is detected."""

from __future__ import annotations

import gzip
import io

import pytest
import zstandard

from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import Decompressed, check_complete


def nothing() -> None:
    """Called at each step."""


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
        with pytest.raises(VerificationFailed, match=r"a file is (truncated|empty)"):
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
        with pytest.raises(VerificationFailed, match=f"truncated after {length} bytes"):
            list(iter(lambda reader=reader: reader.read(1 << 20), b""))


def test_a_compression_that_is_not_known_says_nothing_about_the_dump() -> None:
    with pytest.raises(NotProven, match="lz4"):
        Decompressed(io.BytesIO(b"data"), "lz4", "the dump").read(1)
