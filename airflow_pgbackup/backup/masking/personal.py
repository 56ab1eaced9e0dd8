"""Columns that look personal, by their names and by their contents."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql

from airflow_pgbackup.backup.masking.columns import Column, Table
from airflow_pgbackup.backup.masking.dictionaries import make_words
from airflow_pgbackup.backup.masking.masked_column import NUMBERS, TEXTS, TIMES
from airflow_pgbackup.backup.masking.rules import Rule
from airflow_pgbackup.postgres.sql.anybytes import Identifier

_ROWS = 1000
_LONGEST = 500
_SHARE = 0.5
_SHARE_WITHIN = 0.1
_LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL")


@dataclass(frozen=True)
class Kind:
    """A kind of personal data.

    :param name: as people call it.
    :param rules: what masks it; the first that fits the column.
    :param types: of the columns that can hold it.
    """

    name: str
    rules: tuple[Rule, ...]
    types: tuple[str, ...] = TEXTS


def _fake(name: str, what: str, types: tuple[str, ...] = TEXTS) -> Kind:
    return Kind(what, (Rule("fake", fake=name), Rule("hash", length=32), Rule("null")), types)


_HASH = (Rule("hash", length=32), Rule("null"))
_ANY = (*TEXTS, *NUMBERS, "bytea", "uuid", "json", "jsonb")
MAIL = _fake("email", "mail addresses")
PHONE = _fake("phone", "phone numbers", (*TEXTS, "int8", "numeric"))
IBAN = _fake("iban", "IBANs")
CARD = _fake("credit_card", "card numbers", (*TEXTS, "int8", "numeric"))
IP = _fake("ip", "IP addresses", (*TEXTS, "inet", "cidr"))
NAME = _fake("name", "names of people")
FIRST_NAME = _fake("first_name", "first names")
LAST_NAME = _fake("last_name", "last names")
FREE_TEXT = _fake("text", "text with mail addresses, IBANs or card numbers", (*TEXTS, "json", "jsonb", "xml"))

# Searched in names in lower case, with _ between words and at both ends.
_BY_NAME: tuple[tuple[str, Kind], ...] = (
    (r"_(e_?mails?|mail|e_?mail_?addr\w*|mail_address)_", MAIL),
    (r"_(phones?|telephone|tel|telefon\w*|mobiles?|mobil|handy|cell_?phone|fax|msisdn|phone_?\w*)_$", PHONE),
    (r"_(iban|bank_account|account_number|kontonummer)_", IBAN),
    (r"_(credit_card|card_(no|nr|num|number)|cc_?(no|num|number)|pan|kreditkarte\w*)_", CARD),
    (r"_(ip|ip_?addr(ess)?|client_ip|remote_addr)_", IP),
    (r"_(first_?name|given_?name|fore_?name|middle_?name|vorname|prenom|nombre|fname)_", FIRST_NAME),
    (r"_(last_?name|sur_?name|family_?name|maiden_?name|nachname|geburtsname|apellidos?|lname)_", LAST_NAME),
    (r"_(full_?name|display_?name|real_?name|contact_?name|customer_?name|person_?name|owner_?name)_", NAME),
    (r"_(user_?name|login|nick_?name|screen_?name|benutzer(name)?)_$", _fake("username", "user names")),
    (r"_(street\w*|address_?(line)?_?\d*|addr_?\d*|str(a|ass)sse|anschrift|adresse)_$", _fake("street", "addresses")),
    (r"_(zip|zip_?code|post_?code|postal_?code|plz)_$", _fake("postcode", "postcodes")),
    (r"_(birth\w*|dob|date_of_birth|geburts\w*)_", Kind("dates of birth", (Rule("generalize", unit="year"),), TIMES)),
    (r"_(birth\w*|dob|geburts\w*)_", Kind("dates or places of birth", (Rule("null"), *_HASH), TEXTS)),
    (
        r"_(ssn|social_security\w*|passport\w*|tax_?(id|number|no)|vat_?(id|no)|national_id|steuer\w*|nino|nir|pesel|"
        r"driver_?licen[cs]e\w*)_",
        Kind("numbers of documents", _HASH, _ANY),
    ),
    (
        r"_(passwor[dt]s?|passwd|pwd|pass_?hash|secrets?|tokens?|api_?key|private_?key|access_?key|otp\w*|salt)_",
        Kind("secrets", _HASH, (*TEXTS, "bytea", "uuid")),
    ),
    (
        r"_(salary|wage|income|gehalt)_",
        Kind("incomes", (Rule("generalize", bucket="1000"), *_HASH), (*NUMBERS, *TEXTS)),
    ),
    (
        r"_(latitude|longitude|lat|lon|lng|geo_?location)_",
        Kind("places", (Rule("generalize", bucket="1"), *_HASH), (*NUMBERS, *TEXTS)),
    ),
    (
        r"_(picture|photo|avatar|portrait|fingerprint|signature)_$",
        Kind("pictures", (Rule("null"), *_HASH), ("bytea", *TEXTS)),
    ),
)
_MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_PHONE = re.compile(r"(?:\+|00?)[1-9][0-9 ()/.-]{5,20}|\(\d{2,5}\)[0-9 /-]{5,15}|\d{3}[-. ]\d{3}[-. ]\d{4}")
_IBAN = re.compile(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")
_CARD = re.compile(r"[3-6]\d{3}(?:[ -]?\d){9,15}")


@dataclass(frozen=True)
class Suspect:
    """A column that looks personal.

    :param reason: ``named like mail addresses``, ``holds mail addresses``.
    """

    column: Column
    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.column}: {self.reason}"


def find_personal(
    connection: psycopg.Connection[Any], tables: Mapping[int, Table]
) -> tuple[list[Suspect], list[Table]]:
    """Return the columns that look personal, and the tables whose rows this role may not read.

    The contents of up to 1000 rows of each table are read, and no more than 500 characters of a value.

    :param connection: in autocommit mode.
    """
    found: list[Suspect] = []
    unread: list[Table] = []
    for table in tables.values():
        if table.exempt:
            continue
        values = {} if table.partitioned else _contents(connection, table, unread)
        for column in table.columns:
            if column.generated or column.enum:
                continue
            named, held = kind_by_name(column), kind_by_contents(values.get(column.name, ()))
            if held is not None and (held is not FREE_TEXT or named is None):
                found.append(Suspect(column, held, f"holds {held.name}"))
            elif named is not None:
                found.append(Suspect(column, named, f"named like {named.name}"))
    return found, unread


def kind_by_name(column: Column) -> Kind | None:
    """Return the kind of personal data that a column's name promises, and its type can hold."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", column.name).lower()
    words = f"_{re.sub('[^a-z0-9]+', '_', words).strip('_')}_"
    for pattern, kind in _BY_NAME:
        if column.base in kind.types and re.search(pattern, words):
            return kind
    if column.base in ("inet",):
        return IP
    return None


def kind_by_contents(values: Iterable[str]) -> Kind | None:
    """Return the kind of personal data that at least half of the values are; or that a tenth of them contain."""
    given = [value.strip() for value in values if value and value.strip()]
    if not given:
        return None
    for kind, test in _TESTS:
        if sum(map(test, given)) >= _SHARE * len(given):
            return kind
    if sum(map(_contains, given)) >= _SHARE_WITHIN * len(given):
        return FREE_TEXT
    return None


def _contents(connection: psycopg.Connection[Any], table: Table, unread: list[Table]) -> dict[str, Sequence[str]]:
    columns = [column for column in table.columns if column.base in (*TEXTS, "json", "jsonb", "xml", "inet", "int8")]
    if not columns:
        return {}
    shown = [
        sql.SQL("pg_catalog.left({}::text, {})").format(Identifier(column.name), sql.Literal(_LONGEST))
        for column in columns
    ]
    query = sql.SQL("SELECT {} FROM ONLY {} LIMIT {}").format(
        sql.SQL(", ").join(shown), Identifier(table.schema, table.name), sql.Literal(_ROWS)
    )
    try:
        rows = connection.execute(query).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        unread.append(table)
        return {}
    return {
        column.name: [row[number] for row in rows if row[number] is not None] for number, column in enumerate(columns)
    }


def _is_iban(text: str) -> bool:
    """Check the digits of ISO 13616."""
    compact = text.replace(" ", "")
    if not _IBAN.fullmatch(text) or not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Check the digit of ISO/IEC 7812 (Luhn)."""
    digits = re.sub("[ -]", "", text)
    if not _CARD.fullmatch(text) or not 13 <= len(digits) <= 19:
        return False
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(each // 10 + each % 10 for each in doubled) % 10 == 0


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "." in text or ":" in text


@lru_cache(maxsize=1)
def _names() -> tuple[frozenset[str], frozenset[str]]:
    """Return common first and last names, in lower case."""
    first, last = (
        frozenset(word.lower() for locale in _LOCALES for word in make_words(kind, [locale], 0, "UTF8"))
        for kind in ("first_name", "last_name")
    )
    return first, last


def _is_first_name(text: str) -> bool:
    return text.lower() in _names()[0]


def _is_last_name(text: str) -> bool:
    return text.lower() in _names()[1]


def _is_full_name(text: str) -> bool:
    words = text.lower().replace(",", " ").split()
    first, last = _names()
    return 2 <= len(words) <= 4 and any(word in first for word in words) and any(word in last for word in words)


def _contains(text: str) -> bool:
    return bool(
        _MAIL.search(text)
        or any(_is_iban(match[0]) for match in _IBAN.finditer(text))
        or any(_is_card(match[0]) for match in _CARD.finditer(text))
    )


_TESTS: tuple[tuple[Kind, Callable[[str], bool]], ...] = (
    (MAIL, lambda text: _MAIL.fullmatch(text) is not None),
    (IBAN, _is_iban),
    (CARD, _is_card),
    (IP, _is_ip),
    (PHONE, lambda text: _PHONE.fullmatch(text) is not None),
    (NAME, _is_full_name),
    (FIRST_NAME, _is_first_name),
    (LAST_NAME, _is_last_name),
)
