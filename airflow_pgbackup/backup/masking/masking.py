"""Mask rows while they are loaded: triggers on the tables of a database that has definitions and no data yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.backup.masking.key import MaskingKey
from airflow_pgbackup.backup.masking.rules import MaskingRules

if TYPE_CHECKING:
    import psycopg

SCHEMA = "pgbackup_masking"
"""Ours, in the copy, while it is loaded."""


class Masking:
    """The rules at work in one database.

    :param rules: see :func:`.load_rules`.
    :param definitions: SQL of the archive's ``CONSTRAINT``, ``INDEX`` and ``FK CONSTRAINT`` entries, which are restored
        only after the data: they say which columns are unique and which refer to others.
    """

    def __init__(self, rules: MaskingRules, key: MaskingKey, *, definitions: Sequence[str] = ()) -> None:
        self._rules = rules
        self._key = key
        self._definitions = definitions

    def check_columns(self, connection: psycopg.Connection[Any]) -> None:
        """Check that the rules fit the database. Nothing is changed.

        :param connection: to the database with its definitions, with or without data and constraints.
        :raises MaskingError: columns without a rule in tables under rules, rules that fit no column, and rules that
            cannot hold for their column; all at once.
        """
        raise NotImplementedError

    def install(self, connection: psycopg.Connection[Any]) -> None:
        """Create the triggers, which mask every row that is inserted or copied from then on, in one transaction.

        :param connection: in autocommit mode, of the role that will load the data.
        :raises MaskingError: as for :meth:`check_columns`, or an expression that the server refuses.
        """
        raise NotImplementedError

    def remove(self, connection: psycopg.Connection[Any]) -> None:
        """Drop the triggers with all that belongs to them. Without them it does nothing."""
        raise NotImplementedError
