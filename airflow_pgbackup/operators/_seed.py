"""The seed of a task: what identifies its request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from functools import partial
from inspect import signature
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


def seed(task: BaseOperator, context: Context) -> str:
    """Return what identifies a request: the same for each attempt, so that a retry finds what an earlier one did.

    It changes with the task's rendered arguments; with the start of the run, so that a run that was deleted and made
    again under its old id differs; and with a clear, since a person who clears a task wants it to run again. A clear
    sets ``max_tries`` to the tries so far plus the retries (``clear_task_instances``). Those are the retries in the DAG
    as Airflow last parsed it; the worker's may be newer. ``max_tries`` stays the same only if the retries were lowered.
    ``clear_number`` would not do: it belongs to the run, and counts the clears of other tasks.
    """
    ti = context["ti"]
    started = getattr(context.get("dag_run"), "start_date", None)
    run = [ti.dag_id, ti.task_id, ti.run_id, ti.map_index, started and started.timestamp()]
    return json.dumps([*run, ti.max_tries, ti.task.retries or 0, _arguments(task)])


def _arguments(task: BaseOperator) -> dict[str, Any]:
    """Return the arguments of the operator's class and its bases, without those that every operator has."""
    kinds = [kind for kind in type(task).__mro__ if issubclass(kind, BaseOperator)]
    names = {name for kind in kinds for name in signature(kind.__init__).parameters}
    own = sorted(names - signature(BaseOperator.__init__).parameters.keys())
    return {name: _plain(getattr(task, name, None)) for name in own}


def _plain(value: Any) -> Any:
    """Return a value as JSON that is equal in each process: an object's default text has its address."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(each) for each in value]
    if isinstance(value, Set):
        return sorted((_plain(each) for each in value), key=json.dumps)
    if isinstance(value, partial):
        return [_plain(value.func), _plain(value.args), _plain(value.keywords)]
    if isinstance(value, MethodType):
        return [_plain(value.__func__), _plain(value.__self__)]
    if isinstance(value, FunctionType | BuiltinFunctionType | type):
        return f"{value.__module__}.{value.__qualname__}"
    kind: Any = type(value)
    return kind.__qualname__ if kind.__repr__ is object.__repr__ else repr(value)
