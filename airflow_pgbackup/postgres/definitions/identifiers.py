"""Names of roles and objects as fmtId() of pg_dump writes them in SQL."""

from __future__ import annotations

# Quoted unless they are in lower case and not keywords.
IDENTIFIER = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'


def unquoted(identifier: str) -> str:
    """Return the name for an identifier that matches :data:`IDENTIFIER`."""
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    """Return a name with its schema, both quoted."""
    return f"{quoted(schema)}.{quoted(name)}"
