"""Mask rows while they are loaded: triggers on the tables of a database that has definitions and no data yet."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.pq import DiagnosticField, Escaping, ExecStatus

from airflow_pgbackup.backup.masking.columns import SCHEMA, Table, column_text, read_tables
from airflow_pgbackup.backup.masking.constraints import Constraints
from airflow_pgbackup.backup.masking.dictionaries import make_words
from airflow_pgbackup.backup.masking.fakes import words_of
from airflow_pgbackup.backup.masking.key import MaskingKey
from airflow_pgbackup.backup.masking.masked_column import Masked
from airflow_pgbackup.backup.masking.plan import MaskingPlan, make_plan
from airflow_pgbackup.backup.masking.rules import MaskingRules
from airflow_pgbackup.backup.masking.sql_parts import RawSql
from airflow_pgbackup.backup.masking.triggers import (
    PREPARE,
    helpers,
    own_expression,
    own_function,
    own_name,
    trigger,
    trigger_body,
)
from airflow_pgbackup.postgres.sql.anybytes import Identifier, decoded
from airflow_pgbackup.text import printable
from airflow_pgbackup.yaml_mapping.problem import Problem

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_GENERATED = "it uses a generated column, which the server computes later: "
_RELATION = re.compile(r'relation "((?:[^"]|"")*)"')


class Masking:
    """The rules at work in one database.

    :param rules: see :func:`.load_rules`.
    :param definitions: SQL of the archive's ``CONSTRAINT``, ``INDEX`` and ``FK CONSTRAINT`` entries, which are restored
        only after the data: they say which columns are unique and which refer to others.
    :param dumped: schema and name of the tables of which the archive has rows; None: there is no archive.
    :ivar rules: as given.
    :ivar plan: which column has which rule; None before :meth:`check_columns` or :meth:`install`.
    """

    def __init__(
        self,
        rules: MaskingRules,
        key: MaskingKey,
        *,
        definitions: Sequence[str] = (),
        dumped: Collection[tuple[str, str]] | None = None,
    ) -> None:
        self.rules = rules
        self.plan: MaskingPlan | None = None
        self._key = key
        self._dumped = dumped
        self._constraints = Constraints()
        self._constraints.read_definitions(definitions)

    def check_columns(self, connection: psycopg.Connection[Any]) -> None:
        """Check that the rules fit the database. Nothing is changed.

        :param connection: in autocommit mode, to the database with its definitions, with or without data and
            constraints.
        :raises MaskingError: columns without a rule in tables under rules, rules that fit no column, and rules that
            cannot hold for their column; all at once.
        """
        tables = read_tables(connection, self._dumped)
        self._constraints.read_database(connection)
        self.plan = plan = make_plan(self.rules, tables, self._constraints)
        with _empty_search_path(connection):
            problems = [*plan.problems, *self._expression_problems(connection, plan)]
        if problems:
            raise self.rules.origin.error(problems)

    def install(self, connection: psycopg.Connection[Any]) -> None:
        """Create the triggers, which mask every row that is inserted or copied from then on.

        :param connection: in autocommit mode, of the role that will load the data.
        :raises MaskingError: as for :meth:`check_columns`, or the database has a schema of our name; nothing was
            created then.
        """
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [SCHEMA]).fetchone():
            problem = f"the database has a schema {SCHEMA}, which masking would create; rename it"
            raise self.rules.origin.error([Problem((), problem)])
        self.check_columns(connection)
        assert self.plan is not None  # noqa: S101  check_columns() made it
        try:
            _quiet_log(connection, "SET log_error_verbosity TO 'terse'")
            for statement in PREPARE:
                connection.execute(statement)
            kinds = self._kinds(self.plan)
            self._fill(connection, kinds)
            for statement in helpers(kinds):
                connection.execute(statement)
            with _empty_search_path(connection):
                for number, (table, columns) in enumerate(self.plan.tables, 1):
                    self._create(connection, number, table, columns)
        except BaseException:
            if not connection.broken:
                self.remove(connection)
            raise

    def remove(self, connection: psycopg.Connection[Any]) -> None:
        """Drop the triggers with all that belongs to them, the secret included. Without them it does nothing.

        :param connection: in autocommit mode.
        """
        functions = connection.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            "WHERE n.nspname = %s AND p.proname ~ '^mask_'",
            [SCHEMA],
        ).fetchall()
        # One by one, as a statement that drops the triggers of ten thousand tables needs as many locks.
        for (function,) in functions:
            connection.execute(sql.SQL("DROP FUNCTION IF EXISTS {} CASCADE").format(sql.SQL(function)))
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))
        _quiet_log(connection, "RESET log_error_verbosity")

    @property
    def words(self) -> frozenset[bytes]:
        """The words that its fakes are made of, in lower case, in any encoding that can hold them."""
        if self.plan is None:
            return frozenset()
        return frozenset(word.lower().encode() for kind in self._kinds(self.plan) for word in self._words(kind, "UTF8"))

    def hint(self, message: str) -> str | None:
        """Return what an error of PostgreSQL about a constraint means for the rules, None if it is about no masked one.

        :param message: such as ``could not create unique index "customer_email_key"``.
        """
        if self.plan is None:
            return None
        relation = _RELATION.search(message)
        for match in _QUOTED.finditer(message):
            keys = self._constraints.named.get(_unquoted(match), set())
            if relation:  # the constraints of several tables can have one name
                keys = {key for key in keys if key[1] == _unquoted(relation)}
            rules = {key: rule for key in sorted(keys) if (rule := self.plan.rules.get(key)) and rule.method != "keep"}
            if rules:
                columns = ", ".join(f"{column_text(*key)} ({rule})" for key, rule in rules.items())
                return f"The masked rows violate it; change the rules of {columns}."
        return None

    def _fill(self, connection: psycopg.Connection[Any], kinds: Sequence[str]) -> None:
        encoding = str(connection.execute("SHOW server_encoding").fetchone()[0])  # type: ignore[index]
        # By COPY, whose data no setting of the server logs.
        with connection.cursor().copy(f"COPY {SCHEMA}.secrets FROM STDIN") as copy:
            secret = r"\x" + self._key.derive("hash").hex()
            copy.write_row([self._key.number("seed"), secret, "SQL_ASCII" if encoding == "SQL_ASCII" else "UTF8"])
        with connection.cursor().copy(f"COPY {SCHEMA}.words FROM STDIN") as copy:
            for kind in kinds:
                for number, word in enumerate(self._words(kind, encoding)):
                    copy.write_row([kind, number, word])

    @staticmethod
    def _kinds(plan: MaskingPlan) -> list[str]:
        return sorted(set().union(*(words_of(masked) for masked in plan.masked())))

    def _words(self, kind: str, encoding: str) -> list[str]:
        return make_words(kind, self.rules.locales, self._key.number(f"words {kind}"), encoding)

    def _create(
        self, connection: psycopg.Connection[Any], number: int, table: Table, columns: Sequence[Masked]
    ) -> None:
        for index, masked in enumerate(columns, 1):
            if masked.rule.method == "sql":
                body = _literal(connection, own_expression(number, masked))
                try:
                    connection.execute(own_function(own_name(number, index), masked, body))
                except psycopg.Error as error:
                    text = printable(error.diag.message_primary or str(error))
                    raise self.rules.origin.error([Problem((), f"{masked.column}: sql: {text}")]) from None
        for statement in trigger(number, table, _literal(connection, trigger_body(number, columns))):
            connection.execute(statement)

    def _expression_problems(self, connection: psycopg.Connection[Any], plan: MaskingPlan) -> Iterator[Problem]:
        """Let the server parse expressions and fixed values. An expression must be one of one statement."""
        for table, columns in plan.tables:
            for masked in columns:
                for query, why in _queries(table, masked):
                    if text := _refused(connection, query.as_bytes(connection)):
                        yield Problem((), f"{masked.column}: {masked.rule.method}: {why}{text}")
                        break


def _queries(table: Table, masked: Masked) -> Iterator[tuple[sql.Composed, str]]:
    """Yield the queries that the server must accept, with what it means if it does not."""
    column, rule = masked.column, masked.rule
    if rule.method == "fixed":
        yield sql.SQL("SELECT {}::{}").format(sql.Literal(rule.text), RawSql(column.type)), ""
    elif rule.method == "sql":
        query = own_expression(0, masked)
        yield query, ""
        if any(each.generated for each in table.columns):
            yield own_expression(0, masked, [each for each in table.columns if not each.generated]), _GENERATED
        into = Identifier(column.schema, column.table), Identifier(column.name)
        # In FROM, a literal has the type that it has as the result of a function: text.
        insert = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM ({}) AS mask")
        yield insert.format(*into, query), ""


@contextmanager
def _empty_search_path(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Work with the search path that pg_restore sets, so that an expression means the same as when rows are loaded."""
    row = connection.execute("SELECT current_setting('search_path'), set_config('search_path', '', false)").fetchone()
    try:
        yield
    finally:
        if row is not None and not connection.broken:
            connection.execute("SELECT set_config('search_path', %s, false)", [row[0]])


def _quiet_log(connection: psycopg.Connection[Any], change: LiteralString) -> None:
    """Keep the server from writing a row of the source into its log, as it does where COPY fails on that row.

    Only a superuser may; for others it stays as it is.
    """
    database = Identifier(connection.info.dbname)
    with suppress(psycopg.errors.InsufficientPrivilege):
        connection.execute(sql.SQL("ALTER DATABASE {} " + change).format(database))


def _unquoted(match: re.Match[str]) -> str:
    return match[1].replace('""', '"')


def _refused(connection: psycopg.Connection[Any], query: bytes) -> str | None:
    """Return why the server refuses a query, None if it accepts it. The query is not run."""
    session = connection.pgconn
    for result in (session.prepare(b"", query), session.describe_prepared(b"")):
        if result.status != ExecStatus.COMMAND_OK:
            message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"refused by the server"
            return printable(decoded(message))
    return None if result.nfields < 2 else f"expected one value, found {result.nfields}"


def _literal(connection: psycopg.Connection[Any], query: sql.Composable) -> sql.Composable:
    """Return a query as a literal, in any bytes."""
    return RawSql(decoded(Escaping(connection.pgconn).escape_literal(query.as_bytes(connection))))
