"""Recognize the backups of a repository among the dumps to adopt. ``--move`` would take their artifacts away."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import REPOSITORY_FILE, split_key

IS_REPOSITORY = "a repository of backups; pgbackup upload copies from one"
IS_BACKUP = "in a repository of backups; pgbackup upload copies from one"


class Enclosing:
    """The repositories above a source.

    :param places: of the source, below the root of each of them.
    """

    def __init__(self, places: Sequence[str] = ()) -> None:
        self._places = tuple(places)

    @classmethod
    def of_directory(cls, directory: Path) -> Enclosing:
        real = Path(os.path.realpath(directory))
        above = [root for root in real.parents if os.path.lexists(root / REPOSITORY_FILE)]
        return cls([real.relative_to(root).as_posix() for root in above])

    @classmethod
    def of_prefix(cls, parts: Sequence[str], open_above: Callable[[Sequence[str]], Repository]) -> Enclosing:
        """Return the repositories that may enclose a prefix of a bucket.

        :param parts: segments of a bucket's prefix.
        :param open_above: opens the store at the first of them.
        """
        places = []
        for count in range(len(parts)):
            try:
                known = open_above(parts[:count]).stat(REPOSITORY_FILE) is not None
            except RepositoryError:  # rights for the prefix only; then the shape of the names decides
                known = True
            if known:
                places.append("/".join(parts[count:]))
        return cls(places)

    def has_backup_at(self, name: str) -> bool:
        """Return whether a name below the source is the folder of a backup, or in one."""
        return any(split_key("/".join(filter(None, (place, name, "_")))) for place in self._places)
