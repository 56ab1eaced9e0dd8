"""Client encodings in which the second byte of a character can be a backslash or another character of ASCII.

See ``pg_wchar_table`` in ``src/common/wchar.c``. The server converts text before it parses it; psql replaces all bytes
of a character but the first (``psqlscan_prepare_buffer``).
"""

from __future__ import annotations

import re
from functools import lru_cache

# Repetitions are limited, because re keeps state for each one until the match ends.
ESCAPES = re.compile(rb"[^'\\]*(?:(?:\\.|'')[^'\\]*){0,1000}", re.DOTALL)
"""A part of a string with escapes, in all other encodings."""

_SJIS = rb"[\x80-\xa0\xe0-\xff]."
_TWO_BYTES = rb"[\x80-\xff]."
_JOHAB = rb"(?:\x8f..|[\x80-\x8e\x90-\xff].)"
_CHARACTERS = {  # with the aliases of src/common/encnames.c; four bytes of GB18030 look like two characters
    **dict.fromkeys(["sjis", "mskanji", "shiftjis", "win932", "windows932", "shiftjis2004"], _SJIS),
    **dict.fromkeys(["big5", "win950", "windows950", "gbk", "win936", "windows936"], _TWO_BYTES),
    **dict.fromkeys(["uhc", "win949", "windows949", "gb18030"], _TWO_BYTES),
    "johab": _JOHAB,
}


@lru_cache
def escapes_in(encoding: str) -> re.Pattern[bytes]:
    """Return the expression for a part of a string with escapes, in the client's encoding."""
    if (character := _character(encoding)) is None:
        return ESCAPES
    single = rb"[^'\\\x80-\xff]" if character != _SJIS else rb"[^'\\\x80-\xa0\xe0-\xff]"
    either = rb"(?:" + single + rb"|" + character + rb")"
    escaped = rb"\\(?:[^\x80-\xff]|" + either + rb")"
    return re.compile(rb"(?:" + either + rb"|" + escaped + rb"|''){0,1000}", re.DOTALL)


def without_ambiguous_bytes(text: bytes, encoding: str) -> bytes:
    """Return text with each byte of a character but the first replaced, as psql does it before it looks for quotes."""
    if (character := _character(encoding)) is None:
        return text
    return re.sub(character, lambda match: match[0][:1] + b"\xff" * (len(match[0]) - 1), text, flags=re.DOTALL)


def is_ambiguous(encoding: str) -> bool:
    """Return whether a byte of ASCII can be a part of a longer character in this encoding."""
    return _character(encoding) is not None


def _character(encoding: str) -> bytes | None:
    """Return the expression for a character of several bytes, if one of these can be a backslash."""
    # The server ignores case and everything but letters and digits, see clean_encoding_name().
    return _CHARACTERS.get(re.sub(r"[^a-z0-9]", "", encoding.lower()))
