"""Parameters that may be left out, but not empty: without them less is protected."""

from __future__ import annotations

from typing import TypeVar

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.wording import parameter

Given = TypeVar("Given")


def not_empty(name: str, value: Given, *, written: str | None = None) -> Given:
    """Return a parameter's value: None, or what is given.

    :param written: how the user writes the parameter; None: as :func:`.wording.parameter` has it.
    :raises ConfigurationError: it is blank text, such as the value of an unset variable or of a template that finds
        nothing.
    """
    if isinstance(value, str) and not value.strip():
        raise ConfigurationError(
            f"{written or parameter(name)} is empty",
            hint="Check the variable or template that it comes from, or leave it out if that is meant.",
        )
    return value
