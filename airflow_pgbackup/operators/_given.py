"""Arguments that were given, but are empty once their templates are rendered.

A template that finds nothing, or an upstream task that returns None, must not widen what a task does: without
``database`` a restore goes into the connection's own, without ``server`` prune works on every server. An argument
that is left out, or a literal empty list, keeps its meaning. These are functions, not a mixin, for the reason in
:mod:`._map_label`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from inspect import signature
from os import PathLike
from typing import Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.not_empty import not_empty
from airflow_pgbackup.text import printable

# Leaving one of these empty does not widen what a task reads, dumps or checks; at most, names in the result change.
_MAY_BE_EMPTY = frozenset(
    {
        "allow_drop",
        "aws_conn_id",
        "compress",
        "destination_aws_conn_id",
        "encoding",
        "exclude",
        "globals_aws_conn_id",
        "jobs",
        "labels",
        "lock_wait_timeout",
        "maintenance_database",
        "prefix",
        "superuser",
    }
)
# These are None where a task of the run has been skipped or has failed; the set says what is missing.
_RESULTS_OF_A_RUN = frozenset({"backups", "globals_backup", "copies", "globals_copy"})

_TEXTS = frozenset(
    {
        "backup_id",
        "database",
        "destination",
        "identity_conn_id",
        "into_schema",
        "level",
        "masking_key_conn_id",
        "minimum_level",
        "mode",
        "postgres_conn_id",
        "repository",
        "repository_uuid",
        "scratch_conn_id",
        "series",
        "server",
        "set_id",
        "time_zone",
        "verify",
    }
)

_LISTS = frozenset({"allow_drop", "databases", "exclude", "keep_labels", "labels", "repositories", "scopes", "to"})
_SHOWN = 200


def unrendered(task: Any) -> dict[str, Any]:
    """Return the template fields of an operator, before they are rendered."""
    return {name: getattr(task, name, None) for name in task.template_fields}


def passed_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor if Airflow makes one task of a mapped one; else none."""
    return dict(arguments) if "_airflow_from_mapped" in arguments else {}


def lost(task: Any, before: Mapping[str, Any], from_map: Mapping[str, Any]) -> list[str]:
    """Return the arguments that were given and are empty now.

    :param before: what :func:`unrendered` returned.
    :param from_map: what :func:`mapped` returned: these values were never templates.
    """
    fields = [
        name
        for name in task.template_fields
        if _rendered_to_none(before[name], now := getattr(task, name, None))
        or (_is_empty(now) and (not _is_empty(before[name]) or (name in from_map and (now is None or _blank(now)))))
    ]
    others = [name for name, value in from_map.items() if value is None and name not in task.template_fields]
    return [name for name in [*fields, *sorted(others)] if not _may_be_empty(task, name)]


def require_given(task: Any, lost: Sequence[str]) -> None:
    """Check that what was given is not empty, that names are text, and that lists are lists of text.

    :param lost: the arguments that :func:`lost` returned.
    :raises ConfigurationError: otherwise.
    """
    for name in lost:
        raise ConfigurationError(
            f"{name} is empty after rendering: {printable(repr(getattr(task, name, None))[:_SHOWN])}",
            hint="Check the template, the parameter or the upstream task that it comes from, "
            "or leave it out if that is meant.",
        )
    for name in task.template_fields:
        value = getattr(task, name, None)
        if name in _TEXTS and not_empty(name, value) is not None and not isinstance(value, str):
            raise _invalid(name, value, "Pass text.")
        if name == "rules" and value is not None and not isinstance(value, str | PathLike):
            raise _invalid(name, value, "Pass the path of a file.")
        means_all = value is None and name == "databases"
        if name in _LISTS and not means_all and not _is_list(value):
            raise _invalid(name, value, "Pass a list.")
        if name in _LISTS and isinstance(value, Collection):  # an iterator would be used up
            for item in value:
                if not isinstance(item, str):
                    raise _invalid(name, item, "Pass a list of text: '2024' is a name, 2024 is a number.")
        if name == "options" and value is not None and not isinstance(value, Mapping):
            raise _invalid(name, value, "Pass a mapping: {'schemas': ['app']}.")


def _is_list(value: object) -> bool:
    """Return whether a value is a list, also a lazy one of XCom. A string would become a list of letters."""
    return isinstance(value, Iterable) and not isinstance(value, str | Mapping)


def _invalid(name: str, value: object, hint: str) -> ConfigurationError:
    return ConfigurationError(f"invalid {name} {printable(repr(value)[:_SHOWN])}", hint=hint)


def _may_be_empty(task: Any, name: str) -> bool:
    return (
        name in _MAY_BE_EMPTY
        or name.startswith("exclude_")
        or (name in _RESULTS_OF_A_RUN and "discovery" in task.template_fields)
    )


def mapped(task: Any, passed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that were given by ``expand`` or ``expand_kwargs``, without those that every operator has.

    The constructor of a subclass may take any of them as ``**kwargs``, so its signature does not name them.
    """
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    dag = task.get_dag()
    defined = dag.task_dict.get(task.task_id) if dag is not None else None
    if not isinstance(defined, MappedOperator):
        return {}
    others = signature(BaseOperator.__init__).parameters.keys() | defined.partial_kwargs.keys()
    return {name: value for name, value in passed.items() if name not in others}


def _rendered_to_none(before: Any, now: Any) -> bool:
    """Return whether a template, or one in a list, found None: as text, unless the DAG has native rendering."""
    if isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        return any(map(_rendered_to_none, before, now))
    return isinstance(before, str) and now == "None" != before


def _is_empty(value: Any) -> bool:
    """Return whether a value is None, blank text, or an empty collection, or a list with one of the first two."""
    if isinstance(value, list | tuple) and any(item is None or _blank(item) for item in value):
        return True
    return value is None or _blank(value) or (isinstance(value, Sized) and len(value) == 0)


def _blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()
