"""Decide which database a plain script was dumped from: one made without ``--create`` does not name it."""

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
_ROTATED = re.compile(r"(?<=\D)\.\d{1,3}$")  # by logrotate
_WEEKDAY = re.compile(r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?")
_ZONE = r"utc|gmt|msk|hkt|sgt|sast|[ce]es?t|(?:ak|nz|a[ce]|[acemp])[sd]t|[bhijk]st"  # not WEST, which is a name
_OF_TIME = re.compile(rf"{_WEEKDAY.pattern}|{_ZONE}|\d*(?:[hmsz]|[ap]m)")
_GENERIC = frozenset(
    {
        "all", "backup", "backups", "bak", "copy", "daily", "data", "database", "databases", "db", "dbs", "dump",
        "dumps", "export", "file", "full", "hourly", "last", "latest", "monthly", "new", "nightly", "old", "pg",
        "pgbackup", "pgdump", "pre", "post", "postgresql", "prod", "sql", "the", "weekly", "yearly",
    }
)  # fmt: skip
"""Words that do not name a database. A stem without any other word does not show which one a script is of."""


def stem(name: str, span: tuple[int, int] | None) -> str | None:
    """Return a file name without its time and extensions: usually the name of the database.

    ``crm_2025-03-01.sql.gz`` is ``crm``, ``2025-03-01-crm.sql`` too, and so is ``crm/2025-03-01.sql``. But
    ``crm_2025-03-01_film.sql`` is ``crm_film``: it may be a dump of one table.

    :param name: a path, joined by ``/``.
    :param span: of the time in it.
    :return: None if it has only words such as ``backup`` and ``daily``.
    """
    cut = "\0"
    if span:
        name = name[: span[0]] + cut + name[span[1] :]
    *directories, last = name.split("/")
    before, _, after = _bare(last).partition(cut)
    if parts := [part for part in (_naming(before), _naming(after, after_time=True)) if part]:
        return "_".join(parts)
    return _naming(directories[-1]) if directories and cut not in directories[-1] else None


def _bare(part: str) -> str:
    """Return a part of a file name without extensions and what else stands at its end."""
    while (bare := _COPY.sub("", _ROTATED.sub("", _EXTENSIONS.sub("", part)))) != part:
        part = bare
    return part


def _naming(part: str, *, after_time: bool = False) -> str | None:
    """Return a part of a file name if it names something.

    :param after_time: time zones belong to the time before them, as weekdays always do.
    """
    part = _bare(part.strip("-_. @+")).strip("-_. @+")
    words = [word for word in re.split(r"[-_.: ]+", part.lower()) if word]
    of_time = _OF_TIME if after_time else _WEEKDAY
    for word in words:
        if not (word.isdecimal() or word in _GENERIC or of_time.fullmatch(word)):
            return part
    return None


@dataclass(frozen=True)
class Label:
    """The database of a dump, and how it is known.

    :param database: its name.
    :param source: ``name``, ``--database`` or ``--database-pattern``.
    """

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
