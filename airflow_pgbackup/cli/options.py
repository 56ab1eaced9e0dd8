"""Parse ``-o NAME=VALUE`` into the typed options of a tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.options.kinds import Integer, Pair, Switch
from airflow_pgbackup.postgres.options.tool import ToolOptions
from airflow_pgbackup.text import did_you_mean

Options = TypeVar("Options", bound=ToolOptions)

_TRUTH = {"": True, "true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def options_of(
    kind: type[Options], given: Sequence[str], *, also: Sequence[str] = ()
) -> tuple[Options, dict[str, str]]:
    """Parse ``format=directory``, ``jobs=4``, ``tables=film``, ``no_owner``; options that take a list may be repeated.

    :param also: names that are not options of the tool; their values are returned separately, as text.
    :raises OptionError: an unknown name, or a value of the wrong type.
    """
    table = kind.table()
    found: dict[str, Any] = {}
    beside: dict[str, str] = {}
    for item in given:
        name, _, text = item.partition("=")
        if name in also:
            beside[name] = text
            continue
        option = table.get(name)
        if option is None:
            raise OptionError(
                f"unknown {kind.tool} option {name!r}",
                hint=did_you_mean(name, [*table, *also], "Name the option as its flag: -o no_owner for --no-owner."),
            )
        if isinstance(option, Switch | Pair):
            if text.lower() not in _TRUTH:
                raise OptionError(f"invalid -o {name}={text}", hint=f"Write -o {name} or -o {name}=false.")
            found[name] = _TRUTH[text.lower()]
        elif isinstance(option, Integer):
            try:
                found[name] = int(text)
            except ValueError:
                raise OptionError(f"invalid -o {name}={text}", hint="Give a whole number.") from None
        elif option.repeat:
            found[name] = [*found.get(name, []), text]
        else:
            found[name] = text
    options = kind(**found)
    options.validate()
    return options, beside
