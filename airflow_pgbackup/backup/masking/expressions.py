"""A rule as an SQL expression over the row that a trigger gets.

Values choose a word of a dictionary by ``hashtextextended`` with a secret seed, which is fast. What shows digits of a
hash shows those of SHA-256 of a secret and the value: nobody without the key can try values against it. The digest is
cut off, which keeps it from being extended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psycopg import sql
from psycopg.abc import AdaptContext

from airflow_pgbackup.backup.masking.columns import SCHEMA, Column
from airflow_pgbackup.backup.masking.dictionaries import SIZE
from airflow_pgbackup.backup.masking.rules import Rule
from airflow_pgbackup.postgres.sql.anybytes import Identifier, encoded

TEXTS = ("text", "varchar", "bpchar", "citext")
INTEGERS = {"int2": 2**14 - 1, "int4": 2**30 - 1, "int8": 2**60 - 1}  # generated columns may compute with them
TIMES = ("date", "timestamp", "timestamptz")
NUMBERS = (*INTEGERS, "numeric", "float4", "float8")
LEAST_UNIQUE = 12
"""Hexadecimal digits that keep values apart: of a million values, two are equal with a probability of 0.2 %."""
_HEX = 16
"""Digits of what is added to a fake: of 100 million values, two are equal with a probability of 0.03 %."""


class Misfit(Exception):
    """A rule cannot hold for a column; the message says why."""


@dataclass(frozen=True)
class Masked:
    """A column with its rule.

    :ivar length: the longest text that it, and every column that refers to it, can hold; 0: any.
    :ivar unique: whether masks of different values must differ.
    :ivar distinct: whether its fakes carry digits of a hash, as a column with the same fake must be unique.
    """

    column: Column
    rule: Rule
    length: int = 0
    unique: bool = False
    distinct: bool = False


def words_of(masked: Masked) -> set[str]:
    """Return the dictionaries that a fake needs."""
    if masked.rule.method != "fake":
        return set()
    kind = _short_kind(masked)
    composed = {
        "name": {"first_name", "last_name"},
        "email": {"mail_name"},
        "username": {"mail_name"},
        "address": {"street", "postcode", "city"},
        "text": {"sentence"},
    }
    return composed.get(kind, {kind} if kind not in _BUILT else set())


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
    chosen = sql.SQL("(({} & 2147483647) % {})::int").format(_number(text), sql.Literal(2 * rule.days))
    return sql.SQL("({0} - {1} + ({0} >= {1})::int)").format(chosen, sql.Literal(rule.days))


def shifted(column: Column, value: sql.Composable, days: sql.Composable) -> sql.Composable:
    """Return a date or time that is moved by days.

    What stands for "never" or "for ever", such as 9999-12-31 or infinity, stays.
    """
    moved = "{0} + ({1})" if column.base == "date" else "{0} + '24:00'::pg_catalog.interval * ({1})"
    return sql.SQL(f"CASE WHEN {{0}} > '0002-01-01' AND {{0}} < '9999-01-01' THEN {moved} ELSE {{0}} END").format(
        value, days
    )


def moment(column: Column, value: sql.Composable) -> sql.Composable:
    """Return a date or time as text that no setting of the session changes."""
    field = "julian" if column.base == "date" else "epoch"
    return sql.SQL("pg_catalog.extract({}, {})::text").format(sql.Literal(field), value)


class RawSql(sql.Composable):
    """SQL that the server made, such as the name of a type, in any bytes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        return encoded(self._text)


def _check(masked: Masked) -> None:
    column, rule = masked.column, masked.rule
    method = rule.method
    if column.generated:
        raise Misfit("the server computes it; mask the columns that it is computed from")
    if method == "null" and column.not_null:
        raise Misfit("it is NOT NULL; use fixed, hash or a fake")
    if method == "fixed" and 0 < column.length < len(rule.text):
        raise Misfit(f"it has room for {column.length} characters, and the fixed value has {len(rule.text)}")
    if masked.unique and method in ("fixed", "generalize", "shift"):
        raise Misfit(f"it is unique, and {method} gives equal values; use hash or a fake")
    if column.partition_key and method not in ("generalize", "sql"):
        raise Misfit("it decides to which partition a row belongs, and a masked row would belong to another one")
    wanted = {"hash": _hash, "fake": _fake, "shift": _shift, "generalize": _generalize}
    if method in wanted and column.enum:
        raise Misfit(f"{rule} cannot make a value of its enum type {column.type}; use fixed, null or sql")


def _refuse(masked: Masked) -> Misfit:
    return Misfit(f"{masked.rule} cannot make a value of type {masked.column.type}; use null, fixed or sql")


def _text(masked: Masked, value: sql.Composable) -> sql.Composable:
    """Return a value as text: equal values give equal texts."""
    text = sql.SQL("{}::text").format(value)
    return sql.SQL("pg_catalog.lower({})").format(text) if masked.column.base == "citext" else text


def _number(text: sql.Composable) -> sql.Composable:
    return sql.SQL("pg_catalog.hashtextextended({}, {}.seed())").format(text, sql.Identifier(SCHEMA))


def _digest(masked: Masked, value: sql.Composable) -> sql.Composable:
    if masked.column.base == "bytea":
        data = value
    else:
        data = sql.SQL("pg_catalog.convert_to({}, {}.encoding())").format(_text(masked, value), sql.Identifier(SCHEMA))
    return sql.SQL("pg_catalog.sha256({}.secret() || {})").format(sql.Identifier(SCHEMA), data)


def _hex(masked: Masked, value: sql.Composable, digits: int = _HEX) -> sql.Composable:
    if digits % 2:
        return sql.SQL("pg_catalog.left(pg_catalog.encode({}, 'hex'), {})").format(
            _digest(masked, value), sql.Literal(digits)
        )
    return sql.SQL("pg_catalog.encode(pg_catalog.substr({}, 1, {}), 'hex')").format(
        _digest(masked, value), sql.Literal(digits // 2)
    )


def _bits(masked: Masked, value: sql.Composable) -> sql.Composable:
    """Return a number of 60 bits: a hash of the digest, which is faster than to read its digits."""
    return sql.SQL("(pg_catalog.hashtextextended({}, 0) & {})").format(_hex(masked, value, 64), sql.Literal(2**60 - 1))


def _word(kind: str, number: sql.Composable, shift: int = 0) -> sql.Composable:
    return sql.SQL("({}.{}())[1 + ((({}) >> {}) & {})::int]::text").format(
        sql.Identifier(SCHEMA), sql.Identifier(f"words_{kind}"), number, sql.Literal(shift), sql.Literal(SIZE - 1)
    )


def _cut(masked: Masked, text: sql.Composable) -> sql.Composable:
    if not masked.length or masked.length >= 200:  # no fake is longer
        return text
    return sql.SQL("pg_catalog.left({}, {})").format(text, sql.Literal(masked.length))


def _room(masked: Masked, needed: int, what: str) -> None:
    if masked.length and masked.length < needed:
        raise Misfit(f"it has room for {masked.length} characters, and {what} needs {needed}")


def _hash(masked: Masked, value: sql.Composable) -> sql.Composable:
    base = masked.column.base
    if base in TEXTS:
        digits = min(masked.rule.length, masked.length or masked.rule.length)
        if masked.unique and digits < LEAST_UNIQUE:
            raise Misfit(f"it is unique, and a hash of {digits} characters would repeat; at least {LEAST_UNIQUE}")
        return _hex(masked, value, digits)
    if base == "uuid":
        return _uuid(masked, value)
    if base == "bytea":
        return sql.SQL("pg_catalog.substring({}, 1, 24)").format(_digest(masked, value))
    if base in INTEGERS:
        if masked.unique and base != "int8":
            raise Misfit("it is unique, and a hash of so few digits would repeat; use keep, or sql with a formula")
        return sql.SQL("({} & {})").format(_bits(masked, value), sql.Literal(INTEGERS[base]))
    if base == "numeric" and masked.column.digits >= 0:
        digits = min(masked.column.digits or 17, 17)
        if masked.unique and digits < 15:
            raise Misfit("it is unique, and a hash of so few digits would repeat; use keep, or sql with a formula")
        return sql.SQL("({} % {})").format(_bits(masked, value), sql.Literal(10**digits))
    raise _refuse(masked)


def _fake(masked: Masked, value: sql.Composable) -> sql.Composable:
    kind = _short_kind(masked)
    if masked.column.base in TEXTS:
        if kind in _BUILT:
            return _BUILT[kind](masked, value)
        return _distinct(masked, value, _phrase(masked, kind, _number(_text(masked, value))))
    if kind == "uuid" and masked.column.base == "uuid":
        return _uuid(masked, value)
    if kind == "ip" and masked.column.base in ("inet", "cidr"):
        return _address(masked, value)
    if kind in ("phone", "credit_card") and masked.column.base in ("int8", "numeric"):
        if masked.column.base == "numeric" and masked.column.digits and masked.column.digits < 16:
            raise Misfit(f"it has room for {max(masked.column.digits, 0)} digits, and fake {kind} needs 16")
        return sql.SQL("(9990000000000000 + {} % 1000000000000)").format(_bits(masked, value))
    raise _refuse(masked)


def _short_kind(masked: Masked) -> str:
    """Return the fake; of a column for codes of two or three letters that of the code."""
    kind = masked.rule.fake
    return f"{kind}_code" if kind in ("country", "state") and 0 < masked.length <= 3 else kind


def _phrase(masked: Masked, kind: str, number: sql.Composable) -> sql.Composable:
    if kind == "name":
        return sql.SQL("{} || ' ' || {}").format(_word("first_name", number), _word("last_name", number, 10))
    if kind == "address":
        parts = _word("street", number), _word("postcode", number, 10), _word("city", number, 20)
        return sql.SQL("{} || ', ' || {} || ' ' || {}").format(*parts)
    if kind == "text":
        return sql.SQL("{} || ' ' || {}").format(_word("sentence", number), _word("sentence", number, 10))
    return _word(kind, number)


def _distinct(masked: Masked, value: sql.Composable, phrase: sql.Composable) -> sql.Composable:
    """Add digits of a hash where masks of different values must differ."""
    if not masked.distinct:
        return _cut(masked, phrase)
    length = masked.length
    if not length or length >= 200 + _HEX:
        return sql.SQL("{} || ' ' || {}").format(phrase, _hex(masked, value))
    if length < LEAST_UNIQUE:
        if masked.unique:
            raise Misfit(f"it is unique, and {masked.rule} needs {LEAST_UNIQUE} characters for that, not {length}")
        return _cut(masked, phrase)
    if length <= _HEX + 1:
        return _hex(masked, value, min(length, _HEX))
    return sql.SQL("pg_catalog.left({}, {}) || ' ' || {}").format(
        phrase, sql.Literal(length - _HEX - 1), _hex(masked, value)
    )


def _email(masked: Masked, value: sql.Composable) -> sql.Composable:
    _room(masked, 19, "fake email")
    name = _word("mail_name", _number(_text(masked, value)))
    if masked.length and masked.length < 40:
        if masked.length < 28:
            return sql.SQL("{} || '@x.test'").format(_hex(masked, value, 12))
        return sql.SQL("{} || '@example.com'").format(_hex(masked, value))
    return sql.SQL("{} || '.' || {} || '@example.com'").format(name, _hex(masked, value))


def _username(masked: Masked, value: sql.Composable) -> sql.Composable:
    if masked.length and masked.length < 27:
        if masked.unique:
            _room(masked, LEAST_UNIQUE, "a unique fake username")
        return _hex(masked, value, min(masked.length, _HEX))
    return sql.SQL("{} || '_' || {}").format(_word("mail_name", _number(_text(masked, value))), _hex(masked, value))


def _phone(masked: Masked, value: sql.Composable) -> sql.Composable:
    # No country has the code 999, so nobody is called or gets a message. A number has at most 15 digits (E.164); unique
    # ones have more, as 11 random digits repeat among a hundred thousand.
    digits = 16 if masked.distinct and (not masked.length or masked.length >= 20) else 11
    _room(masked, 20 if masked.unique else 8, "fake phone")
    if masked.length:
        digits = min(digits, masked.length - 4)
    return sql.SQL("'+999' || pg_catalog.lpad(({} % {})::text, {}, '0')").format(
        _bits(masked, value), sql.Literal(10**digits), sql.Literal(digits)
    )


def _iban(masked: Masked, value: sql.Composable) -> sql.Composable:
    _room(masked, 22, "fake iban")
    return sql.SQL("{}.iban({})").format(sql.Identifier(SCHEMA), _bits(masked, value))


def _credit_card(masked: Masked, value: sql.Composable) -> sql.Composable:
    needed = 19 if masked.distinct else 16
    _room(masked, needed, "fake credit_card")
    return sql.SQL("{}.card({}, {})").format(sql.Identifier(SCHEMA), _bits(masked, value), sql.Literal(needed))


def _address(masked: Masked, value: sql.Composable) -> sql.Composable:
    # 10.0.0.0/8 is private, 2001:db8::/32 for documentation: neither is routed.
    six = sql.SQL("'2001:db8::'::pg_catalog.inet + {}").format(_bits(masked, value))
    if masked.distinct:
        return six
    four = sql.SQL("'10.0.0.0'::pg_catalog.inet + ({} & 16777215)").format(_number(_text(masked, value)))
    return sql.SQL("CASE pg_catalog.family({}) WHEN 6 THEN {} ELSE {} END").format(value, six, four)


def _ip(masked: Masked, value: sql.Composable) -> sql.Composable:
    if masked.distinct:
        _room(masked, 39, "a unique fake ip")
        return sql.SQL("pg_catalog.host('2001:db8::'::pg_catalog.inet + {})").format(_bits(masked, value))
    _room(masked, 15, "fake ip")
    number = _number(_text(masked, value))
    return sql.SQL("pg_catalog.host('10.0.0.0'::pg_catalog.inet + ({} & 16777215))").format(number)


def _uuid(masked: Masked, value: sql.Composable) -> sql.Composable:
    _room(masked, 36, "fake uuid")
    return sql.SQL("{}::pg_catalog.uuid").format(_hex(masked, value, 32))


def _url(masked: Masked, value: sql.Composable) -> sql.Composable:
    _room(masked, 36, "fake url")
    return sql.SQL("'https://example.com/' || {}").format(_hex(masked, value))


def _shift(masked: Masked, value: sql.Composable) -> sql.Composable:
    if masked.column.base not in TIMES:
        raise _refuse(masked)
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
    raise _refuse(masked)


_BUILT: dict[str, Callable[[Masked, sql.Composable], sql.Composable]] = {
    "email": _email,
    "username": _username,
    "phone": _phone,
    "iban": _iban,
    "credit_card": _credit_card,
    "ip": _ip,
    "uuid": _uuid,
    "url": _url,
}
_MAKERS: dict[str, Callable[[Masked, sql.Composable], sql.Composable]] = {
    "hash": _hash,
    "fake": _fake,
    "shift": _shift,
    "generalize": _generalize,
}
