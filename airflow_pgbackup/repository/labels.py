"""Labels: names given to a backup when it is made, such as ``pre-migration``. The manifest contains them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from airflow_pgbackup.errors import ConfigurationError

MOST_LABELS = 20
"""The limit for one backup."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,63}", re.ASCII)
_FORM = "letters, digits, '.', '_' and '-', beginning with a letter or a digit, at most 63 characters"


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of a new backup, each once.

    :raises ConfigurationError: a name that cannot be a label, too many, or one name where a list is expected.
    """
    found = _listed(labels)
    for label in found:
        if not (isinstance(label, str) and _LABEL.fullmatch(label)):
            raise ConfigurationError(f"invalid label {str(label)[:80]!r}", hint=f"A label has {_FORM}.")
    if len(found) > MOST_LABELS:
        raise ConfigurationError(f"{len(found)} labels, more than {MOST_LABELS}", hint="Give the backup fewer labels.")
    return found


def check_label_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return labels to look for; ``*`` and ``?`` stand for any characters and for one.

    :raises ConfigurationError: what no label can match, or one name where a list is expected.
    """
    found = _listed(patterns)
    for pattern in found:
        if not (isinstance(pattern, str) and _PATTERN.fullmatch(pattern)):
            raise ConfigurationError(
                f"invalid label {str(pattern)[:80]!r}", hint=f"A label has {_FORM}; '*' and '?' are wildcards."
            )
    return found


def matching_labels(labels: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the labels that match one of the patterns."""
    wanted = list(patterns)
    return [label for label in labels if any(fnmatchcase(label, pattern) for pattern in wanted)]


def _listed(names: object) -> tuple[Any, ...]:
    if isinstance(names, str | Mapping) or not isinstance(names, Iterable):
        raise ConfigurationError(f"invalid labels {names!r}", hint="Pass a list of names.")
    found = tuple(names)
    return tuple(dict.fromkeys(found)) if all(isinstance(one, str) for one in found) else found
