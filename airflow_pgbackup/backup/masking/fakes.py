"""The SQL of fakes."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from airflow_pgbackup.backup.masking.columns import SCHEMA
from airflow_pgbackup.backup.masking.masked_column import LEAST_UNIQUE, TEXTS, Masked, Misfit, refuse
from airflow_pgbackup.backup.masking.sql_parts import HEX, as_text, bits, cut, hex_digits, number_of, require_room, word


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


def fake_value(masked: Masked, value: sql.Composable) -> sql.Composable:
    """Return a fake for a value.

    :raises Misfit: the column cannot hold it.
    """
    kind = _short_kind(masked)
    if masked.column.base in TEXTS:
        if kind in _BUILT:
            return _BUILT[kind](masked, value)
        return _distinct(masked, value, _phrase(masked, kind, number_of(as_text(masked, value))))
    if kind == "uuid" and masked.column.base == "uuid":
        return uuid_value(masked, value)
    if kind == "ip" and masked.column.base in ("inet", "cidr"):
        return _address(masked, value)
    if kind in ("phone", "credit_card") and masked.column.base in ("int8", "numeric"):
        digits = 18 if masked.distinct else 16
        if masked.column.base == "numeric" and masked.column.digits and masked.column.digits < digits:
            raise Misfit(f"it has room for {max(masked.column.digits, 0)} digits, and fake {kind} needs {digits}")
        return sql.SQL("({} + {} % {})").format(
            sql.Literal(999 * 10 ** (digits - 3)), bits(masked, value), sql.Literal(10 ** (digits - 3))
        )
    raise refuse(masked)


def _short_kind(masked: Masked) -> str:
    """Return the kind of fake; for a country or state column of at most three characters, the kind that makes codes."""
    kind = masked.rule.fake
    return f"{kind}_code" if kind in ("country", "state") and 0 < masked.length <= 3 else kind


def _phrase(masked: Masked, kind: str, number: sql.Composable) -> sql.Composable:
    if kind == "name":
        return sql.SQL("{} || ' ' || {}").format(word("first_name", number), word("last_name", number, 10))
    if kind == "address":
        parts = word("street", number), word("postcode", number, 10), word("city", number, 20)
        return sql.SQL("{} || ', ' || {} || ' ' || {}").format(*parts)
    if kind == "text":
        return sql.SQL("{} || ' ' || {}").format(word("sentence", number), word("sentence", number, 10))
    return word(kind, number)


def _distinct(masked: Masked, value: sql.Composable, phrase: sql.Composable) -> sql.Composable:
    """Add digits of a hash where masks of different values must differ."""
    if not masked.distinct:
        return cut(masked, phrase)
    length = masked.length
    if not length or length >= 200 + HEX:
        return sql.SQL("{} || ' ' || {}").format(phrase, hex_digits(masked, value))
    if length < LEAST_UNIQUE:
        if masked.unique:
            raise Misfit(f"it is unique, and {masked.rule} needs {LEAST_UNIQUE} characters for that, not {length}")
        return cut(masked, phrase)
    if length <= HEX + 1:
        return hex_digits(masked, value, min(length, HEX))
    return sql.SQL("pg_catalog.left({}, {}) || ' ' || {}").format(
        phrase, sql.Literal(length - HEX - 1), hex_digits(masked, value)
    )


def _email(masked: Masked, value: sql.Composable) -> sql.Composable:
    require_room(masked, 19, "fake email")
    name = word("mail_name", number_of(as_text(masked, value)))
    if masked.length and masked.length < 40:
        if masked.length < 28:
            return sql.SQL("{} || '@x.test'").format(hex_digits(masked, value, 12))
        return sql.SQL("{} || '@example.com'").format(hex_digits(masked, value))
    return sql.SQL("{} || '.' || {} || '@example.com'").format(name, hex_digits(masked, value))


def _username(masked: Masked, value: sql.Composable) -> sql.Composable:
    if masked.length and masked.length < 27:
        if masked.unique:
            require_room(masked, LEAST_UNIQUE, "a unique fake username")
        return hex_digits(masked, value, min(masked.length, HEX))
    name = word("mail_name", number_of(as_text(masked, value)))
    return sql.SQL("{} || '_' || {}").format(name, hex_digits(masked, value))


def _phone(masked: Masked, value: sql.Composable) -> sql.Composable:
    # No country has the code 999, so nobody is called or gets a message. A number has at most 15 digits (E.164); unique
    # ones have more, as 11 random digits repeat among a hundred thousand.
    digits = 16 if masked.distinct and (not masked.length or masked.length >= 20) else 11
    require_room(masked, 20 if masked.unique else 8, "fake phone")
    if masked.length:
        digits = min(digits, masked.length - 4)
    return sql.SQL("'+999' || pg_catalog.lpad(({} % {})::text, {}, '0')").format(
        bits(masked, value), sql.Literal(10**digits), sql.Literal(digits)
    )


def _iban(masked: Masked, value: sql.Composable) -> sql.Composable:
    require_room(masked, 22, "fake iban")
    return sql.SQL("{}.iban({})").format(sql.Identifier(SCHEMA), bits(masked, value))


def _credit_card(masked: Masked, value: sql.Composable) -> sql.Composable:
    needed = 19 if masked.distinct else 16
    require_room(masked, needed, "fake credit_card")
    return sql.SQL("{}.card({}, {})").format(sql.Identifier(SCHEMA), bits(masked, value), sql.Literal(needed))


def _address(masked: Masked, value: sql.Composable) -> sql.Composable:
    # 10.0.0.0/8 is private, 2001:db8::/32 for documentation: neither is routed.
    six = sql.SQL("'2001:db8::'::pg_catalog.inet + {}").format(bits(masked, value))
    if masked.distinct:
        return six
    four = sql.SQL("'10.0.0.0'::pg_catalog.inet + ({} & 16777215)").format(number_of(as_text(masked, value)))
    return sql.SQL("CASE pg_catalog.family({}) WHEN 6 THEN {} ELSE {} END").format(value, six, four)


def _ip(masked: Masked, value: sql.Composable) -> sql.Composable:
    if masked.distinct:
        require_room(masked, 39, "a unique fake ip")
        return sql.SQL("pg_catalog.host('2001:db8::'::pg_catalog.inet + {})").format(bits(masked, value))
    require_room(masked, 15, "fake ip")
    number = number_of(as_text(masked, value))
    return sql.SQL("pg_catalog.host('10.0.0.0'::pg_catalog.inet + ({} & 16777215))").format(number)


def uuid_value(masked: Masked, value: sql.Composable) -> sql.Composable:
    """Return a UUID of random digits, of no version."""
    require_room(masked, 36, "fake uuid")
    return sql.SQL("{}::pg_catalog.uuid").format(hex_digits(masked, value, 32))


def _url(masked: Masked, value: sql.Composable) -> sql.Composable:
    require_room(masked, 36, "fake url")
    return sql.SQL("'https://example.com/' || {}").format(hex_digits(masked, value))


_BUILT: dict[str, Callable[[Masked, sql.Composable], sql.Composable]] = {
    "email": _email,
    "username": _username,
    "phone": _phone,
    "iban": _iban,
    "credit_card": _credit_card,
    "ip": _ip,
    "uuid": uuid_value,
    "url": _url,
}
