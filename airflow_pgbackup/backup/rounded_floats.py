"""Whether a dump holds its floating-point values rounded, by its option ``extra_float_digits``."""

from __future__ import annotations


def are_floats_rounded(extra_float_digits: object) -> bool:
    """Return whether the server rounded floating-point values for the dump: any value above 0 writes them exactly.

    :param extra_float_digits: of the dump's options; without it, pg_dump asks for exact values.
    """
    return isinstance(extra_float_digits, int) and extra_float_digits <= 0
