"""Escaping text from outside."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.text import encodable, printable, printable_json
from tests.sampling import sample

BIG = 3 * (2**63 - 1)
ANY = st.text(st.characters(exclude_categories=[]))
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x7f\x9b31m", r"\x7f\x9b31m"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("\u061c\u200e\u200f\u200b\ufeff\u00ad", r"\u061c\u200e\u200f\u200b\ufeff\xad"),
        ("\u2028\u2029\ue000\udc80", r"\u2028\u2029\ue000\udc80"),
        ("\U000e0041", r"\U000e0041"),
        ("\ufdd0", r"\ufdd0"),
    ],
)
def test_hidden_characters_become_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["", "plain [b]text[/]", "Größe", "顧客\u3000表", "🐘 ❤️", "«\u00a0app\u00a0»", r"C:\x1b"]
)
def test_visible_characters_stay(text: str) -> None:
    assert printable(text) == text


def test_every_code_point() -> None:
    assigned = [*range(0x40000), *range(0xE0000, 0xE1000)]  # beyond are planes of which all is private or unassigned
    for number in [*assigned, *sample(range(0x40000, sys.maxunicode + 1), 10)]:
        c = chr(number)
        hidden = unicodedata.category(c) in HIDDEN
        assert (printable(c) != c) == hidden, hex(number)
        assert not hidden or printable(c).isascii()


@given(ANY)
def test_escaping_twice_is_escaping_once(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@given(st.recursive(ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=5))
def test_json_keeps_its_value(value: object) -> None:
    shown = printable_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(shown) == json.loads(json.dumps(value))
    assert all(line == printable(line) for line in shown.split("\n"))


def test_a_plain_line_is_not_copied() -> None:
    line = "x" * 1000
    assert printable(line) is line


def test_what_airflow_stores_fits_into_its_messages() -> None:
    value = {"rows": BIG, "low": -(2**63) - 1, "fits": [2**63 - 1, -(2**63), True, 1.5, None], "name": "a\udc80"}
    assert encodable(value) == {
        "rows": "27670116110564327421",
        "low": "-9223372036854775809",
        "fits": [2**63 - 1, -(2**63), True, 1.5, None],
        "name": "a\\udc80",
    }
