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
    """Return a frame of stored blocks: only the frame is checked."""
    frame = (0x184D2204).to_bytes(4, "little") + bytes([0x40 | flags, 0x70])
    frame += bytes(8 if flags & 8 else 0) + bytes(4 if flags & 1 else 0) + b"\0"
    for block in (b"some data", b"more"):
        frame += (0x80000000 | len(block)).to_bytes(4, "little") + block + bytes(4 if flags & 16 else 0)
    return frame + bytes(4) + bytes(4 if flags & 4 else 0)


DATA = b"".join(b"%d\ttext of row %d\n" % (i, i * 7919) for i in range(60)) + b"\\.\n\n\n"
ZEROS = bytes(300_000)
COMPLETE = {
    "gz": [gzip.compress(DATA), gzip.compress(b""), gzip.compress(DATA[:50]) + gzip.compress(DATA[50:])],
    "zst": [
        zstandard.ZstdCompressor().compress(DATA),
        zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(DATA),
        zstandard.ZstdCompressor().compress(ZEROS),
        b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.ZstdCompressor().compress(DATA),
    ],
    "lz4": [lz4_frame(flags) for flags in (0, 1, 4, 8, 16, 29)],
}


# Explicit IDs: made from the bytes they would contain the time, and differ between processes of pytest-xdist.
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        pytest.param(suffix, content, id=f"{suffix}-{number}")
        for suffix, contents in COMPLETE.items()
        for number, content in enumerate(contents)
    ],
)
def test_every_truncated_file_is_detected(suffix: str, content: bytes) -> None:
    check_complete(io.BytesIO(content), suffix, "a file", nothing)
    complete_before = {0, 11} if content.startswith(b"\x50\x2a") else {0} if suffix != "gz" else set()
    complete_before |= {len(gzip.compress(DATA[:50]))}  # of two streams the first is complete by itself
    for length in set(range(len(content))) - complete_before:
        with pytest.raises(VerificationFailed, match=r"a file is (truncated|empty)"):
            check_complete(io.BytesIO(content[:length]), suffix, "a file", nothing)


@pytest.mark.parametrize("suffix", COMPLETE)
def test_garbage_is_corrupt(suffix: str) -> None:
    with pytest.raises(VerificationFailed, match="a file is corrupt"):
        check_complete(io.BytesIO(b"not compressed" * 10), suffix, "a file", nothing)
    with pytest.raises(VerificationFailed, match="a file is corrupt"):
        check_complete(io.BytesIO(COMPLETE[suffix][0] + b"not compressed" * 10), suffix, "a file", nothing)


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
def test_a_compressed_script_is_decompressed(method: str, content: bytes, size: int) -> None:
    reader = Decompressed(io.BytesIO(content), method, "the dump")
    assert b"".join(iter(lambda: reader.read(size), b"")) == DATA


@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_a_truncated_script_is_an_error(method: str) -> None:
    content = gzip.compress(DATA) if method == "gzip" else zstandard.ZstdCompressor().compress(DATA)
    for length in range(1, len(content)):
        reader = Decompressed(io.BytesIO(content[:length]), method, "the dump")
        with pytest.raises(VerificationFailed, match=f"truncated after {length} bytes"):
            list(iter(lambda reader=reader: reader.read(1 << 20), b""))


def test_an_unsupported_compression_is_not_proven() -> None:
    with pytest.raises(NotProven, match="lz4"):
        Decompressed(io.BytesIO(b"data"), "lz4", "the dump").read(1)
