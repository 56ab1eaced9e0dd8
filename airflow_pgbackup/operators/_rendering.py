"""What our operators and the sensor do around Airflow's rendering of template fields.

These are functions, not a mixin, for the reason in :mod:`._map_label`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from airflow_pgbackup.operators._from_xcom import mark_as_rendered
from airflow_pgbackup.operators._given import lost, mapped, passed_arguments, unrendered
from airflow_pgbackup.operators._map_label import use_map_label

T = TypeVar("T")


def remember_passed(task: T, kwargs: Mapping[str, Any]) -> T:
    """Return a new task. If Airflow makes it of a mapped one, it keeps the arguments of its constructor."""
    object.__setattr__(task, "_passed", passed_arguments(kwargs))  # its own __setattr__ works only after __init__
    return task


def render(task: Any, rendering: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    """Render the template fields of a task, note in its ``_lost`` what is empty now, and name it if it is mapped.

    :param rendering: Airflow's own ``_do_render_template_fields``, which gets `args` and `kwargs`.
    """
    before, from_map = unrendered(task), mapped(task, task._passed)
    mark_as_rendered(task, from_map, *args, **kwargs)
    rendering(*args, **kwargs)
    task._lost = lost(task, before, from_map)
    use_map_label(kwargs["context"] if "context" in kwargs else args[2])
