"""The kinds of command-line options of PostgreSQL's tools; each field of an options class is of one kind.

A kind knows the name of its flag in each version, which values are valid, and how a value becomes elements of argv. A
value is always joined to its flag (``--table=-odd``), so that no value is taken for a flag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.connection.conninfo import literal_dbname
from airflow_pgbackup.postgres.tools.capabilities import OLDEST_MAJOR, Version, is_since, since_text
from airflow_pgbackup.postgres.tools.clients import Client, version_of

TEMPLATE_HINT = "A template renders to a string unless the DAG has render_template_as_native_obj=True."


@dataclass(frozen=True)
class Option:
    """One flag that takes a value.

    :param flag: its full long name.
    :param help: what it does, in a few words.
    :param since: the first release that has it; several, one of each major version, if a fix brought it to several.
        Every later major version has it too.
    :param repeat: the flag is given once for each value; the field holds a list.
    :param required: the field cannot be None.
    :param secret: the value is not written into manifests.
    """

    flag: str
    help: str
    since: tuple[Version, ...] = ((OLDEST_MAJOR, 0),)
    repeat: bool = False
    required: bool = False
    secret: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """Every name of this flag in any version."""
        return (self.flag,)

    def has(self, version: Version) -> bool:
        """Return whether this version of the tool has the flag."""
        return is_since(version, self.since)

    @property
    def since_text(self) -> str:
        return since_text(self.since)

    def check(self, name: str, value: object) -> None:
        """Check a value.

        :raises OptionError: the value is not valid for this option.
        """
        if self.repeat:
            for item in as_list(name, value):
                self.check_one(name, item)
        elif value is not None or self.required:
            self.check_one(name, value)

    def check_one(self, name: str, value: object) -> None:
        check_text(name, value)

    def render(self, value: Any, client: Client | Version) -> list[str]:
        """Return the elements of argv for a value that :meth:`check` accepted."""
        if value is None:
            return []
        values = value if self.repeat else [value]
        return [f"{self.flag}={item if isinstance(item, int) else os.fspath(item)}" for item in values]

    def jsonable(self, value: Any) -> object:
        if self.secret:
            return "(set)"
        return [os.fspath(item) for item in value] if self.repeat else value


@dataclass(frozen=True)
class Switch(Option):
    """A flag without a value; False leaves it out."""

    def check(self, name: str, value: object) -> None:
        check_bool(name, value, "True or False")

    def render(self, value: Any, client: Client | Version) -> list[str]:
        return [self.flag] if value else []


@dataclass(frozen=True)
class Pair(Option):
    """Two flags, one for True and one for False; None leaves both out.

    :param renamed: the former names of both, and the first major version with the present ones.
    """

    no_flag: str = ""
    renamed: tuple[str, str, int] | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        return (self.flag, self.no_flag, *(self.renamed[:2] if self.renamed else ()))

    def check(self, name: str, value: object) -> None:
        if value is not None:
            check_bool(name, value, "True, False, or None for the tool's default")

    def render(self, value: Any, client: Client | Version) -> list[str]:
        if value is None:
            return []
        yes, no = self.flag, self.no_flag
        if self.renamed and version_of(client)[0] < self.renamed[2]:
            yes, no = self.renamed[:2]
        return [yes if value else no]


@dataclass(frozen=True)
class Integer(Option):
    low: int = 1
    high: int = 2**31 - 1

    def check_one(self, name: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise OptionError(
                f"{name} is {value!r} of type {type(value).__name__}", hint=f"Pass an int. {TEMPLATE_HINT}"
            )
        if not self.low <= value <= self.high:
            raise OptionError(f"{name} is {value}", hint=f"{self.flag} takes {self.low} to {self.high}.")


@dataclass(frozen=True)
class Choice(Option):
    choices: tuple[str, ...] = ()

    def check_one(self, name: str, value: object) -> None:
        if value not in self.choices:
            raise OptionError(f"{name} is {value!r}", hint=f"Choose one of {', '.join(map(repr, self.choices))}.")


@dataclass(frozen=True)
class FilePath(Option):
    """A file on the worker that runs the tool: a string or a path."""

    def check_one(self, name: str, value: object) -> None:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        check_text(name, value)
        if value == "-":
            raise OptionError(
                f"{name} is '-', standard input", hint="A task has no standard input: name a file on the worker."
            )

    def jsonable(self, value: Any) -> object:
        return [os.fspath(item) for item in value] if self.repeat else os.fspath(value)


@dataclass(frozen=True)
class Timeout(Option):
    """A duration as for ``statement_timeout``: milliseconds, or a number with a unit."""

    def check_one(self, name: str, value: object) -> None:
        number = isinstance(value, int) and not isinstance(value, bool)
        text = str(value) if number else value
        if not isinstance(text, str) or not re.fullmatch(r" *\d+(\.\d+)? *(us|ms|s|min|h|d)? *", text, re.ASCII):
            raise OptionError(f"{name} is {value!r}", hint="Pass milliseconds as an int, or a string such as '2min'.")


@dataclass(frozen=True)
class Key(Option):
    """The key of psql's ``\\restrict``: ASCII letters and digits only."""

    def check_one(self, name: str, value: object) -> None:
        check_text(name, value)
        if not re.fullmatch(r"[A-Za-z0-9]+", str(value)):
            raise OptionError(f"{name} is not a restrict key", hint="Use ASCII letters and digits only.")


@dataclass(frozen=True)
class DatabaseName(Option):
    """A database name that the tool passes to libpq, which takes some names for connection strings."""

    def render(self, value: Any, client: Client | Version) -> list[str]:
        if value is not None and ("=" in value or value.startswith(("postgresql://", "postgres://"))):
            value = literal_dbname(value)
        return super().render(value, client)


def check_text(name: str, value: object) -> None:
    """Check that a value can be an element of argv.

    :raises OptionError: it is not a string, is empty, or cannot be passed to a program.
    """
    if not isinstance(value, str):
        raise OptionError(f"{name} has {value!r} of type {type(value).__name__}", hint="Pass a string.")
    if not value:
        raise OptionError(f"{name} is empty", hint="Leave it out for no value.")
    if "\0" in value:
        raise OptionError(f"{name} has a NUL byte in {value!r}", hint="No name in PostgreSQL has one.")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise OptionError(
            f"{name} has {value!r}, which cannot be passed to a program",
            hint="Check the encoding with which it was read.",
        ) from None


def check_bool(name: str, value: object, wanted: str) -> None:
    if not isinstance(value, bool):
        raise OptionError(f"{name} is {value!r} of type {type(value).__name__}", hint=f"Pass {wanted}. {TEMPLATE_HINT}")


def as_list(name: str, value: object) -> Sequence[object]:
    """Return a value that is a list.

    :raises OptionError: the value is not a list; a string, for example.
    """
    if isinstance(value, str):
        more = " In PostgreSQL's tools a comma is part of the pattern." if "," in value else ""
        meant = [part.strip() for part in value.split(",")]
        raise OptionError(f"{name} is the string {value!r}", hint=f"Pass a list: {meant!r}.{more}")
    if not isinstance(value, list | tuple):
        raise OptionError(f"{name} is {value!r} of type {type(value).__name__}", hint="Pass a list.")
    return value


def row(option: Option, default: object = None) -> Any:
    """Return a dataclass field for one flag, with the option in its metadata."""
    return field(default=() if option.repeat else default, metadata={"option": option})


def switch(flag: str, help: str, *, since: int = OLDEST_MAJOR) -> Any:
    return row(Switch(flag, help, ((since, 0),)), False)


def pair(
    flag: str, no_flag: str, help: str, *, since: int = OLDEST_MAJOR, renamed: tuple[str, str, int] | None = None
) -> Any:
    return row(Pair(flag, help, ((since, 0),), no_flag=no_flag, renamed=renamed))


def text(flag: str, help: str) -> Any:
    return row(Option(flag, help))


def many(flag: str, help: str, *, since: int = OLDEST_MAJOR) -> Any:
    return row(Option(flag, help, ((since, 0),), repeat=True))


def number(flag: str, help: str, *, since: int = OLDEST_MAJOR, low: int = 1, high: int = 2**31 - 1) -> Any:
    return row(Integer(flag, help, ((since, 0),), low=low, high=high))
