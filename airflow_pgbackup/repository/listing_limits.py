"""Limits on one listing: it is kept in memory to be sorted, and a hostile store could send names endlessly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.cancellation import CancelFlag

MOST_KEYS = 1_000_000
"""Keys in one listing: years of nightly backups of hundreds of databases."""
MOST_NAMES = 256 * 1024**2
"""Characters of all names in one listing together, for a store that sends long ones."""
FEWER = "Use a prefix that holds only backups, prune, or name one server or database."

_T = TypeVar("_T")


def limited(found: Iterable[_T], length: Callable[[_T], int], *, uri: str, cancel: CancelFlag | None) -> Iterator[_T]:
    """Yield what was found, within the limits.

    :param length: the characters of the names in one item.
    :param uri: the repository, for the error.
    :raises RepositoryError: there are more than :data:`MOST_KEYS`, or their names are longer than :data:`MOST_NAMES`.
    """
    names = 0
    for number, each in enumerate(found, 1):
        if cancel is not None:
            cancel.check()
        names += length(each)
        if number > MOST_KEYS or names > MOST_NAMES:
            most = f"{MOST_KEYS:,} keys" if number > MOST_KEYS else f"{MOST_NAMES:,} characters of names"
            raise RepositoryError(f"cannot list {uri}: it holds more than {most}", hint=FEWER)
        yield each
