"""The parts of the SQL of masks.

Values choose a word of a dictionary by ``hashtextextended`` with a secret seed, which is fast. Digits of a hash are
those of SHA-256 of a secret and the value, so values cannot be tested against them without the key. The digest is
truncated, which prevents length extension.
"""

from __future__ import annotations

from psycopg import sql
from psycopg.abc import AdaptContext

from airflow_pgbackup.backup.masking.columns import SCHEMA
from airflow_pgbackup.backup.masking.dictionaries import SIZE
from airflow_pgbackup.backup.masking.masked_column import Masked, Misfit
from airflow_pgbackup.postgres.sql.anybytes import encoded

HEX = 16
"""Digits of what is added to a fake: of 100 million values, two are equal with a probability of 0.03 %."""


class RawSql(sql.Composable):
    """SQL that the server made, such as the name of a type, in any bytes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        return encoded(self._text)


def as_text(masked: Masked, value: sql.Composable) -> sql.Composable:
    """Return a value as text: equal values give equal texts."""
    text = sql.SQL("{}::text").format(value)
    return sql.SQL("pg_catalog.lower({})").format(text) if masked.column.base == "citext" else text


def number_of(text: sql.Composable) -> sql.Composable:
    """Return a number of 64 bits that chooses a word, or the days of a shift."""
    return sql.SQL("pg_catalog.hashtextextended({}, {}.seed())").format(text, sql.Identifier(SCHEMA))


def digest(masked: Masked, value: sql.Composable) -> sql.Composable:
    """Return SHA-256 of the secret and a value."""
    if masked.column.base == "bytea":
        data = value
    else:
        data = sql.SQL("pg_catalog.convert_to({}, {}.encoding())").format(
            as_text(masked, value), sql.Identifier(SCHEMA)
        )
    return sql.SQL("pg_catalog.sha256({}.secret() || {})").format(sql.Identifier(SCHEMA), data)


def hex_digits(masked: Masked, value: sql.Composable, digits: int = HEX) -> sql.Composable:
    """Return the first hexadecimal digits of a value's digest."""
    if digits % 2:
        return sql.SQL("pg_catalog.left(pg_catalog.encode({}, 'hex'), {})").format(
            digest(masked, value), sql.Literal(digits)
        )
    return sql.SQL("pg_catalog.encode(pg_catalog.substr({}, 1, {}), 'hex')").format(
        digest(masked, value), sql.Literal(digits // 2)
    )


def bits(masked: Masked, value: sql.Composable) -> sql.Composable:
    """Return a number of 60 bits: a hash of the digest, which is faster than to read its digits."""
    return sql.SQL("(pg_catalog.hashtextextended({}, 0) & {})").format(
        hex_digits(masked, value, 64), sql.Literal(2**60 - 1)
    )


def word(kind: str, number: sql.Composable, shift: int = 0) -> sql.Composable:
    """Return the word of a dictionary that some bits of a number choose."""
    return sql.SQL("({}.{}())[1 + ((({}) >> {}) & {})::int]::text").format(
        sql.Identifier(SCHEMA), sql.Identifier(f"words_{kind}"), number, sql.Literal(shift), sql.Literal(SIZE - 1)
    )


def cut(masked: Masked, text: sql.Composable) -> sql.Composable:
    """Return a fake that is no longer than the column."""
    if not masked.length or masked.length >= 200:  # no fake is longer
        return text
    return sql.SQL("pg_catalog.left({}, {})").format(text, sql.Literal(masked.length))


def require_room(masked: Masked, needed: int, what: str) -> None:
    """Check that a column has room for a number of characters.

    :raises Misfit: it has not.
    """
    if masked.length and masked.length < needed:
        raise Misfit(f"it has room for {masked.length} characters, and {what} needs {needed}")
