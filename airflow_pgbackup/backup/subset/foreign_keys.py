"""The foreign keys of an archive, whose constraints are restored only after the rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_pgbackup.backup.subset.selection import Table
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, unquoted

# As pg_dump and pg_get_constraintdef() write it: dumpConstraint in pg_dump.c, ruleutils.c.
_NAMES = rf"(?:{IDENTIFIER})(?:, {IDENTIFIER})*"
_DEFINITION = re.compile(
    rf"ALTER (?:FOREIGN )?TABLE (?:ONLY )?({IDENTIFIER})\.({IDENTIFIER})\s+ADD CONSTRAINT ({IDENTIFIER}) "
    rf"FOREIGN KEY \(({_NAMES})\) REFERENCES ({IDENTIFIER})\.({IDENTIFIER})\(({_NAMES})\)([^;]*);\s*\Z"
)
_NAME = re.compile(IDENTIFIER)


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key.

    :param number: of its entry.
    :param columns: of the referencing table; `keys` of the referenced one.
    :param checked: the server checks the rows that exist when the constraint is created.
    """

    number: int
    name: str
    table: Table
    columns: tuple[str, ...]
    referenced: Table
    keys: tuple[str, ...]
    checked: bool

    @classmethod
    def parse(cls, entry: TocEntry) -> ForeignKey | None:
        """Return the foreign key that an entry creates; None if its definition has an unknown form, as with PERIOD."""
        match = _DEFINITION.match(entry.definition)
        if not match:
            return None
        names = [unquoted(match[number]) for number in (1, 2, 3, 5, 6)]
        columns, keys = (tuple(unquoted(name) for name in _NAME.findall(match[number])) for number in (4, 7))
        if len(columns) != len(keys):
            return None
        return cls(
            entry.dump_id,
            names[2],
            Table(names[0], names[1]),
            columns,
            Table(names[3], names[4]),
            keys,
            checked=not match[8].endswith((" NOT VALID", " NOT ENFORCED")),
        )

    def __str__(self) -> str:
        return f"{self.name} of {self.table}"
