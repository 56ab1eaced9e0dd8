"""Which databases ``databases`` and ``exclude`` select, as far as that is known without the server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from glob import escape

from airflow_pgbackup.postgres.sql.patterns import exact_name

_ONLY_THE_SERVER_CAN_TELL = frozenset("|+()[]{}^\\")


def named_databases(databases: Sequence[str], exclude: Sequence[str]) -> list[str] | None:
    """Return the databases that are named and not excluded; None if patterns, or names that the server folds, leave it
    open."""
    names = []
    for one in databases:
        name = exact_name(one)
        if name is None or (name != one and not one.startswith('"')):
            return None
        names.append(name)
    globs = [_glob(pattern) for pattern in exclude]
    if None in globs:
        return None
    unwanted = set(exclude)
    return [each for each in names if each not in unwanted and not any(fnmatchcase(each, str(glob)) for glob in globs)]


def excluded_series(server: str, exclude: Sequence[str]) -> Iterator[str]:
    """Yield patterns for a freshness check to ignore the series of databases that are left out."""
    for pattern in exclude:
        if (glob := _glob(pattern)) is None:
            continue
        rest = glob.lstrip("*?")
        if wildcards := glob[: len(glob) - len(rest)]:  # they do not match @globals
            least, more = wildcards.count("?"), "*" * ("*" in wildcards)
            yield f"{server}/[!@]{'?' * (least - 1)}{more}{rest}"
            glob = "" if least else rest
        if glob:
            yield f"{server}/{glob}"


def _glob(pattern: str) -> str | None:
    """Return a pattern of databases as one of :mod:`fnmatch`; None if it has parts of a regular expression."""
    if (name := exact_name(pattern)) is not None:
        return escape(name)
    glob = ""
    for index, part in enumerate(pattern.replace('""', "\0").split('"')):
        if index % 2:
            glob += escape(part)
        elif set(part) & _ONLY_THE_SERVER_CAN_TELL:
            return None
        elif "." in part:
            return ""  # a qualified name matches no database
        else:
            glob += "".join(c.lower() if c.isascii() else c for c in part)
    return glob.replace("\0", '"')
