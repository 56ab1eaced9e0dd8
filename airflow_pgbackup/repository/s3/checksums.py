"""The checksums that S3 stores with an object, computed here for comparison.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

CHECKSUMS = frozenset(f"Checksum{name}" for name in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"))
"""Their names in requests and answers."""

_DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "SHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


def checksum_of(data: bytes, algorithm: str | None) -> str | None:
    """Return the checksum of `data` as S3 writes it; None without an algorithm, or for one not supported here."""
    digest = _DIGESTS.get(algorithm or "")
    return base64.b64encode(digest(data)).decode() if digest else None


def whole_checksum_of(head: Mapping[str, Any], algorithm: str | None) -> str | None:
    """Return the checksum of the complete object from its HEAD; None if the store has none of that algorithm."""
    checksum, kind = head.get(f"Checksum{algorithm}"), head.get("ChecksumType")
    if not checksum or "-" in checksum or kind == "COMPOSITE":
        return None
    # The ETag of an object in parts ends with their number. Garage does not say that its checksum is composite.
    return str(checksum) if kind == "FULL_OBJECT" or "-" not in head["ETag"] else None


def composite_of(parts: list[dict[str, Any]], algorithm: str | None) -> str | None:
    """Return S3's composite checksum: the checksum of the parts' checksums, and the number of parts.

    None if a part has no checksum of that algorithm.
    """
    values = [part.get(f"Checksum{algorithm}") for part in parts]
    if not all(values):
        return None
    checksum = checksum_of(b"".join(base64.b64decode(str(value)) for value in values), algorithm)
    return f"{checksum}-{len(parts)}" if checksum else None


def differ(expected: str, stored: str) -> bool:
    """Return whether two checksums prove that the bytes differ.

    A composite checksum cannot be compared with one of the complete object, which is all that some stores have. Garage
    writes a composite one in the form of the other.
    """
    return ("-" in expected) == ("-" in stored) and expected != stored
