"""A column with its rule."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_pgbackup.backup.masking.columns import Column
from airflow_pgbackup.backup.masking.rules import Rule

TEXTS = ("text", "varchar", "bpchar", "citext")
INTEGERS = {"int2": 2**14 - 1, "int4": 2**30 - 1, "int8": 2**60 - 1}
"""The largest hash of each type: generated columns may compute with them."""
TIMES = ("date", "timestamp", "timestamptz")
NUMBERS = (*INTEGERS, "numeric", "float4", "float8")
LEAST_UNIQUE = 12
"""Hexadecimal digits that keep values apart: of a million values, two are equal with a probability of 0.2 %."""


def masks_agree(column: Column, other: Column) -> bool:
    """Return whether equal values of two columns have equal masks by the same rule."""
    return column.base == other.base or {column.base, other.base} == {"text", "varchar"}


class Misfit(Exception):
    """A rule cannot hold for a column; the message says why."""


@dataclass(frozen=True)
class Masked:
    """A column with its rule.

    :param length: the longest text that it, and every column that refers to it, can hold; 0: any.
    :param unique: whether masks of different values must differ.
    :param distinct: whether its fakes carry digits of a hash, as a column with the same fake must be unique.
    """

    column: Column
    rule: Rule
    length: int = 0
    unique: bool = False
    distinct: bool = False


def refuse(masked: Masked) -> Misfit:
    """Return the error of a rule that does not suit the type of its column."""
    return Misfit(f"{masked.rule} cannot make a value of type {masked.column.type}; use null, fixed or sql")
