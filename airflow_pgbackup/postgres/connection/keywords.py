"""libpq's connection keywords, as the libpq of this process lists them."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping

from airflow_pgbackup.errors import ConfigurationError

# Names that other drivers use.
_OTHER_NAMES = {
    "database": "dbname",
    "db": "dbname",
    "schema": "dbname",
    "login": "user",
    "username": "user",
    "hostname": "host",
    "ssl": "sslmode",
    "ssl_ca": "sslrootcert",
    "ssl_cert": "sslcert",
    "ssl_key": "sslkey",
    "timeout": "connect_timeout",
    "encoding": "client_encoding",
}

REFUSED = {
    "replication": "a dump needs an ordinary session",
}


@functools.cache
def variables() -> dict[str, str]:
    """Return each keyword of libpq with its environment variable, '' for a keyword without one."""
    from psycopg import pq

    return {option.keyword.decode(): (option.envvar or b"").decode() for option in pq.Conninfo.get_defaults()}


@functools.cache
def compiled_defaults() -> dict[str, str]:
    """Return the defaults that are compiled into this libpq, by keyword."""
    from psycopg import pq

    return {
        option.keyword.decode(): option.compiled.decode() for option in pq.Conninfo.get_defaults() if option.compiled
    }


@functools.cache
def secret_keywords() -> frozenset[str]:
    """Return the keywords whose values must not be shown."""
    from psycopg import pq

    hidden = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*"}
    return frozenset(hidden | {"scram_client_key", "scram_server_key"})


def clean(keywords: Mapping[str, object]) -> dict[str, str]:
    """Return the keywords with strings as values, without those that are None or ''.

    :raises ConfigurationError: a keyword is unknown, or a value is neither a string nor a number, or libpq cannot
        take it.
    """
    result = {}
    for keyword, value in keywords.items():
        if value is None or value == "":
            continue
        if keyword not in variables():
            raise ConfigurationError(f"unknown connection option {keyword!r}", hint=_near(keyword))
        if reason := REFUSED.get(keyword):
            raise ConfigurationError(f"connection option {keyword!r} cannot be used: {reason}", hint="Leave it out.")
        result[keyword] = check_text(keyword, _text(keyword, value))
    return result


def check_text(keyword: str, value: str) -> str:
    """Return `value` if libpq can take it.

    :raises ConfigurationError: it has a NUL character or is not valid UTF-8. The message does not quote it.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"connection option {keyword!r} is not valid UTF-8") from None
    if "\0" in value:
        raise ConfigurationError(f"connection option {keyword!r} has a NUL character")
    return value


def _text(keyword: str, value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"  # JSON has true where libpq has 1
    if isinstance(value, (str, int)):
        return str(value)
    raise ConfigurationError(
        f"connection option {keyword!r} is a {type(value).__name__}",
        hint="Give a string or an integer; several hosts or ports are one string, separated by commas.",
    )


def _near(keyword: str) -> str:
    near = _OTHER_NAMES.get(keyword.lower()) or next(
        iter(difflib.get_close_matches(keyword.lower().replace("_", ""), variables(), 1, 0.7)), None
    )
    return (
        f"Did you mean {near!r}?"
        if near
        else "See https://www.postgresql.org/docs/current/libpq-connect.html for libpq's options."
    )
