"""Small files that decompress to much, or claim great lengths."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterator

import zstandard

MIB = 1024**2


def zstd(pieces: Iterator[bytes], *, level: int = 3, window_log: int | None = None) -> bytes:
    """Return one frame without content size, as a stream has."""
    more = {} if window_log is None else {"window_log": window_log}
    parameters = zstandard.ZstdCompressionParameters.from_level(level, **more)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return b"".join([*map(compressor.compress, pieces), compressor.flush()])


def gzipped(pieces: Iterator[bytes]) -> bytes:
    compressor = zlib.compressobj(wbits=31)
    return b"".join([*map(compressor.compress, pieces), compressor.flush()])


def zeros(mib: int) -> Iterator[bytes]:
    for _ in range(mib):
        yield bytes(MIB)


def zstd_block(kind: int, size: int, content: bytes = b"", *, last: bool = False) -> bytes:
    return (int(last) | kind << 1 | size << 3).to_bytes(3, "little") + content


def zstd_frame(*blocks: bytes, window: int = 0x50) -> bytes:
    """Return a frame without a checksum. :param window: the descriptor; 0x50 is 1 MiB."""
    return b"\x28\xb5\x2f\xfd" + bytes([0, window]) + b"".join(blocks)


def skippable(content: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


EMPTY_GZIP = gzip.compress(b"")
NO_TEXT = b"\1" + (1).to_bytes(4, "little")


def number(value: int) -> bytes:
    """Encode an integer of an archive."""
    return b"\0" + value.to_bytes(4, "little")


def text(value: bytes) -> bytes:
    return number(len(value)) + value


def toc(*entries: bytes, compression: int = 0, count: int | None = None, format: int = 1) -> bytes:
    """Return header and table of contents of an archive of version 1.16.

    :param compression: 0 none, 1 gzip, 2 lz4, 3 zstd. :param format: 1 custom, 3 tar.
    """
    head = b"PGDMP" + bytes([1, 16, 0, 4, 8, format, compression]) + number(0) * 7
    head += text(b"db") + text(b"18.4") + text(b"18.4")
    return head + number(len(entries) if count is None else count) + b"".join(entries)


def entry(dump_id: int, name: bytes = b"t", definition: bytes = b"", depends_on: bytes = b"") -> bytes:
    """Return the entry for the data of a table in a custom archive."""
    copy = b"COPY public." + name + b" (a) FROM stdin;\n"
    about = [name, b"TABLE DATA"]
    body = number(dump_id) + number(1) + text(b"0") + text(b"0") + b"".join(map(text, about)) + number(3)
    body += text(definition) + text(b"") + text(copy) + text(b"public") + text(b"") + text(b"") + number(0)
    return body + text(b"owner") + text(b"false") + depends_on + NO_TEXT + b"\1" + bytes(8)


def grown(code: str, *arguments: str, seconds: float = 300.0) -> tuple[str, int]:
    """Run Python code in its own process, and measure its memory.

    :return: what it printed; peak memory in MiB above that at the call of ``ready()``.
    """
    program = f"""
import sys

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

def ready():
    global before
    before = peak()

{code}
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments], capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stderr
    *said, kib = done.stdout.splitlines()
    return "\n".join(said), int(kib) // 1024
