"""The names and places of the files of backup sets.

.. code-block:: text

    <server>/@sets/20261122T020000Z-3f9ac1/                       a set
        set-20261122T031500.123456Z-complete.json                 the newest of these files counts
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from airflow_pgbackup.repository.layout import Series, decode_segment, encode_segment, parse_backup_id, parse_time, utc

SETS_FOLDER = "@sets"
"""The folder of a server's backup sets, beside its series; an encoded database name never begins with ``@``."""
SET_STATUSES = ("complete", "partial")

_SET = re.compile(rf"set-([0-9]{{8}}T[0-9]{{6}}\.[0-9]{{6}}Z)-({'|'.join(SET_STATUSES)})\.json")


@dataclass(frozen=True, order=True)
class SetName:
    """The name of a file of a backup set, which shows its status, so that a listing suffices.

    :param at: when the set was written, UTC.
    :param status: one of :data:`SET_STATUSES`.
    """

    at: datetime
    status: str

    @property
    def file(self) -> str:
        return f"set-{utc(self.at):%Y%m%dT%H%M%S.%fZ}-{self.status}.json"

    @classmethod
    def parse(cls, name: str) -> SetName | None:
        match = _SET.fullmatch(name)
        at = parse_time(match[1]) if match else None
        return cls(at, match[2]) if match and at else None


def sets_folder(server: str) -> str:
    """Return the folder of all backup sets of a server."""
    return f"{encode_segment(server)}/{SETS_FOLDER}"


def set_folder(server: str, set_id: str) -> str:
    return f"{sets_folder(server)}/{set_id}"


def split_set_key(key: str) -> tuple[str, str, str] | None:
    """Return server, set id and path in the set's folder of a key; None for a key outside of such a folder."""
    segments = key.split("/", 3)
    if len(segments) < 4 or segments[1] != SETS_FOLDER or not segments[3] or parse_backup_id(segments[2]) is None:
        return None
    try:
        return decode_segment(segments[0]), segments[2], segments[3]
    except ValueError:
        return None


def holds_backups_or_sets(key: str) -> bool:
    """Return whether a folder is, by its name, that of a server, of a series, or of all backup sets of a server."""
    server, _, rest = key.partition("/")
    try:
        decode_segment(server)
        if rest not in ("", SETS_FOLDER):
            Series.parse(key)
    except ValueError:
        return False
    return True
