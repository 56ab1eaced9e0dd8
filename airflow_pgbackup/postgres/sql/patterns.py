"""The patterns of ``--table``, ``--schema``, ``--exclude-database`` and similar options as regular expressions.

The patterns are those of psql's ``\\d``, the expressions the server's; see ``patternToSQLRegex`` in
``src/fe_utils/string_utils.c``.
"""

from __future__ import annotations

_SPECIAL = frozenset("|*+?()[]{}.^$\\")
_WILDCARDS = _SPECIAL - {".", "$"}


def pattern_regexes(pattern: str) -> list[str]:
    """Return the regular expression of each dot-separated part: ``s*.film`` gives ``["^(s.*)$", "^(film)$"]``.

    Outside double quotes, letters are folded to lower case, ``*`` and ``?`` are wildcards, and a dot separates parts;
    other characters have their meaning in a regular expression. A dollar sign is always literal.
    """
    parts = [""]
    quoted = False
    at = 0
    while at < len(pattern):
        character, following = pattern[at], pattern[at + 1 : at + 2]
        at += 1
        if character == '"':
            if quoted and following == '"':
                parts[-1] += '"'
                at += 1
            else:
                quoted = not quoted
        elif not quoted and character == ".":
            parts.append("")
        elif not quoted and character in "*?":
            parts[-1] += ".*" if character == "*" else "."
        elif character == "$" or (quoted and character in _SPECIAL) or (character == "[" and following == "]"):
            parts[-1] += f"\\{character}"
        else:
            # The server folds ASCII only, whatever the locale of the tool.
            parts[-1] += character.lower() if not quoted and character.isascii() else character
    return [f"^({part})$" for part in parts]


def exact_name(pattern: str) -> str | None:
    """Return the only name that a pattern of a database can mean, None if it has wildcards outside double quotes.

    Letters outside quotes are folded to lower case. A dot outside quotes separates no parts: it is part of the name.
    """
    outside = "".join(pattern.replace('""', "").split('"')[::2])
    if set(outside) & _WILDCARDS:
        return None
    if "." in outside:
        return pattern
    name, quoted = "", False
    for part in pattern.replace('""', "\0").split('"'):
        name += (part if quoted else "".join(c.lower() if c.isascii() else c for c in part)).replace("\0", '"')
        quoted = not quoted
    return name
