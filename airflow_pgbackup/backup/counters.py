"""Measure progress without a stream: by the lines of pg_restore, or the size of a directory."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.postgres.archive.toc import SETTING_KINDS, TocEntry
from airflow_pgbackup.postgres.tools.stderr import INTERLEAVED


def restore_totals(entries: Collection[TocEntry]) -> dict[str, int]:
    """Return the totals of a step that restores these entries, as :class:`RestoreCounter` counts them."""
    return {
        "items_total": sum(entry.kind not in SETTING_KINDS for entry in entries),
        "tables_total": sum(entry.kind == "TABLE DATA" for entry in entries),
    }


class RestoreCounter:
    """Counts what pg_restore begins, by its lines with ``--verbose``: tables with data, and entries of the table of
    contents.

    In ``restore_toc_entry`` of pg_backup_archiver.c, an entry with a definition is "creating", one with rows is
    "processing data for table", and one such as a sequence's value is "executing".
    """

    _TABLE = "processing data for table"
    _ITEM = re.compile(
        rf"{INTERLEAVED} ?({_TABLE}|creating|processing (?!(?:missed )?item |data for table)|executing(?! SELECT))"
    )

    def __init__(self, step: Step) -> None:
        self._step = step

    def __call__(self, line: str) -> None:
        if begun := self._ITEM.match(line):
            self._step.begin_item()
            if begun[1] == self._TABLE:
                self._step.begin_table()


class DirectorySize:
    """Measures the files of a flat directory that another program fills, at most once a second.

    :param path: need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        self._measured = float("-inf")

    def __call__(self) -> int:
        """Return the bytes so far."""
        now = time.monotonic()
        if now - self._measured >= 1:
            self._measured = now
            # It may not exist yet, or have been moved into the repository.
            with suppress(OSError), os.scandir(self._path) as entries:
                self._size = sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
        return self._size
