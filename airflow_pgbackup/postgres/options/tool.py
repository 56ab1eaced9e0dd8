"""What the options of pg_dump, pg_dumpall and pg_restore have in common: checking, rendering, describing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.options.kinds import Integer, Option, Pair, as_list, check_text
from airflow_pgbackup.postgres.tools.capabilities import OLDEST_MAJOR, Version
from airflow_pgbackup.postgres.tools.clients import Client, label_of, version_of, where_to_get

_CONNECTION = "it is the connection's"
_ASKING = "a task does not ask: give the connection a password, a pgpass file or a token"

# What no options object sets, for any of the three tools, and why.
_NEVER = {
    "--dbname": _CONNECTION,
    "--host": _CONNECTION,
    "--port": _CONNECTION,
    "--username": _CONNECTION,
    "--password": _ASKING,
    "--no-password": "it is always given, since a task has nobody to answer a prompt",
    "--file": "where the output goes is decided by the repository",
    "--binary-upgrade": "it is for pg_upgrade alone: what it writes restores into nothing else",
    "--help": "it dumps nothing",
    "--version": "it dumps nothing",
}
# Never from extra_args either, whether or not this tool has them as a field (then the field is named).
_NEVER_EXTRA = {
    "--database": _CONNECTION,
    "--format": "the format is the artifact's, and a cluster dump is always plain",
    "--jobs": "this tool has no jobs",
    "--no-reconnect": "it has had no effect since PostgreSQL 8",
}
_SYNONYMS = {"--no-acl": "--no-privileges", "--attribute-inserts": "--column-inserts"}

# For the tables of the three tools.
SECTIONS = ("pre-data", "data", "post-data")
ONLY_CONFLICTS = (
    ("data_only", "schema_only"),
    ("data_only", "statistics_only"),
    ("schema_only", "statistics_only"),
    ("data_only", "no_data"),
    ("schema_only", "no_schema"),
    ("statistics_only", "no_statistics"),
    ("data_only", "statistics"),
    ("schema_only", "statistics"),
    ("data_only", "clean"),
)


@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """Options of one of PostgreSQL's tools: one keyword-only field per flag, in the order of its ``--help``.

    A field that is None, False or empty leaves its flag out. Lists are lists: a lone string is refused.

    :param extra_args: flags that this package does not know yet, each as one ``--full-name`` or ``--full-name=value``.
    """

    extra_args: Sequence[str] = ()

    tool: ClassVar[str]
    not_offered: ClassVar[Mapping[str, str]] = {}
    """Flags that the tool has and this class leaves out on purpose, with the reason."""
    conflicts: ClassVar[Sequence[tuple[str, str]]] = ()
    """Pairs that the tool refuses together. ``no_x`` stands for a yes-or-no field ``x`` that is False, not None."""
    requires: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Fields that mean nothing without one of others."""

    @classmethod
    def table(cls) -> dict[str, Option]:
        """Field name to :class:`~airflow_pgbackup.postgres.options.kinds.Option`, in the order of ``--help``."""
        return {item.name: item.metadata["option"] for item in fields(cls) if "option" in item.metadata}

    @classmethod
    def excluded(cls) -> dict[str, str]:
        """Flags that are no fields, with the reason."""
        return {**_NEVER, **cls.not_offered}

    def argv(self, client: Client | Version) -> list[str]:
        """The flags for this client: full long names, each with its value in one element; no connection, no file.

        :param client: the client that will run, or its version where only that is known.
        :raises OptionError: what :meth:`validate` refuses, and what this client is too old for.
        """
        self.validate()
        version = version_of(client)
        if version[0] < OLDEST_MAJOR:
            raise OptionError(
                f"the options of {self.tool} {version[0]} are not known here",
                hint=f"use {OLDEST_MAJOR} or newer, which dumps older servers too: {where_to_get(OLDEST_MAJOR)}",
            )
        argv: list[str] = []
        for name, option in self.table().items():
            rendered = option.render(getattr(self, name), client)
            if rendered and not option.has(version):
                raise self._too_old(name, option, rendered[0].partition("=")[0], client)
            argv += rendered
        return argv + list(self.extra_args)

    def validate(self) -> None:
        """Refuse what cannot work, before anything runs.

        :raises OptionError: the first thing wrong: a value of the wrong type or range, options that contradict each
            other, an ``extra_args`` element that is not allowed.
        """
        for name, option in self.table().items():
            option.check(name, getattr(self, name))
        for element in as_list("extra_args", self.extra_args):
            self._check_extra(element)
        given = self._given()
        for one, other in self.conflicts:
            if one in given and other in given:
                raise OptionError(f"{one} and {other} cannot be used together", hint="leave one of them out")
        for name, needed in self.requires.items():
            if name in given and not given.intersection(needed):
                raise OptionError(f"{name} needs {' or '.join(needed)}", hint=f"without it, {name} has no meaning")
        for message, hint in self._contradictions(given):
            raise OptionError(message, hint=hint)

    def describe(self) -> dict[str, object]:
        """The fields that differ from their defaults, as plain JSON, for the manifest. Holds no secret."""
        described: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if "option" in item.metadata and value != item.default and value != []:
                described[item.name] = item.metadata["option"].jsonable(value)
        if self.extra_args:
            described["extra_args"] = list(self.extra_args)
        return described

    def _contradictions(self, given: set[str]) -> Iterator[tuple[str, str]]:
        """Message and hint of what is wrong beyond the tables :attr:`conflicts` and :attr:`requires`."""
        yield from ()

    def _given(self) -> set[str]:
        """The names of the fields that say something; a single job is what the tools do anyway."""
        given = set()
        for name, option in self.table().items():
            value = getattr(self, name)
            if isinstance(option, Pair) and value is False:
                given.add(f"no_{name}")
            elif value or (isinstance(option, Integer) and value is not None):
                given.add(name)
        return given - ({"jobs"} if getattr(self, "jobs", None) == 1 else set())

    def _too_old(self, name: str, option: Option, flag: str, client: Client | Version) -> OptionError:
        nearest = next(major for major, _ in option.since if major >= version_of(client)[0])
        return OptionError(
            f"{flag} needs {self.tool} {option.since_text}; this is {label_of(client)}",
            hint=f"leave {name} out, or {where_to_get(nearest, tools=(self.tool,))}",
        )

    def _check_extra(self, element: object) -> None:
        check_text("extra_args", element)
        match = re.match(r"(--[a-z0-9][a-z0-9-]*)(=|\Z)", str(element))
        if match is None:
            raise OptionError(
                f"extra_args has {element!r}",
                hint="each element is one full long flag: '--name' or '--name=value', not '-n' and not two elements",
            )
        flag = match[1]
        by_flag = {known: name for name, option in self.table().items() for known in option.flags}
        reasons = {**_NEVER_EXTRA, **self.excluded()}
        meant = _SYNONYMS.get(flag, flag)
        if meant in by_flag:
            raise OptionError(f"extra_args has {flag}, which is a field", hint=f"use {by_flag[meant]}= instead")
        if flag in reasons:
            raise OptionError(f"extra_args may not have {flag}: {reasons[flag]}", hint="leave it out")
        # getopt_long takes every unique beginning of a flag for the flag: --dbn=x would be --dbname=x.
        longer = sorted(known for known in {*by_flag, *reasons, *_SYNONYMS} if known.startswith(flag))
        if longer:
            raise OptionError(
                f"extra_args has {flag}, which {self.tool} may take for {longer[0]}", hint="full names only"
            )


def nothing_left(given: set[str], sections: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Combinations that the tools accept, and then end well having dumped or restored nothing."""
    if given.intersection(("statistics", "statistics_only", "sequence_data")):
        return
    if {"no_data", "no_schema"} <= given:
        yield "no_data and no_schema leave nothing", "leave one of them out"
    if "data_only" in given and sections and "data" not in sections:
        yield f"data_only and sections={list(sections)!r} leave nothing", "leave one of them out"
    if given.intersection(("schema_only", "no_data")) and set(sections) == {"data"}:
        yield f"no data and sections={list(sections)!r} leave nothing", "leave one of them out"
