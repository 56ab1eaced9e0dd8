"""Every truncation of a complete compressed file is detected."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tracemalloc

import lz4.frame
import pytest
import zstandard

from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import Decompressed, check_complete
from airflow_pgbackup.postgres.archive.decompressors import METHODS


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


COMPRESS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def test_every_method_is_tested() -> None:
    assert set(COMPRESS) == set(METHODS)


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_compressed_script_is_decompressed(method: str, streams: int, size: int) -> None:
    compress = COMPRESS[method]
    content = compress(DATA) if streams == 1 else compress(DATA[:100]) + compress(DATA[100:])
    reader = Decompressed(io.BytesIO(content), method, "the dump")
    assert b"".join(iter(lambda: reader.read(size), b"")) == DATA
    assert reader.streams == streams


@pytest.mark.parametrize("method", METHODS)
def test_a_truncated_script_is_an_error(method: str) -> None:
    content = COMPRESS[method](DATA)
    for length in range(1, len(content)):
        reader = Decompressed(io.BytesIO(content[:length]), method, "the dump")
        with pytest.raises(VerificationFailed, match=f"truncated after {length} bytes"):
            list(iter(lambda reader=reader: reader.read(1 << 20), b""))


@pytest.mark.parametrize("method", METHODS)
def test_what_follows_a_compressed_script_is_corrupt(method: str) -> None:
    reader = Decompressed(io.BytesIO(COMPRESS[method](DATA) + b"not compressed" * 10), method, "the dump")
    with pytest.raises(VerificationFailed, match="the dump is corrupt"):
        list(iter(lambda: reader.read(1 << 20), b""))


@pytest.mark.parametrize("zeros", [4, 512, 100_000])
@pytest.mark.parametrize("method", ["gzip", "xz"])
def test_zero_bytes_at_the_end_are_no_fault(method: str, zeros: int) -> None:
    content = COMPRESS[method](DATA) + bytes(zeros)
    reader = Decompressed(io.BytesIO(content), method, "the dump")
    assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == DATA
    assert reader.streams == 1
    done = subprocess.run([method, "-dc"], input=content, capture_output=True, check=True)
    assert done.stdout == DATA, "the program agrees"


def test_zero_bytes_in_front_of_another_stream() -> None:
    """xz decompresses both streams; gzip ignores the second, which must not pass as complete."""
    both = {method: COMPRESS[method](DATA) + bytes(8) + COMPRESS[method](DATA) for method in ("gzip", "xz")}
    reader = Decompressed(io.BytesIO(both["xz"]), "xz", "the dump")
    assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == DATA * 2
    assert subprocess.run(["xz", "-dc"], input=both["xz"], capture_output=True, check=True).stdout == DATA * 2
    with pytest.raises(VerificationFailed, match="followed by zero bytes and then by others, which gzip ignores"):
        check_complete(io.BytesIO(both["gzip"]), "gz", "the dump", nothing)
    assert subprocess.run(["gzip", "-dc"], input=both["gzip"], capture_output=True).stdout == DATA


@pytest.mark.parametrize("follows", [b"", lzma.compress(DATA)])
def test_invalid_padding_of_xz(follows: bytes) -> None:
    content = lzma.compress(DATA) + bytes(3) + follows
    reader = Decompressed(io.BytesIO(content), "xz", "the dump")
    with pytest.raises(VerificationFailed, match="followed by 3 zero bytes, not by a multiple of 4"):
        list(iter(lambda: reader.read(1 << 20), b""))
    assert subprocess.run(["xz", "-dc"], input=content, capture_output=True).returncode == 1, "xz refuses it"


@pytest.mark.parametrize("method", METHODS)
def test_memory_is_bounded_however_much_a_script_decompresses_to(method: str) -> None:
    content = COMPRESS[method](bytes(256 << 20))
    reader = Decompressed(io.BytesIO(content), method, "the dump")
    total = 0
    tracemalloc.start()
    try:
        while data := reader.read(1 << 20):
            total += len(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 256 << 20
    assert peak < 24 << 20


def test_a_large_xz_dictionary_is_not_proven() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    content = lzma.compress(DATA, filters=filters)
    with pytest.raises(NotProven, match="needs more than the 128 MiB of memory"):
        Decompressed(io.BytesIO(content), "xz", "the dump").read(1)


def test_an_unsupported_compression_is_not_proven() -> None:
    with pytest.raises(NotProven, match="brotli"):
        Decompressed(io.BytesIO(b"data"), "brotli", "the dump").read(1)


def test_a_missing_library_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(NotProven, match="lacks the package lz4") as caught:
        Decompressed(io.BytesIO(lz4.frame.compress(DATA)), "lz4", "the dump").read(1)
    assert caught.value.hint == "Install it: pip install lz4."
