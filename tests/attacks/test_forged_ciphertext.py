"""Ciphertext that somebody with write access has changed, whatever digests they forged to match.

A reader gets an error before the end, and until then only bytes that were encrypted: no tool takes them for a dump.
"""

from __future__ import annotations

import io

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from airflow_pgbackup.encryption.header import MAGIC
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.recipients import MOST
from airflow_pgbackup.encryption.streams import decrypt, decrypted
from airflow_pgbackup.errors import NotProven, VerificationFailed

CHUNK = 64 * 1024 + 16  # of the payload, with its tag
OWNER, STRANGER = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
PLAIN = b"".join(n.to_bytes(8, "big") for n in range(3 * 8192 + 1000))  # three chunks and the beginning of a fourth


def ciphertext(plain: bytes = PLAIN) -> bytes:
    return pyrage.encrypt(plain, [OWNER.to_public()])


STORED, OTHER = ciphertext(), ciphertext(PLAIN[::-1])


def parts(stored: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """Return the header, the nonce and the chunks of an encrypted file."""
    end = stored.index(b"\n", stored.index(b"\n--- ") + 1) + 1
    payload = stored[end + 16 :]
    chunks = [payload[start : start + CHUNK] for start in range(0, len(payload), CHUNK)]
    return stored[:end], stored[end : end + 16], chunks


HEADER, NONCE, CHUNKS = parts(STORED)
OTHER_HEADER, OTHER_NONCE, OTHER_CHUNKS = parts(OTHER)
STANZA = HEADER[len(MAGIC) : HEADER.index(b"--- ")]
MAC = HEADER.index(b"--- ") + 4


def flipped(place: int) -> bytes:
    return STORED[:place] + bytes([STORED[place] ^ 1]) + STORED[place + 1 :]


def put_together(*chunks: bytes, header: bytes = HEADER, nonce: bytes = NONCE) -> bytes:
    return header + nonce + b"".join(chunks)


FIRST, SECOND, THIRD, LAST = CHUNKS
START = len(HEADER) + len(NONCE)
ATTACKS = {
    "a flipped version": flipped(len(MAGIC) - 2),
    "a flipped stanza": flipped(len(MAGIC) + len(STANZA) - 10),
    "a flipped MAC": flipped(MAC + 5),
    "a flipped nonce": flipped(len(HEADER)),
    **{f"a flipped byte of chunk {number}": flipped(START + number * CHUNK + 7) for number in range(4)},
    "a flipped tag": flipped(len(STORED) - 1),
    "cut in the header": STORED[: MAC + 3],
    "cut in the nonce": STORED[: len(HEADER) + 3],
    "cut before the payload": STORED[:START],
    "cut between chunks": put_together(FIRST, SECOND, THIRD),
    "cut in a chunk": STORED[: START + CHUNK + 100],
    "chunks swapped": put_together(SECOND, FIRST, THIRD, LAST),
    "the last chunk first": put_together(LAST, FIRST, SECOND, THIRD),
    "a chunk twice": put_together(FIRST, FIRST, SECOND, THIRD, LAST),
    "a chunk left out": put_together(FIRST, THIRD, LAST),
    "a byte appended": STORED + b"\0",
    "the last chunk appended again": STORED + LAST,
    "another file appended": STORED + OTHER,
    "a chunk of another file": put_together(FIRST, OTHER_CHUNKS[1], THIRD, LAST),
    "the header of another file": put_together(*CHUNKS, header=OTHER_HEADER),
    "the nonce of another file": put_together(*CHUNKS, nonce=OTHER_NONCE),
    "a stanza added": put_together(*CHUNKS, header=MAGIC + STANZA * 2 + HEADER[MAC - 4 :]),
    "a thousand stanzas": put_together(*CHUNKS, header=MAGIC + STANZA * 1000 + HEADER[MAC - 4 :]),
    "tiny stanzas": put_together(*CHUNKS, header=MAGIC + b"-> x y\n\n" * 16_000 + HEADER[MAC - 4 :]),
    "tiny stanzas without an end": MAGIC + b"-> x y\n\n" * 128_000,
    "a stanza without an end": MAGIC + b"-> x y\n" + (b"A" * 64 + b"\n") * 16_000,
    "no stanza": put_together(*CHUNKS, header=MAGIC + HEADER[MAC - 4 :]),
    "nothing": b"",
    "not encrypted": PLAIN,
    "for a stranger": pyrage.encrypt(PLAIN, [STRANGER.to_public()]),
}


def test_the_parts_are_those_of_the_file() -> None:
    assert put_together(*CHUNKS) == STORED
    assert pyrage.decrypt(STORED, [OWNER]) == PLAIN


def read_into(read: list[bytes], stored: bytes, identities: Identities) -> None:
    with decrypted(io.BytesIO(stored), identities, "app.dump.age") as stream:
        while piece := stream.read(50_001):
            read.append(piece)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_reader_gets_an_error_and_nothing_that_was_not_encrypted(attack: str) -> None:
    stored, owner = ATTACKS[attack], Identities((OWNER,))
    read: list[bytes] = []
    with pytest.raises((VerificationFailed, NotProven), match=r"app\.dump\.age"):
        read_into(read, stored, owner)
    assert PLAIN.startswith(b"".join(read))
    target = io.BytesIO()
    with pytest.raises((VerificationFailed, NotProven), match=r"app\.dump\.age"):
        decrypt(io.BytesIO(stored), target, owner, "app.dump.age")
    assert PLAIN.startswith(target.getvalue())


def test_a_header_for_as_many_recipients_as_are_allowed_is_read() -> None:
    numbers = rsa.RSAPublicNumbers(65537, (1 << 4095) + 1)  # nobody needs its secret key
    public = numbers.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    keys = [pyrage.ssh.Recipient.from_str(public)] * (MOST - 1)
    read: list[bytes] = []
    read_into(read, pyrage.encrypt(PLAIN, [*keys, OWNER.to_public()]), Identities((OWNER,)))
    assert b"".join(read) == PLAIN
