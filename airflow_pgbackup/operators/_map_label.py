"""The name of a mapped task: Airflow shows the map index unless a task has a ``map_index_template``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_pgbackup.text import printable

_TEMPLATE = "{{ task.map_label }}"
_LONGEST = 250  # characters: Airflow's column rendered_map_index


class MapLabel:
    """Gives mapped tasks, also those of mapped task groups, a name instead of ``[37]``: what they work on.

    A ``map_index_template`` of the DAG takes precedence.
    """

    @property
    def map_label(self) -> str:
        """What the task works on, from its rendered fields: ``server/database``, the series of a backup."""
        return printable(self._map_label())[:_LONGEST]

    def _map_label(self) -> str:
        raise NotImplementedError

    def _do_render_template_fields(
        self, parent: Any, template_fields: Any, context: Any, *rest: Any, **more: Any
    ) -> None:
        # Airflow calls this for operators, mapped ones, and those of mapped task groups, and renders the template of
        # the context right afterwards, and again at the end of the task.
        super()._do_render_template_fields(parent, template_fields, context, *rest, **more)  # type: ignore[misc]
        if parent is self and context.get("map_index_template") is None and context["ti"].map_index >= 0:
            context["map_index_template"] = _TEMPLATE


def series_label(backup: object) -> str:
    """Return the series of a reference for people; for what is not a reference, its text."""
    from airflow_pgbackup.repository.layout import Series

    series = backup.get("series") if isinstance(backup, Mapping) else backup
    try:
        return str(Series.parse(str(series)))
    except ValueError:
        return str(series)
