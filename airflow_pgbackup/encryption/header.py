"""The header of an encrypted file, checked before pyrage parses it.

pyrage parses a header again after each 8 KiB, in a time that grows faster than the number of stanzas: 64 KiB of tiny
ones take half a minute. Whoever may write to the repository could forge such a file.
"""

from __future__ import annotations

from airflow_pgbackup.byte_streams import PrefixedReader, Readable
from airflow_pgbackup.encryption.recipients import MOST
from airflow_pgbackup.errors import VerificationFailed

MAGIC = b"age-encryption.org/v1\n"
"""The first line of an encrypted file."""
LONGEST = 128 * 1024
"""Bytes of a header. A stanza takes about 100 bytes, that of an RSA key with 8192 bits 1500."""
MOST_STANZAS = 2 * MOST
"""More than one for each recipient, as pyrage adds a random stanza."""
_PIECE = 8192
_STANZA, _END = b"\n-> ", b"\n--- "


def with_checked_header(source: Readable, what: str) -> Readable:
    """Return a reader of the whole source, once its header has been checked.

    :param what: names the source in errors.
    :raises VerificationFailed: no header of age is at the beginning, or one larger than this package writes.
    """
    head = b""
    while _END not in head and len(head) < LONGEST and MAGIC.startswith(head[: len(MAGIC)]):
        piece = source.read(_PIECE)
        if not piece:
            break
        head += piece
    if not head.startswith(MAGIC):
        raise VerificationFailed(f"{what} cannot be decrypted: it is not encrypted by age")
    end = head.find(_END)
    if end < 0:
        found = "is longer than 128 KiB" if len(head) >= LONGEST else "is truncated"
        raise VerificationFailed(f"{what} cannot be decrypted: its header {found}")
    stanzas = head.count(_STANZA, 0, end)
    if stanzas > MOST_STANZAS:
        raise VerificationFailed(
            f"{what} cannot be decrypted: its header has {stanzas} stanzas, at most {MOST_STANZAS} are read"
        )
    return PrefixedReader(head, source)
