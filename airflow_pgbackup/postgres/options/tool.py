"""The common base of the options of pg_dump, pg_dumpall and pg_restore: validate, render, describe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.options.kinds import Integer, Option, Pair, as_list, check_text
from airflow_pgbackup.postgres.tools.capabilities import OLDEST_MAJOR, Version
from airflow_pgbackup.postgres.tools.clients import Client, label_of, version_of, where_to_get
from airflow_pgbackup.wording import parameter

_CONNECTION = "it belongs to the connection"
_ASKING = "a task cannot prompt: give the connection a password, a pgpass file or a token"

# What no options object sets for any of the three tools, and why.
_NEVER = {
    "--dbname": _CONNECTION,
    "--host": _CONNECTION,
    "--port": _CONNECTION,
    "--username": _CONNECTION,
    "--password": _ASKING,
    "--no-password": "it is always given, because nobody answers a prompt of a task",
    "--file": "the repository decides where the output goes",
    "--binary-upgrade": "it is for pg_upgrade only: its output restores into nothing else",
    "--help": "it dumps nothing",
    "--version": "it dumps nothing",
}
# Not allowed in extra_args either. If the tool has a field for one of them, the error names the field.
_NEVER_EXTRA = {
    "--database": _CONNECTION,
    "--format": "the artifact decides the format, and a cluster dump is always plain",
    "--jobs": "this tool has no jobs",
    "--no-reconnect": "it has had no effect since PostgreSQL 8",
}
_SYNONYMS = {"--no-acl": "--no-privileges", "--attribute-inserts": "--column-inserts"}

# Shared by the tables of the three tools.
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
    """Options of one of PostgreSQL's tools: one keyword-only field for each flag, in the order of its ``--help``.

    A field that is None, False or empty leaves its flag out. A list must be a list: a string is refused.

    :param extra_args: flags that this package does not have yet, each as one ``--full-name`` or ``--full-name=value``.
    """

    extra_args: Sequence[str] = ()

    tool: ClassVar[str]
    not_offered: ClassVar[Mapping[str, str]] = {}
    """Flags of the tool that this class deliberately does not have, with the reason."""
    conflicts: ClassVar[Sequence[tuple[str, str]]] = ()
    """Pairs that the tool refuses to combine. ``no_x`` stands for a field ``x`` of kind Pair that is False."""
    requires: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Fields that have an effect only together with one of the others named."""

    @classmethod
    def table(cls) -> dict[str, Option]:
        """Return field name to :class:`~airflow_pgbackup.postgres.options.kinds.Option`, in the order of ``--help``."""
        return {item.name: item.metadata["option"] for item in fields(cls) if "option" in item.metadata}

    @classmethod
    def excluded(cls) -> dict[str, str]:
        """Return the flags without a field, with the reason."""
        return {**_NEVER, **cls.not_offered}

    def argv(self, client: Client | Version) -> list[str]:
        """Return the flags for this client: full long names, each joined to its value; no connection, no file.

        :param client: the client that will run, or its version if only that is known.
        :raises OptionError: as for :meth:`validate`; or the client is too old for an option.
        """
        self.validate()
        version = version_of(client)
        if version[0] < OLDEST_MAJOR:
            raise OptionError(
                f"{self.tool} {version[0]} is not supported",
                hint=f"Use {OLDEST_MAJOR} or newer, which dumps older servers too. {where_to_get(OLDEST_MAJOR)}",
            )
        argv: list[str] = []
        for name, option in self.table().items():
            rendered = option.render(getattr(self, name), client)
            if rendered and not option.has(version):
                raise self._too_old(name, option, rendered[0].partition("=")[0], client)
            argv += rendered
        return argv + list(self.extra_args)

    def validate(self) -> None:
        """Refuse options that cannot work, before anything runs.

        :raises OptionError: the first problem: a value of the wrong type or out of range, options that contradict each
            other, or an element of ``extra_args`` that is not allowed.
        """
        for name, option in self.table().items():
            option.check(name, getattr(self, name))
        for element in as_list("extra_args", self.extra_args):
            self._check_extra(element)
        given = self._given()
        for one, other in self.conflicts:
            if one in given and other in given:
                raise OptionError(
                    f"{parameter(one)} and {parameter(other)} cannot be combined", hint="Leave one of them out."
                )
        for name, needed in self.requires.items():
            if name in given and not given.intersection(needed):
                raise OptionError(
                    f"{parameter(name)} needs {' or '.join(map(parameter, needed))}",
                    hint=f"Add it: without it, {parameter(name)} has no effect.",
                )
        for message, hint in self._contradictions(given):
            raise OptionError(message, hint=hint)

    def describe(self) -> dict[str, object]:
        """Return the fields that differ from their defaults, as plain JSON without secrets, for the manifest."""
        described: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if "option" in item.metadata and value != item.default and value != []:
                described[item.name] = item.metadata["option"].jsonable(value)
        if self.extra_args:
            described["extra_args"] = list(self.extra_args)
        return described

    def _contradictions(self, given: set[str]) -> Iterator[tuple[str, str]]:
        """Yield message and hint of each contradiction that :attr:`conflicts` and :attr:`requires` do not express."""
        yield from ()

    def _given(self) -> set[str]:
        """Return the names of the fields that have an effect; one job is the tools' default."""
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
            hint=f"Leave {parameter(name)} out, or use a newer client. {where_to_get(nearest, tools=(self.tool,))}",
        )

    def _check_extra(self, element: object) -> None:
        check_text("extra_args", element)
        match = re.match(r"(--[a-z0-9][a-z0-9-]*)(=|\Z)", str(element))
        if match is None:
            raise OptionError(
                f"extra_args has {element!r}",
                hint="Give each flag as one element with its full name: '--name' or '--name=value', not '-n'.",
            )
        flag = match[1]
        by_flag = {known: name for name, option in self.table().items() for known in option.flags}
        reasons = {**_NEVER_EXTRA, **self.excluded()}
        meant = _SYNONYMS.get(flag, flag)
        if meant in by_flag:
            raise OptionError(f"extra_args has {flag}, which is a field", hint=f"Use {by_flag[meant]}= instead.")
        if flag in reasons:
            raise OptionError(f"{flag} is not allowed in extra_args: {reasons[flag]}", hint="Leave it out.")
        # getopt_long takes every unique prefix of a flag for the flag: --dbn=x would be --dbname=x.
        longer = sorted(known for known in {*by_flag, *reasons, *_SYNONYMS} if known.startswith(flag))
        if longer:
            raise OptionError(
                f"extra_args has {flag}, which {self.tool} may take for {longer[0]}", hint="Use full names only."
            )


def nothing_left(given: set[str], sections: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield the combinations with which the tools exit with 0 without dumping or restoring anything."""
    if given.intersection(("statistics", "statistics_only", "sequence_data")):
        return
    if {"no_data", "no_schema"} <= given:
        yield f"{parameter('no_data')} and {parameter('no_schema')} leave nothing", "Leave one of them out."
    if "data_only" in given and sections and "data" not in sections:
        yield f"{parameter('data_only')} and {_named(sections)} leave nothing", "Leave one of them out."
    if given.intersection(("schema_only", "no_data")) and set(sections) == {"data"}:
        yield f"no data and {_named(sections)} leave nothing", "Leave one of them out."


def _named(sections: Sequence[str]) -> str:
    return f"{parameter('sections')} {', '.join(sections)}"
