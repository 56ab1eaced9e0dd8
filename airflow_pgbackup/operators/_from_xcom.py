"""Arguments that ``expand_kwargs`` takes from an upstream task: data, which must not be rendered as templates.

Airflow renders no value of XCom, except these: ``ListOfDictsExpandInput.resolve`` counts them among those of the DAG
file. The names of databases are chosen by whoever may create them, and ``{{ conn.other.password }}`` is a valid one.
This is a function, not a mixin, for the reason in :mod:`._map_label`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def mark_as_rendered(
    task: Any,
    given: Mapping[str, Any],
    parent: Any,
    template_fields: Iterable[str],
    context: Any,
    jinja_env: Any,
    seen_oids: set[int],
) -> None:
    """Add the values that a mapped task has from XCom to those that Airflow does not render.

    :param given: the arguments that were given by ``expand`` or ``expand_kwargs``; the constructor of a subclass may
        pass them on under another name. The other parameters are those of ``_do_render_template_fields``.
    """
    if _is_from_xcom(task, context["ti"].map_index):
        seen_oids |= {id(value) for value in given.values()}
        seen_oids |= {id(getattr(parent, name)) for name in given.keys() & {*template_fields}}


def _is_from_xcom(task: Any, map_index: int) -> bool:
    """Return whether the arguments of a mapped task are one dict that an upstream task returned."""
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    dag = task.get_dag()
    defined = dag.task_dict.get(task.task_id) if dag is not None else None
    if not isinstance(defined, MappedOperator):
        return False
    given: Any = defined.expand_input.value
    if isinstance(given, Mapping):  # expand(), whose values Airflow distinguishes
        return False
    return not isinstance(given[map_index] if isinstance(given, list | tuple) else given, Mapping)
