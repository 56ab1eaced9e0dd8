"""Scripts: what our lexer takes for statements and for table data, and what psql sends to the server.

The lexer reads what pg_dump writes, and documents where psql reads other text differently: a carriage return ends a
comment, ``\\.`` before one ends data, psql inserts its variables, and it takes each word ``begin`` of a statement that
creates a function for the beginning of a body, also a function's name. So such inputs are left out, and what our lexer
takes for a command of psql is not sent to it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Callable, Sequence
from random import Random

import lz4.frame
import zstandard
from campaign.fuzzing.engine import Target, Violation
from campaign.fuzzing.mutations import lines_with_words, some_bytes
from campaign.fuzzing.postgres_programs import dumps, newest, sent_by_psql, statements_of, takes_data

from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.script_reader import ScriptReader
from airflow_pgbackup.postgres.archive.summary import ArchiveSummary
from airflow_pgbackup.postgres.definitions.script_scan import scan_script
from airflow_pgbackup.postgres.sql.lexer import CopyData, MetaCommand, SqlLexer
from airflow_pgbackup.postgres.sql.statement import Statement

_SQL = "airflow_pgbackup.postgres.sql"
_WORDS = [
    *(b"'", b"''", b'"', b"\\", b"\\'", b"$$", b"$a$", b"$1", b"a$b", b"--", b"/*", b"*/", b"/**/", b";", b"(", b")"),
    *(b"E'", b"e'", b"U&'", b"B'", b"N'", b"E''\\'''", b"\n", b"\n\\.\n", b"\\.\n", b"COPY t (a) FROM stdin;\n"),
    *(b"COPY t FROM stdin WITH (FORMAT csv);\n", b"copy t from stdin;\n1\n\\.\n", b"INSERT INTO t VALUES (1);\n"),
    *(b"INSERT INTO t VALUES\n\t(1),\n\t(2) ON CONFLICT DO NOTHING;\n", b"BEGIN ATOMIC", b"CASE", b"END", b"begin"),
    *(b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END;\n", b"atomic", b"DO"),
    *(b"CREATE OR REPLACE PROCEDURE p()", b"SET standard_conforming_strings = off;\n", b"stdin", b"FROM", b"VALUES"),
    *(b"SET standard_conforming_strings = on;\n", b"SELECT 1;\n", b"\xc3\xa9", b"\xff", b"1e5", b"0x1f", b" ", b"\t"),
]  # fmt: skip
_SCRIPTS = [
    b"SELECT 'it''s; -- /* \" $$';\nSELECT E'a\\';b' || $x$ ; $x$ /* ; /* ; */ */;\n-- a comment; \nSELECT a$b$c;\n",
    b'CREATE TABLE "a;""b" (\n    a int -- ;\n);\nCOPY "a;""b" (a) FROM stdin;\n1\n\\N\n\\\\.\n\\.\n\n\nSELECT 1;\n',
    b"INSERT INTO t VALUES (1, 'a;');\nINSERT INTO t VALUES (2, 'b');\nINSERT INTO t VALUES (3, E'\\'');\n",
    b"CREATE FUNCTION f(x int) RETURNS int\n LANGUAGE sql\n BEGIN ATOMIC\n SELECT CASE WHEN x > 1 THEN 2 END;\nEND;\n",
    b"SET standard_conforming_strings = off;\nSELECT 'a\\';b';\nSET standard_conforming_strings = on;\nSELECT 'a\\';\n",
    b"CREATE RULE r AS ON INSERT TO t DO ( DELETE FROM a; DELETE FROM b; );\nDO $\xc3\xa9$ select ';' $\xc3\xa9$;\n",
]
# psql reads these differently, and documents it; pg_dump writes none of them outside of what it quotes.
_LEFT_OUT = re.compile(rb"[\r\0\x1a\f\v]|:[\"'A-Za-z_\x80-\xff{]|(?i:\bbegin\b(?!\s+atomic\b))")


def _ours(data: bytes) -> list[tuple[bytes, bytes | None]] | None:
    """Return statements with their data; None where there is a command of psql."""
    found: list[tuple[bytes, bytes | None]] = []
    for event in SqlLexer(io.BytesIO(data)):
        if isinstance(event, MetaCommand):
            return None
        if isinstance(event, Statement):
            found.append((data[event.offset : event.offset + event.size], None))
        elif isinstance(event, CopyData):
            found.append((event.statement.text, b"".join(event.chunks())))
    return found


def _lexer(data: bytes) -> str:
    ours = _ours(data)
    if ours is None:
        return "has commands"
    if _chunked(data, ours) != [(_one_line(text), taken) for text, taken in ours]:
        raise Violation("read in small pieces, it has other statements")
    if _LEFT_OUT.search(data):
        return "left out"
    if any((taken is not None) != takes_data(text) for text, taken in ours if b"--" not in text and b"/*" not in text):
        # COPY ... FROM stdin WITH ..., and others that pg_dump does not write: our server could not tell.
        return "left out"
    sent = sent_by_psql(newest(), data)
    # psql does not send each empty statement.
    ours = [(text, taken) for text, taken in ours if _one_line(text) != b";"]
    theirs = [(text, taken) for text, taken in statements_of(sent.statements) if _one_line(text) != b";"]
    if sent.refused:
        raise Violation("psql stops at an error where we see statements only")
    at = 0
    for text, taken in ours:
        # Several INSERTs that differ in their values only are one to us.
        text, joined, count = _one_line(text), b"", 0
        while at + count < len(theirs) and len(joined) < len(text):
            joined += _one_line(theirs[at + count][0])
            count += 1
        if joined != text or (count == 1 and (theirs[at][1] or b"") != (taken or b"")):
            raise Violation("psql sends another statement, or other data")
        at += max(count, 1)
    if at != len(theirs):
        raise Violation("psql sends more statements")
    return "accepted"


def _statements() -> list[bytes]:
    r"""Scripts without psql's commands: without ``\restrict``."""
    return [*_SCRIPTS, *(re.sub(rb"(?m)^\\.*restrict .*\n", b"", data) for data in dumps("plain"))]


def _one_line(text: bytes) -> bytes:
    """Return a statement, or several INSERTs that are one to us, without line ends, which may be between those."""
    return text.replace(b"\n", b"").strip()


def _chunked(data: bytes, whole: list[tuple[bytes, bytes | None]]) -> list[tuple[bytes, bytes | None]]:
    """Return the same as :func:`_ours`, with similar INSERTs put together, which only those in memory are."""
    found: list[tuple[bytes, bytes | None]] = []
    for event in SqlLexer(io.BytesIO(data), chunk_size=len(data) % 13 + 1):
        if isinstance(event, Statement):
            found.append((_one_line(data[event.offset : event.offset + event.size]), None))
        elif isinstance(event, CopyData):
            found.append((_one_line(event.statement.text), b"".join(event.chunks())))
    joined: list[tuple[bytes, bytes | None]] = []
    rest = iter(found)
    for text, taken in whole:
        one, data_of_it = next(rest, (b"", None))
        while len(one) < len(_one_line(text)) and data_of_it is None:
            more, data_of_it = next(rest, (b"", b""))
            one += more
        joined.append((one, data_of_it if taken is not None else None))
    return joined + list(rest)


def _plain(data: bytes) -> str:
    summary = ArchiveSummary()
    rows = size = 0
    for block in ScriptReader(io.BytesIO(data), summary).blocks():
        for piece in block.chunks():
            rows += piece.count(b"\n")
            size += len(piece)
    ours = [taken for event in SqlLexer(io.BytesIO(data)) if isinstance(event, CopyData) for taken in event.chunks()]
    if (rows, size) != (sum(each.count(b"\n") for each in ours), sum(map(len, ours))):
        raise Violation("the reader of scripts and the lexer find other data")
    scan_script(io.BytesIO(data))
    return "accepted"


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
_METHODS = list(_COMPRESSORS)


def _theirs(method: str, data: bytes) -> bytes:
    """Decompress with a library's own function for complete files."""
    if method == "gzip":
        return gzip.decompress(data)
    if method == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    if method == "lz4":
        return b"".join(_lz4_frames(data))
    return bz2.decompress(data) if method == "bzip2" else lzma.decompress(data)


def _lz4_frames(data: bytes) -> Sequence[bytes]:
    found = []
    while data:
        decompressor = lz4.frame.LZ4FrameDecompressor()
        found.append(decompressor.decompress(data))
        if not decompressor.eof:
            raise RuntimeError("truncated")
        data = decompressor.unused_data or b""
    return found


def _compressed_seeds() -> list[bytes]:
    """The first byte says which method."""
    text = b"".join(_SCRIPTS) * 20
    seeds = []
    for number, method in enumerate(_METHODS):
        data = _COMPRESSORS[method](text)
        seeds += [bytes([number]) + data, bytes([number]) + data + _COMPRESSORS[method](b"more"), bytes([number])]
    return seeds


def _mutate_compressed(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[:1] + some_bytes(random, data[1:], [other[1:] for other in others])


def _decompressed(data: bytes) -> str:
    method, data = _METHODS[(data or b"\0")[0] % len(_METHODS)], data[1:]
    found, reader = b"", Decompressed(io.BytesIO(data), method, "the dump", on_step=lambda: None)
    while piece := reader.read(1 << 16):
        found += piece
        if len(found) > 1 << 26:
            return "accepted: large"
    try:
        expected = _theirs(method, data)
    except Exception as error:
        # An empty file is no stream for some libraries, and padding is none for others.
        if not data.strip(b"\0") and not found:
            return "accepted: nothing"
        raise Violation(f"accepted a {method} stream that its library refuses: {type(error).__name__}") from None
    if expected != found:
        raise Violation(f"{method}: other bytes than its library finds")
    return f"accepted: {method}"


_REFUSALS = (VerificationFailed, NotProven)
TARGETS = [
    Target("lexer", _statements, lines_with_words(_WORDS), _lexer, _REFUSALS,
           (f"{_SQL}.lexer", f"{_SQL}.statement", f"{_SQL}.window")),
    Target("script", lambda: dumps("plain"), lines_with_words(_WORDS), _plain, _REFUSALS,
           ("airflow_pgbackup.postgres.archive.script_reader", "airflow_pgbackup.postgres.archive.script_trailer",
            f"{_SQL}.names", "airflow_pgbackup.postgres.definitions.script_scan")),
    Target("decompression", _compressed_seeds, _mutate_compressed, _decompressed, _REFUSALS,
           ("airflow_pgbackup.postgres.archive.decompression", "airflow_pgbackup.postgres.archive.decompressors",
            "airflow_pgbackup.postgres.archive.zstd_blocks")),
]  # fmt: skip
