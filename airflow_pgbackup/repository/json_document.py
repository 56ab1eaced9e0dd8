"""The JSON files of a repository: written with a version, validated when read.

Each has a JSON Schema (``schemas/``) and a ``format_version``. A newer minor version may add fields, which are read,
kept (those on the top level) and written back; a newer major version is refused. A file may be damaged or forged, so
its size, syntax, numbers, schema, depth and the consistency of its fields are checked before anything uses it.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar, TypeVar

from airflow_pgbackup.errors import ManifestError

FORMAT_VERSION = "1.0"
MAX_BYTES = 32 * 1024**2
"""The largest file that is read: an encrypted directory dump of 100,000 members has a manifest of about 28 MiB."""
MOST_VALUES = 2_000_000
"""The limit for the values of a file, which take far more memory than its bytes; what this package writes has fewer."""
MAX_DEPTH = 32
"""Levels of nesting in fields without a schema (``options``, ``origin``, unknown ones); this package writes 2."""

D = TypeVar("D", bound="Document")
Content = Mapping[str, Any]
"""A JSON object that has passed its schema."""


@dataclass(frozen=True, kw_only=True)
class Document(ABC):
    """Base of the four kinds: manifest, verification, backup set, repository."""

    format_version: str = FORMAT_VERSION
    unknown: Mapping[str, object] = field(default_factory=dict)
    """Top-level fields that a newer minor version has added."""

    schema: ClassVar[str]

    def to_json(self) -> bytes:
        """Return the file's contents, UTF-8."""
        content = _encode(self)
        content.update(content.pop("unknown"))
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A lone surrogate in a foreign manifest cannot be encoded: it becomes the JSON escape \udXXX.
        return text.encode("utf-8", "backslashreplace")

    @classmethod
    def from_json(cls: type[D], data: bytes) -> D:
        """Return the checked document.

        :raises ManifestError: too large, not JSON, of another major version, in violation of its schema, or
            contradicting itself.
        """
        if why := excess(data):
            raise ManifestError(f"a {cls.schema} of {why}")
        try:
            content = json.loads(
                data.decode("utf-8"), parse_constant=_no_constant, parse_int=_integer, parse_float=_real
            )
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"a {cls.schema} that is not JSON: {error}") from None
        _check_version(cls.schema, content)
        _validate(cls.schema, content)
        known = {f.name for f in fields(cls)}
        unknown = {name: value for name, value in content.items() if name not in known}
        if not all(_is_shallow(content.get(name), MAX_DEPTH) for name in ("options", "origin", *unknown)):
            raise ManifestError(f"a {cls.schema} nested more than {MAX_DEPTH} levels deep")
        try:
            document = cls._decode(content, unknown)
        except (ValueError, OverflowError) as error:  # a date like February 31
            raise ManifestError(f"a {cls.schema} with an invalid value: {error}") from None
        if contradiction := document._contradiction():
            raise ManifestError(f"a {cls.schema} that contradicts itself: {contradiction}")
        return document

    @classmethod
    @abstractmethod
    def _decode(cls: type[D], content: Content, unknown: Content) -> D:
        """Return the document of JSON that has passed its schema.

        :param unknown: the top-level fields that this class does not have.
        :raises ValueError, OverflowError: a date does not exist, or a number is out of range.
        """

    def _contradiction(self) -> str | None:
        """Return a contradiction between fields that a schema cannot express; None if there is none."""
        return None


def excess(data: bytes) -> str | None:
    """Return what of a document is too much for it to be read, ``40000000 bytes, more than …``; None if nothing is."""
    if len(data) > MAX_BYTES:
        return f"{len(data)} bytes, more than {MAX_BYTES}"
    values = sum(map(data.count, (b"[", b"{", b",")))
    return f"{values:,} values, more than {MOST_VALUES:,}" if values > MOST_VALUES else None


def moment(text: str) -> datetime:
    """Return a timestamp in the format of these files, ``2026-11-22T02:00:00Z``, as aware UTC."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)


def integer(value: float | None) -> int | None:
    """Return a JSON integer as an int; None for null. JSON Schema takes 1.0 for an integer too."""
    return None if value is None else int(value)


def _check_version(schema: str, content: object) -> None:
    version = content.get("format_version") if isinstance(content, dict) else None
    major, _, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise ManifestError(f"a {schema} without a valid format version")
    if major != FORMAT_VERSION.partition(".")[0]:
        raise ManifestError(
            f"a {schema} of format version {version}, this release reads {FORMAT_VERSION.partition('.')[0]}.x",
            hint="Upgrade airflow-pgbackup, or restore the artifact with PostgreSQL's own tools.",
        )


def _validate(schema: str, content: object) -> None:
    error = next(_validator(schema).iter_errors(content), None)
    if error is not None:
        where = "/".join(str(step) for step in error.absolute_path) or "its top level"
        raise ManifestError(f"the {schema} violates its schema at {where}: {error.message[:200]}")


@cache
def _validator(schema: str) -> Any:
    # Imported when first needed: its import takes as long as the rest of this package.
    from jsonschema import Draft202012Validator, validators

    path = files("airflow_pgbackup.repository") / "schemas" / f"{schema}.json"
    text = path.read_text(encoding="utf-8")
    made = validators.create(Draft202012Validator.META_SCHEMA, {**Draft202012Validator.VALIDATORS, "pattern": _pattern})
    return made(json.loads(text))


def _pattern(_: object, pattern: str, value: object, __: object) -> Iterator[Any]:
    """Match a pattern as JSON Schema defines it, in the dialect of ECMA-262.

    There ``$`` matches only at the end, and ``\\d`` only 0 to 9. jsonschema uses Python's ``re``, in which ``$`` also
    matches before a final line feed, and ``\\d`` matches digits of all scripts.
    """
    from jsonschema import ValidationError

    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value, re.ASCII):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    # JSON allows a thousand digits, but every number in these files fits into 64 bits.
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"the number {digits[:20]}… does not fit into 64 bits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is not finite")
    return value


def _is_shallow(value: object, depth: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in inside)


def _encode(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    if is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: _encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value
