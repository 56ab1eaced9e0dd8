"""Which of our operators a task has."""

from __future__ import annotations

from typing import Any

_OURS = ("airflow_pgbackup.operators.", "airflow_pgbackup.sensors.")


def operator_module(task: Any) -> str | None:
    """Return the name of the module of a task's operator, also of one derived from it: ``dump``; None if not ours."""
    kind = getattr(task, "operator_class", type(task))
    modules = [one.__module__ for one in getattr(kind, "__mro__", ())]
    return next((name.rpartition(".")[2].lstrip("_") for name in modules if name.startswith(_OURS)), None)
