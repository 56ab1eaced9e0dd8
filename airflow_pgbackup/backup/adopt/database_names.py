"""Decide which database a plain script made without ``--create``, which does not name it, was dumped from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from airflow_pgbackup.backup.adopt.name_patterns import compile_pattern
from airflow_pgbackup.errors import ConfigurationError

_EXTENSIONS = re.compile(
    r"(?:\.(?:gz|zst|zstd|lz4|bz2|xz|sql|psql|pgsql|dump|dmp|backup|bak|tar|custom|plain|txt|out|pg|pgdump))+$",
    re.IGNORECASE,
)
_COPY = re.compile(r"(?: ?\(\d{1,3}\)| - copy| ?\(copy\)| copy)+$", re.IGNORECASE)
_GENERIC = frozenset(
    {
        "all", "backup", "backups", "bak", "copy", "daily", "data", "database", "databases", "db", "dbs", "dump",
        "dumps", "export", "file", "full", "hourly", "last", "latest", "monthly", "new", "nightly", "old", "pg",
        "pgbackup", "pgdump", "pre", "post", "postgresql", "prod", "sql", "the", "weekly", "yearly",
    }
)  # fmt: skip
"""Words that do not name a database. A stem of nothing else does not tell which one a script is of."""


def stem(name: str, span: tuple[int, int] | None) -> str | None:
    """Return a file name without its time and extensions: usually the name of the database.

    ``crm_2025-03-01.sql.gz`` is ``crm``, ``2025-03-01-crm.sql`` too, and so is ``crm/2025-03-01.sql``.

    :param name: a path, joined by ``/``.
    :param span: of the time in it.
    :return: None if it only has words as ``backup`` or ``daily``.
    """
    cut = "\0"
    if span:
        name = name[: span[0]] + cut + name[span[1] :]
    *directories, last = name.split("/")
    last = _COPY.sub("", _EXTENSIONS.sub("", last))
    for part in (*last.split(cut), *(directories[-1:] if directories and cut not in directories[-1] else ())):
        part = _COPY.sub("", part).strip("-_. @+")
        words = [word for word in re.split(r"[-_. ]+", part.lower()) if word]
        if any(not word.isdecimal() and word not in _GENERIC for word in words):
            return part
    return None


@dataclass(frozen=True)
class Label:
    """:ivar database: its name.
    :ivar source: ``name``, ``--database`` or ``--database-pattern``."""

    database: str
    source: str


@dataclass
class DatabaseNames:
    """Label the scripts of a run that do not name their database.

    :param stems: of all such scripts; see :func:`stem`.
    :param database: the name for them. If the stems differ, only for those whose stem it is: a script of another
        database would become the newest backup of this one.
    :param patterns: ``{database}_*.sql``, or ``GLOB=NAME``; the first that fits a file's name (with a ``/`` in it: its
        path) decides, before `database` does.
    :raises ConfigurationError: a pattern without a database's name.
    """

    stems: Iterable[str | None]
    database: str | None = None
    patterns: Sequence[str] = ()
    _rules: list[tuple[str, re.Pattern[str] | None, str]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._stems = set(self.stems)
        for pattern in self.patterns:
            glob, equals, name = pattern.rpartition("=")
            if "{database}" in pattern:
                self._rules.append((pattern, compile_pattern(pattern), ""))
            elif equals and glob and name:
                self._rules.append((glob, None, name))
            else:
                raise ConfigurationError(
                    f"the database pattern {pattern!r} does not name a database",
                    hint="Write '{database}_*.sql.gz', which takes it from the name, or 'crm_*=crm'.",
                )

    def of(self, name: str, its_stem: str | None) -> Label | str:
        """Return the database of a script, or the reason why it is not known.

        :param name: its path below the source.
        """
        for pattern, compiled, database in self._rules:
            text = name if "/" in pattern else name.rpartition("/")[2]
            if compiled is None:
                if fnmatchcase(text, pattern):
                    return Label(database, "--database-pattern")
            elif (found := compiled.fullmatch(text)) is not None:
                return Label(found["database"], "--database-pattern")
        if self.database is not None:
            if len(self._stems) == 1 or (its_stem or "").lower() == self.database.lower():
                return Label(self.database, "--database")
            return (
                f"it does not name its database, and its file name does not match {self.database}; "
                "use --database-pattern"
            )
        if its_stem is not None and not self._rules:
            return Label(its_stem, "name")
        return "cannot tell which database this script was dumped from; use --database or --database-pattern"
