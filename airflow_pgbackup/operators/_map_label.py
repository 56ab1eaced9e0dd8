"""The names of mapped tasks: Airflow shows ``[37]`` unless a task has a ``map_index_template``.

Our operators name what they work on, ``server/database``, also in mapped task groups. A ``map_index_template`` of the
DAG takes precedence. This is not a mixin: Airflow's metaclass takes the defaults of a mapped operator from the first
base class that defines ``__init__``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from airflow_pgbackup.text import printable

_TEMPLATE = "{{ task.map_label }}"
_LONGEST = 250  # characters: Airflow's column rendered_map_index


def use_map_label(context: Any) -> None:
    """Give a mapped task its ``map_label`` as its name, after its template fields have been rendered.

    Airflow renders the template of the context right afterwards, and again at the end of the task.
    """
    if context.get("map_index_template") is None and context["ti"].map_index >= 0:
        context["map_index_template"] = _TEMPLATE


def as_label(*parts: str | None) -> str:
    """Return the name for a mapped task: the parts that are known, with ``/`` between them.

    In a DAG with ``render_template_as_native_obj`` Jinja makes a number of ``2024``, which Airflow refuses as a name
    when the work has been done. Such a name gets a ``/`` in front.
    """
    label = printable("/".join(filter(None, parts)))[:_LONGEST]
    try:
        ast.literal_eval(label)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return label
    return f"/{label}"[:_LONGEST]


def series_label(backup: object) -> str:
    """Return the series of a reference for people; for what is not a reference, its text."""
    from airflow_pgbackup.repository.layout import Series

    series = backup.get("series") if isinstance(backup, Mapping) else backup
    try:
        return str(Series.parse(str(series)))
    except ValueError:
        return str(series)
