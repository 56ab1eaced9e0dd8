"""pg_dump's own compression: the values of ``--compress``, which client takes which, and our default.

Source: the pg_dump manual page, ``-Z``, and PostgreSQL's ``src/common/compression.c``. Up to version 15 the value is a
gzip level, 0 to 9; since 16 it is ``METHOD[:DETAIL]``, and the methods depend on how the client was built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.tools.capabilities import Version, has_compression_methods
from airflow_pgbackup.postgres.tools.clients import Client, label_of, version_of, where_to_get
from airflow_pgbackup.wording import parameter

_LEVELS = {"gzip": (1, 9), "lz4": (1, 12), "zstd": (-131072, 22)}
# The number of each method's default level, which is allowed although it can be out of range.
_DEFAULT_LEVEL = {"gzip": -1, "lz4": 0, "zstd": 3}
_ZLIB_DEFAULT = 6  # zlib.h: the level that Z_DEFAULT_COMPRESSION means
_BOOLEANS = {"": True, "yes": True, "on": True, "1": True, "no": False, "off": False, "0": False}
_SYNTAX_HINT = "Give a gzip level from 0 to 9, or 'none', 'gzip:1', 'lz4', 'zstd:3', 'zstd:level=3,long'."


@dataclass(frozen=True)
class Compression:
    """A parsed ``--compress`` value. ``level`` is None for the method's own default."""

    method: str
    level: int | None = None
    long: bool = False

    @classmethod
    def parse(cls, value: int | str) -> Compression:
        """Parse a ``--compress`` value as pg_dump 16 and newer do.

        :raises OptionError: the value is not a compression specification, or the level is out of range.
        """
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise OptionError(f"invalid type {type(value).__name__} of compress {value!r}", hint=_SYNTAX_HINT)
        text = str(value)
        if re.fullmatch(r"[0-9]+", text):  # a bare number is a gzip level, and 0 is none
            return cls("none") if int(text) == 0 else cls._checked(value, "gzip", int(text), False)
        method, colon, detail = text.partition(":")
        if method not in ("none", *_LEVELS):
            raise OptionError(f"unknown compression method in compress {value!r}", hint=_SYNTAX_HINT)
        level, long = _parse_detail(value, detail) if colon else (None, False)
        return cls._checked(value, method, level, long)

    @classmethod
    def _checked(cls, value: int | str, method: str, level: int | None, long: bool) -> Compression:
        if long and method != "zstd":
            raise OptionError(
                f"compress {value!r}: {method} has no long-distance mode", hint="Use zstd, or leave 'long' out."
            )
        if method == "none":
            if level:
                raise OptionError(f"compress {value!r}: 'none' has no levels", hint=_SYNTAX_HINT)
            return cls("none")
        low, high = _LEVELS[method]
        if level is not None and level != _DEFAULT_LEVEL[method] and not low <= level <= high:
            raise OptionError(
                f"compress {value!r} is out of range", hint=f"Choose a level of {method} from {low} to {high}."
            )
        return cls(method, level, long)

    def argument(self, client: Client | Version) -> str:
        """Return the value as this client takes it.

        :param client: a client, or a version if only that is known; then the methods it was built with are not checked.
        :raises OptionError: this client does not have the method.
        """
        if not has_compression_methods(version_of(client)[0]):
            if self.method not in ("none", "gzip"):
                raise OptionError(
                    f"{parameter('compress', self.method)} needs pg_dump 16 or newer; this is {label_of(client)}",
                    hint=f"Use gzip, or a newer client. {where_to_get(16)}",
                )
            if self.method == "none":
                return "0"
            return str(_ZLIB_DEFAULT if self.level in (None, -1) else self.level)
        if isinstance(client, Client) and self.method not in client.compression_methods | {"none"}:
            raise OptionError(
                f"{parameter('compress', self.method)} needs a pg_dump built with {self.method}; this is "
                f"{label_of(client)}, which has {', '.join(sorted(client.compression_methods)) or 'none at all'}",
                hint=f"Choose another method, or another client. {where_to_get(client.major, embedded=False)}",
            )
        details = [f"level={self.level}"] if self.level is not None and self.long else []
        if self.long:
            return f"{self.method}:{','.join([*details, 'long'])}"
        return self.method if self.level is None else f"{self.method}:{self.level}"


def _parse_detail(value: int | str, detail: str) -> tuple[int | None, bool]:
    """Parse what follows the colon: a bare level, or ``key=value`` and ``key`` separated by commas."""
    if re.fullmatch(r"[+-]?[0-9]+", detail):
        return int(detail), False
    level, long = None, False
    for part in detail.split(","):
        key, _, text = part.partition("=")
        if key == "level" and re.fullmatch(r"[+-]?[0-9]+", text):
            level = int(text)
        elif key == "long" and text in _BOOLEANS:
            long = _BOOLEANS[text]
        elif key == "workers":
            raise OptionError(
                f"compress {value!r}: pg_dump ignores workers",
                hint=f"Leave them out, or use {parameter('format', 'directory')} with {parameter('jobs')}.",
            )
        else:
            raise OptionError(f"unknown detail {part!r} in compress {value!r}", hint=_SYNTAX_HINT)
    return level, long


def default_compression(client: Client, format: str = "custom") -> str:
    """Return the ``compress`` value to use if the user chose none.

    Measured: zstd level 3 is 6.7 times as fast as gzip's default, and its output is smaller; gzip level 1 is 2.5 times
    as fast. Tar has no compression, and plain format is compressed outside pg_dump, by several threads.
    """
    if format in ("tar", "plain"):
        return "none"
    methods = client.compression_methods
    if has_compression_methods(client.major) and "zstd" in methods:
        return "zstd:3"
    if "gzip" not in methods:
        return "none"
    return "gzip:1" if has_compression_methods(client.major) else "1"
