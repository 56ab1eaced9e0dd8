"""Read a file of masking rules, and report all its problems at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow_pgbackup.backup.masking.pattern import ColumnPattern
from airflow_pgbackup.backup.masking.rules import FAKES, UNITS, MaskingRules, Rule
from airflow_pgbackup.errors import MaskingError
from airflow_pgbackup.yaml_mapping.problem import Origin, Problem, did_you_mean
from airflow_pgbackup.yaml_mapping.problem import Path as Keys
from airflow_pgbackup.yaml_mapping.yaml_file import parse_yaml, read_yaml

_METHODS = ("keep", "null", "fixed", "hash", "fake", "shift", "generalize", "sql")
_TOP = ("columns", "locale", "large_objects", "tables_without_rules", "leak_check")
_FORMS = "write keep, null, hash, or one of fixed, hash, fake, shift, generalize, sql with its value"
_MOST_DAYS = 36525
_LONGEST_TEXT = 10_000
_MOST_SAMPLES = 10_000


class _Invalid(Exception):
    """What is wrong with a value, and where below it."""

    def __init__(self, text: str, *below: str | int) -> None:
        super().__init__(text)
        self.text = text
        self.below = below


def load_rules(source: Path | str | bytes) -> MaskingRules:
    """Return the rules of a file; the file's format is explained in ``docs/guides/masking.md``.

    :param source: a file as :class:`~pathlib.Path`, or its text.
    :raises MaskingError: the rules are invalid; the error lists every problem with its line.
    """
    if isinstance(source, Path):
        content, origin = read_yaml(source, MaskingError)
    else:
        data = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
        content, origin = parse_yaml(data, Origin("rules", raises=MaskingError))
    return _Reader(origin).read(content)


class _Reader:
    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._problems: list[Problem] = []

    def read(self, content: Any) -> MaskingRules:
        if not isinstance(content, Mapping):
            raise self._origin.error([Problem((), f"expected a mapping with the key columns, found {_found(content)}")])
        for key in content:
            if key not in _TOP:
                self._problem((key,), f"unknown key{did_you_mean(str(key), _TOP)}")
        columns = self._columns(content.get("columns"))
        check = self._mapping(("leak_check",), content.get("leak_check", {}), ("samples", "may_contain"))
        rules = MaskingRules(
            columns=columns,
            locales=self._try(("locale",), _locales, content.get("locale", "en_US")) or ("en_US",),
            keep_large_objects=self._word(content, "large_objects", ("drop", "keep")) == "keep",
            require_tables=self._word(content, "tables_without_rules", ("keep", "fail")) == "fail",
            samples=self._try(("leak_check", "samples"), _samples, check.get("samples", 100)) or 0,
            may_contain=self._patterns(("leak_check", "may_contain"), check.get("may_contain", [])),
            origin=self._origin,
        )
        if self._problems:
            raise self._origin.error(self._problems)
        return rules

    def _problem(self, path: Keys, text: str) -> None:
        self._problems.append(Problem(path, text))

    def _try(self, path: Keys, parse: Callable[[Any], Any], value: Any) -> Any:
        try:
            return parse(value)
        except _Invalid as error:
            self._problem((*path, *error.below), error.text)
            return None

    def _mapping(self, path: Keys, value: Any, known: tuple[str, ...]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self._problem(path, f"expected a mapping, found {_found(value)}")
            return {}
        for key in value:
            if key not in known:
                self._problem((*path, key), f"unknown key{did_you_mean(str(key), known)}")
        return value

    def _word(self, content: Mapping[str, Any], key: str, words: tuple[str, str]) -> str:
        value = content.get(key, words[0])
        if not isinstance(value, str) or value not in words:
            self._problem((key,), f"expected {' or '.join(words)}, found {_found(value)}")
            return words[0]
        return value

    def _columns(self, value: Any) -> tuple[tuple[ColumnPattern, Rule], ...]:
        if not isinstance(value, Mapping) or not value:
            self._problem(("columns",), "expected a mapping of columns to rules" if value else "no rules")
            return ()
        found = []
        for key, item in value.items():
            pattern = self._try(("columns", key), _pattern, key)
            rule = self._try(("columns", key), _rule, item)
            if pattern and rule:
                found.append((pattern, rule))
        return tuple(found)

    def _patterns(self, path: Keys, value: Any) -> tuple[ColumnPattern, ...]:
        if not isinstance(value, list):
            self._problem(path, f"expected a list, found {_found(value)}")
            return ()
        found = [self._try((*path, number), _pattern, each) for number, each in enumerate(value)]
        return tuple(each for each in found if each)


def _found(value: Any) -> str:
    """Return what a value is; never a value that could be long, or personal."""
    if value is None:
        return "nothing"
    for kind, text in (
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
    ):
        if isinstance(value, kind):
            return text
    return "a mapping" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _pattern(text: Any) -> ColumnPattern:
    if not isinstance(text, str):
        raise _Invalid(f"expected schema.table.column, found {_found(text)}")
    try:
        return ColumnPattern.parse(text)
    except ValueError as error:
        raise _Invalid(str(error)) from None


def _rule(value: Any) -> Rule:
    if value is None:
        return Rule("null")
    if isinstance(value, str):
        if value in ("keep", "null", "hash"):
            return Rule(value, length=32 if value == "hash" else 0)  # type: ignore[arg-type]
        if value in FAKES:
            raise _Invalid(f"not a rule; write {{fake: {value}}}")
        raise _Invalid(f"not a rule{did_you_mean(value, _METHODS)}")
    if not isinstance(value, Mapping) or len(value) != 1:
        raise _Invalid(f"expected one rule, found {_found(value)}; {_FORMS}")
    ((method, about),) = value.items()
    parse = _PARSERS.get(method)
    if parse is None:
        if method in ("keep", "null"):
            raise _Invalid(f"the rule {method} has no value; write {method} alone")
        raise _Invalid(f"unknown rule{did_you_mean(str(method), _METHODS)}", method)
    try:
        return parse(about)
    except _Invalid as error:
        raise _Invalid(error.text, method, *error.below) from None


def _fixed(value: Any) -> Rule:
    if isinstance(value, bool):
        return Rule("fixed", text="true" if value else "false")
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return Rule("fixed", text=repr(value)) if abs(value) < 1e300 else _reject("a number that is too large")
    if hasattr(value, "isoformat"):  # YAML's dates and times
        return Rule("fixed", text=str(value.isoformat()))
    return Rule("fixed", text=_text(value))


def _reject(text: str) -> Rule:
    raise _Invalid(text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Invalid(f"expected text, found {_found(value)}")
    if "\0" in value or len(value) > _LONGEST_TEXT:
        raise _Invalid(f"longer than {_LONGEST_TEXT} characters, or with a NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Invalid("not Unicode text") from None
    return value


def _number(value: Any, least: int, most: int, *below: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _Invalid(f"expected a whole number from {least} to {most}", *below)
    return value


def _options(value: Any, *known: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Invalid(f"expected a mapping with {', '.join(known)}, found {_found(value)}")
    for key in value:
        if key not in known:
            raise _Invalid(f"unknown key{did_you_mean(str(key), known)}", key)
    return value


def _hash(value: Any) -> Rule:
    options = _options(value, "length")
    return Rule("hash", length=_number(options.get("length", 32), 8, 48, "length"))


def _fake(value: Any) -> Rule:
    if not isinstance(value, str) or value not in FAKES:
        near = did_you_mean(value, FAKES) if isinstance(value, str) else f"; known: {', '.join(FAKES)}"
        raise _Invalid(f"unknown fake{near}")
    return Rule("fake", fake=value)


def _shift(value: Any) -> Rule:
    if not isinstance(value, Mapping):
        return Rule("shift", days=_number(value, 1, _MOST_DAYS))
    options = _options(value, "days", "by")
    by = options.get("by", "")
    if not isinstance(by, str) or len(by) > 255 or "\0" in by:
        raise _Invalid(f"expected a column of the same table, found {_found(by)}", "by")
    return Rule("shift", days=_number(options.get("days"), 1, _MOST_DAYS, "days"), by=by)


def _generalize(value: Any) -> Rule:
    if isinstance(value, Mapping):
        return Rule("generalize", length=_number(_options(value, "prefix").get("prefix"), 0, 1000, "prefix"))
    if isinstance(value, str):
        if value not in UNITS:
            raise _Invalid(f"unknown unit{did_you_mean(value, UNITS)}")
        return Rule("generalize", unit=value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Invalid("expected a unit of time, the width of a bucket, or {prefix: N}")
    if not math.isfinite(value) or not 1e-9 <= value <= 1e15:
        raise _Invalid("the width of a bucket must be from 1e-9 to 1e15")
    return Rule("generalize", bucket=f"{value:.9f}".rstrip("0").rstrip("."))


def _sql(value: Any) -> Rule:
    text = _text(value)
    if not text.strip():
        raise _Invalid("empty")
    return Rule("sql", text=text)


_PARSERS: dict[Any, Callable[[Any], Rule]] = {
    "fixed": _fixed,
    "hash": _hash,
    "fake": _fake,
    "shift": _shift,
    "generalize": _generalize,
    "sql": _sql,
}


def _samples(value: Any) -> int:
    return _number(value, 0, _MOST_SAMPLES)


def _locales(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not 1 <= len(names) <= 10:
        raise _Invalid("expected a locale like en_US, or a list of them")
    from faker.config import AVAILABLE_LOCALES  # takes its time to load

    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z]{2,3}(_[A-Za-z]{2,4})?", name):
            raise _Invalid(f"expected a locale like en_US, found {_found(name)}")
        if name not in AVAILABLE_LOCALES:
            raise _Invalid(f"Faker has no locale {name}{did_you_mean(name, sorted(AVAILABLE_LOCALES))}")
    return tuple(names)
