"""A rule as an SQL expression over the row that a trigger gets."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from airflow_pgbackup.backup.masking.columns import Column
from airflow_pgbackup.backup.masking.fakes import fake_value, uuid_value
from airflow_pgbackup.backup.masking.masked_column import (
    INTEGERS,
    LEAST_UNIQUE,
    NUMBERS,
    TEXTS,
    TIMES,
    Masked,
    Misfit,
    refuse,
)
from airflow_pgbackup.backup.masking.rules import Rule
from airflow_pgbackup.backup.masking.sql_parts import RawSql, bits, digest, hex_digits, number_of
from airflow_pgbackup.postgres.sql.anybytes import Identifier


def expression(masked: Masked) -> sql.Composable:
    """Return the expression of the masked value of ``NEW``, of the column's own type.

    ``sql`` and ``shift`` with another column are made by :mod:`.triggers`.

    :raises Misfit: the rule cannot hold for the column.
    """
    column, rule = masked.column, masked.rule
    _check(masked)
    kind = RawSql(column.type)
    if rule.method == "null":
        return sql.SQL("NULL::{}").format(kind)
    if rule.method == "fixed":
        return sql.SQL("{}::{}").format(sql.Literal(rule.text), kind)
    value = sql.SQL("NEW.{}").format(Identifier(column.name))
    if not column.array:
        return sql.SQL("({})::{}").format(_MAKERS[rule.method](masked, value), kind)
    return sql.SQL(
        "CASE WHEN {} IS NOT NULL THEN ARRAY("
        "SELECT {} FROM pg_catalog.unnest({}) WITH ORDINALITY AS u(x, n) ORDER BY u.n)::{} END"
    ).format(value, _MAKERS[rule.method](masked, sql.SQL("u.x")), value, kind)


def shift_days(rule: Rule, text: sql.Composable) -> sql.Composable:
    """Return the days of a shift, chosen by a text: never 0."""
    chosen = sql.SQL("(({} & 2147483647) % {})::int").format(number_of(text), sql.Literal(2 * rule.days))
    return sql.SQL("({0} - {1} + ({0} >= {1})::int)").format(chosen, sql.Literal(rule.days))


def shifted(column: Column, value: sql.Composable, days: sql.Composable) -> sql.Composable:
    """Return a date or time that is moved by days.

    What stands for "never", such as 9999-12-31 or infinity, stays.
    """
    moved = "{0} + ({1})" if column.base == "date" else "{0} + '24:00'::pg_catalog.interval * ({1})"
    return sql.SQL(f"CASE WHEN {{0}} > '0002-01-01' AND {{0}} < '9999-01-01' THEN {moved} ELSE {{0}} END").format(
        value, days
    )


def moment(column: Column, value: sql.Composable) -> sql.Composable:
    """Return a date or time as text that no setting of the session changes."""
    field = "julian" if column.base == "date" else "epoch"
    return sql.SQL("pg_catalog.extract({}, {})::text").format(sql.Literal(field), value)


def _check(masked: Masked) -> None:
    column, rule = masked.column, masked.rule
    method = rule.method
    if column.generated:
        raise Misfit("the server computes it; mask the columns that it is computed from")
    if method == "null" and column.not_null:
        raise Misfit("it is NOT NULL; use fixed, hash or a fake")
    if method == "fixed" and not column.array and 0 < column.length < len(rule.text):
        raise Misfit(f"it has room for {column.length} characters, and the fixed value has {len(rule.text)}")
    if masked.unique and method in ("fixed", "generalize", "shift"):
        raise Misfit(f"it is unique, and {method} gives equal values; use hash or a fake")
    if column.partition_key and method not in ("generalize", "sql"):
        raise Misfit("it decides to which partition a row belongs, and a masked row would belong to another one")
    if method in _MAKERS and column.enum:
        raise Misfit(f"{rule} cannot make a value of its enum type {column.type}; use fixed, null or sql")


def _hash(masked: Masked, value: sql.Composable) -> sql.Composable:
    base = masked.column.base
    if base in TEXTS:
        digits = min(masked.rule.length, masked.length or masked.rule.length)
        if masked.unique and digits < LEAST_UNIQUE:
            raise Misfit(f"it is unique, and a hash of {digits} characters would repeat; at least {LEAST_UNIQUE}")
        return hex_digits(masked, value, digits)
    if base == "uuid":
        return uuid_value(masked, value)
    if base == "bytea":
        return sql.SQL("pg_catalog.substring({}, 1, 24)").format(digest(masked, value))
    if base in INTEGERS:
        if masked.unique and base != "int8":
            raise Misfit("it is unique, and a hash of so few digits would repeat; use keep, or sql with a formula")
        return sql.SQL("({} & {})").format(bits(masked, value), sql.Literal(INTEGERS[base]))
    if base == "numeric" and masked.column.digits >= 0:
        digits = min(masked.column.digits or 17, 17)
        if masked.unique and digits < 15:
            raise Misfit("it is unique, and a hash of so few digits would repeat; use keep, or sql with a formula")
        return sql.SQL("({} % {})").format(bits(masked, value), sql.Literal(10**digits))
    raise refuse(masked)


def _shift(masked: Masked, value: sql.Composable) -> sql.Composable:
    if masked.column.base not in TIMES:
        raise refuse(masked)
    return shifted(masked.column, value, shift_days(masked.rule, moment(masked.column, value)))


def _generalize(masked: Masked, value: sql.Composable) -> sql.Composable:
    base, rule = masked.column.base, masked.rule
    if rule.unit and base in TIMES:
        if base == "timestamptz":
            return sql.SQL("pg_catalog.date_trunc({}, {}, 'UTC')").format(sql.Literal(rule.unit), value)
        trunc = sql.SQL("pg_catalog.date_trunc({}, {}::timestamp)").format(sql.Literal(rule.unit), value)
        if base == "timestamp":
            return trunc
        # A date can be later than any timestamp.
        return sql.SQL("CASE WHEN {} >= '294277-01-01' THEN 'infinity' ELSE {} END").format(value, trunc)
    if rule.bucket and base in ("float4", "float8"):
        width = sql.SQL("{}::float8").format(sql.Literal(rule.bucket))
        return sql.SQL("pg_catalog.floor({} / {}) * {}").format(value, width, width)
    if rule.bucket and base in NUMBERS:
        width = sql.SQL("{}::numeric").format(sql.Literal(rule.bucket))
        return sql.SQL("pg_catalog.floor({}::numeric / {}) * {}").format(value, width, width)
    if not rule.unit and not rule.bucket and base in TEXTS:
        return sql.SQL("pg_catalog.left({}::text, {})").format(value, sql.Literal(rule.length))
    raise refuse(masked)


_MAKERS: dict[str, Callable[[Masked, sql.Composable], sql.Composable]] = {
    "hash": _hash,
    "fake": fake_value,
    "shift": _shift,
    "generalize": _generalize,
}
