"""Short calls of the verbs in tests: what belongs to the context is given beside the other arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from airflow_pgbackup.backup.context import RunContext

_OF_CONTEXT = {field.name for field in fields(RunContext)}


def in_context(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with ``context``, built from those that are fields of :class:`RunContext`."""
    rest = {name: value for name, value in arguments.items() if name not in _OF_CONTEXT}
    return {**rest, "context": RunContext(**{name: arguments[name] for name in _OF_CONTEXT & arguments.keys()})}
