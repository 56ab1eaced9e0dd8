"""mask: write a first file of masking rules for a database, and check a file against a database.

Both only read. Masking itself happens while a backup is restored, see :mod:`airflow_pgbackup.backup.refresh`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.masking.columns import Table, read_tables
from airflow_pgbackup.backup.masking.constraints import Constraints, Key
from airflow_pgbackup.backup.masking.expressions import expression
from airflow_pgbackup.backup.masking.key import MaskingKey
from airflow_pgbackup.backup.masking.masked_column import Masked, Misfit, masks_agree
from airflow_pgbackup.backup.masking.masking import Masking
from airflow_pgbackup.backup.masking.personal import Suspect, find_personal
from airflow_pgbackup.backup.masking.rules import MaskingRules, Rule
from airflow_pgbackup.errors import MaskingError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.sql.anybytes import is_utf8
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    import psycopg

_HEAD = """\
# Masking rules, proposed by "pgbackup mask init". Read every line: only you know which columns are personal.
# Columns marked "?" look personal. A column that gets no rule fails the refresh, and so does a table.
locale: en_US
large_objects: drop
tables_without_rules: fail
columns:
"""
_KEEP = Rule("keep")
_PLAIN = re.compile(r"[a-z_][a-z0-9_.]*")


@dataclass(frozen=True)
class MaskReport:
    """What :func:`check_rules` found.

    :param problems: why the rules do not fit the database; a refresh would fail.
    :param personal: columns that look personal and are kept, without a rule that names them.
    :param masked: how many columns are masked.
    """

    problems: tuple[str, ...]
    personal: tuple[str, ...]
    masked: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"problems": list(self.problems), "personal": list(self.personal), "masked": self.masked}


def check_rules(*, connection: ConnectionParams, rules: MaskingRules, context: RunContext | None = None) -> MaskReport:
    """Check rules against a database. Nothing is changed in it.

    :param connection: to the database, of a role that may read its tables.
    :raises ConnectError: the server cannot be reached.
    """
    context = context or RunContext()
    # No mask is made, so any key will do.
    masking = Masking(rules, MaskingKey(bytes(range(33, 65))))
    problems: tuple[str, ...] = ()
    with connection.open_session() as session:
        session.execute("SET default_transaction_read_only = on")
        session.execute("SET row_security = off")
        try:
            masking.check_columns(session)
        except MaskingError as error:
            problems = tuple(error.problems)
        suspects = _suspects(session, read_tables(session), connection, context)
    plan = masking.plan
    assert plan is not None  # noqa: S101  check_columns() made it
    kept = [
        suspect
        for suspect in suspects
        if plan.rules.get(suspect.column.key, _KEEP).method == "keep" and suspect.column.key not in plan.explicit
    ]
    masked = sum(rule.method != "keep" for rule in plan.rules.values())
    return MaskReport(problems, tuple(printable(f"{each}, and is kept") for each in kept), masked)


def propose_rules(*, connection: ConnectionParams, context: RunContext | None = None) -> str:
    """Return a file of rules for all tables of a database: ``keep``, or a mask for what looks personal.

    :param connection: to the database, of a role that may read its tables.
    :raises ConnectError: the server cannot be reached.
    """
    context = context or RunContext()
    with connection.open_session() as session:
        session.execute("SET default_transaction_read_only = on")
        session.execute("SET row_security = off")
        tables = read_tables(session)
        constraints = Constraints()
        constraints.read_database(session)
        suspects = _suspects(session, tables, connection, context)
    return _Proposal(tables, constraints, suspects).text()


def _suspects(
    session: psycopg.Connection[Any], tables: Mapping[int, Table], connection: ConnectionParams, context: RunContext
) -> list[Suspect]:
    context.log(f"reading a sample of each table of {connection.label}")
    suspects, unread = find_personal(session, tables)
    for table in unread:
        context.log(f"warning: {table}: this role may not read it; its columns are judged by their names only")
    return suspects


class _Proposal:
    def __init__(self, tables: Mapping[int, Table], constraints: Constraints, suspects: Iterable[Suspect]) -> None:
        self._tables = tables
        self._columns = {column.key: column for table in tables.values() for column in table.columns}
        self._unique = {keys[0] for keys in constraints.unique if len(keys) == 1}
        self._constraints = constraints
        self._families = self._inherited()
        self._suspects = {self._root(suspect.column.key): suspect for suspect in suspects}
        self._rules: dict[Key, Rule] = {}

    def text(self) -> str:
        for key, suspect in self._suspects.items():
            self._rules[key] = next((rule for rule in suspect.kind.rules if self._holds(key, rule)), _KEEP)
        self._follow_references()
        lines = [_HEAD.rstrip("\n")]
        for table in self._tables.values():
            if not table.exempt:
                lines += self._lines(table)
        return "\n".join(lines) + "\n" if len(lines) > 1 else lines[0] + " {}\n"

    def _inherited(self) -> dict[Key, list[Key]]:
        """Return, for each column, those that need the same rule: what partitions and children inherit, all of it.

        A child of several tables joins the columns of all of them.
        """
        families = {key: [key] for key in self._columns}
        for table in self._tables.values():
            for column in table.columns:
                for parent in self._parents(table, column.name):
                    above, below = families[parent], families[column.key]
                    if above is not below:
                        above += below
                        families.update(dict.fromkeys(below, above))
        return families

    def _parents(self, table: Table, column: str) -> Iterable[Key]:
        """Yield the columns of other tables from which a table inherits one of its columns."""
        for oid in table.parents:
            if (above := self._tables.get(oid)) and (key := (above.schema, above.name, column)) in self._columns:
                yield key

    def _root(self, key: Key) -> Key:
        """Return the one of the columns with the same rule that stands for all of them."""
        return self._families[key][0]

    def _holds(self, key: Key, rule: Rule) -> bool:
        return rule == _KEEP or all(self._fits(member, rule) for member in self._families[key])

    def _fits(self, key: Key, rule: Rule) -> bool:
        column = self._columns[key]
        try:
            expression(Masked(column, rule, length=column.length, unique=key in self._unique, distinct=True))
        except Misfit:
            return False
        return True

    def _follow_references(self) -> None:
        """Give both ends of a foreign key the same rule: the one of the referenced column, if it can hold for both."""
        kept: set[Key] = set()
        for _ in self._constraints.references:
            before = dict(self._rules)
            for key, other in self._constraints.references:
                key, other = self._root(key), self._root(other)
                rule = self._rules.get(other, _KEEP)
                if rule == _KEEP:
                    rule = self._rules.get(key, _KEEP)
                agree = rule.method == "null" or masks_agree(self._columns[key], self._columns[other])
                if not (
                    agree and self._holds(key, rule) and self._holds(other, rule) and kept.isdisjoint((key, other))
                ):
                    rule = _KEEP
                    kept |= {key, other}
                self._rules[key] = self._rules[other] = rule
            if before == self._rules:
                break

    def _lines(self, table: Table) -> Iterable[str]:
        for column in table.columns:
            if column.generated or any(self._parents(table, column.name)):
                continue
            if not is_utf8(str(column)):
                yield f"  # {printable(str(column))}: its name is not UTF-8; a pattern with ? can name it"
                continue
            root = self._root(column.key)
            suspect = self._suspects.get(root)
            note = f"  # ? {suspect.reason}" if suspect else ""
            yield f"  {yaml_key(str(column))}: {_yaml_rule(self._rules.get(root, _KEEP))}{note}"


def yaml_key(text: str) -> str:
    """Return a column's pattern as a key in YAML: plain, or in double quotes with every character visible."""
    if _PLAIN.fullmatch(text):
        return text
    quoted = "".join(f"\\{c}" if c in '"\\' else c if printable(c) == c else f"\\U{ord(c):08x}" for c in text)
    return f'"{quoted}"'


def _yaml_rule(rule: Rule) -> str:
    if rule.method == "fake":
        return f"{{fake: {rule.fake}}}"
    if rule.method == "generalize":
        return f"{{generalize: {rule.unit or rule.bucket}}}"
    return rule.method
