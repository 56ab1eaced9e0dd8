"""The SQL of the triggers, and of the schema that they use while rows are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg import sql

from airflow_pgbackup.backup.masking.columns import SCHEMA, Column, Table
from airflow_pgbackup.backup.masking.expressions import expression, moment, shift_days, shifted
from airflow_pgbackup.backup.masking.masked_column import Masked
from airflow_pgbackup.backup.masking.sql_parts import RawSql
from airflow_pgbackup.postgres.sql.anybytes import Identifier

_SCHEMA = sql.Identifier(SCHEMA)

PREPARE = (
    sql.SQL("CREATE SCHEMA {}").format(_SCHEMA),
    # Unlogged: neither the WAL nor a standby ever holds the secret. Dropped with the schema.
    sql.SQL("CREATE UNLOGGED TABLE {}.secrets (seed bigint, secret bytea, encoding name)").format(_SCHEMA),
    sql.SQL("CREATE UNLOGGED TABLE {}.words (kind text, number int, word name)").format(_SCHEMA),
)
"""Before the secret and the words are copied into it."""


def helpers(kinds: Sequence[str]) -> Iterator[sql.Composed]:
    """Yield the functions that triggers use, after the tables are filled.

    They are declared IMMUTABLE, so that the planner calls them once for each expression of a session, and the constant
    takes their place.
    """
    function = "CREATE FUNCTION {}.{}() RETURNS {} IMMUTABLE LANGUAGE plpgsql AS {}"
    for name, kind in (("seed", "bigint"), ("secret", "bytea"), ("encoding", "name")):
        body = f"BEGIN RETURN (SELECT {name} FROM {SCHEMA}.secrets); END"  # noqa: S608  our own names
        yield sql.SQL(function).format(_SCHEMA, sql.Identifier(name), sql.SQL(kind), sql.Literal(body))
    for kind in kinds:
        words = f"SELECT array_agg(word ORDER BY number) FROM {SCHEMA}.words WHERE kind = '{kind}'"  # noqa: S608
        body = f"BEGIN RETURN ({words}); END"
        yield sql.SQL(function).format(_SCHEMA, sql.Identifier(f"words_{kind}"), sql.SQL("name[]"), sql.Literal(body))
    yield sql.SQL(_IBAN).format(_SCHEMA)
    yield sql.SQL(_CARD).format(_SCHEMA)


# 18 digits that begin with 0, which no German bank code does; 62 is 131400 modulo 97, for DE00 (ISO 13616).
_IBAN = """
    CREATE FUNCTION {}.iban(bits bigint) RETURNS text IMMUTABLE STRICT LANGUAGE plpgsql AS $$
    DECLARE account bigint := bits % 100000000000000000;
    BEGIN
        RETURN 'DE' || pg_catalog.lpad((98 - (account % 97 * 27 + 62) % 97)::text, 2, '0')
            || pg_catalog.lpad(account::text, 18, '0');
    END $$
"""
# No issuer has numbers that begin with 9999. The last digit is Luhn's (ISO/IEC 7812).
_CARD = """
    CREATE FUNCTION {}.card(bits bigint, length int) RETURNS text IMMUTABLE STRICT LANGUAGE plpgsql AS $$
    DECLARE
        digits text := '9999' || pg_catalog.lpad(
            (bits % pg_catalog.power(10::numeric, length - 5)::bigint)::text, length - 5, '0');
        total int := 0;
        digit int;
    BEGIN
        FOR i IN 1..length - 1 LOOP
            digit := pg_catalog.substr(digits, length - i, 1)::int;
            IF i % 2 = 1 THEN digit := digit * 2; END IF;
            total := total + digit / 10 + digit % 10;
        END LOOP;
        RETURN digits || ((10 - total % 10) % 10)::text;
    END $$
"""


def own_expression(number: int, masked: Masked, seen: Sequence[Column] = ()) -> sql.Composed:
    """Return the query of an ``sql`` rule, for its description by the server or as a function's body.

    :param number: 0 for a query over a row of nulls.
    :param seen: the columns of the row; none: all.
    """
    column = masked.column
    row = sql.SQL("$1") if number else sql.SQL("NULL::{}").format(Identifier(column.schema, column.table))
    fields = [sql.SQL("({}).{}").format(row, Identifier(each.name)) for each in seen] or [sql.SQL("({}).*").format(row)]
    return sql.SQL('SELECT ({}\n) FROM (SELECT {}) AS "row"').format(
        RawSql(masked.rule.text), sql.SQL(", ").join(fields)
    )


def own_function(name: str, masked: Masked, body: sql.Composable) -> sql.Composed:
    """Return the statement that creates the function of an ``sql`` rule.

    :param body: :func:`own_expression` as a literal.
    """
    column = masked.column
    return sql.SQL("CREATE FUNCTION {}.{}({}) RETURNS {} STABLE LANGUAGE sql AS {}").format(
        _SCHEMA,
        sql.Identifier(name),
        Identifier(column.schema, column.table),
        RawSql(column.type),
        body,
    )


def trigger_body(number: int, columns: Sequence[Masked]) -> sql.Composed:
    """Return the body of a table's trigger function.

    Masks that depend on other columns are computed first, from the row as it was.
    """
    declared: list[sql.Composable] = []
    assigned: list[sql.Composable] = []
    for index, masked in enumerate(columns, 1):
        column, rule = masked.column, masked.rule
        if rule.method == "sql" or rule.by:
            local = sql.Identifier(f"pgbackup_{index}")
            # With its value, as a domain may refuse null, also for a moment.
            value = _from_row(number, index, masked)
            declared.append(sql.SQL("{} {} := {};").format(local, RawSql(column.type), value))
            assigned.append(sql.SQL("NEW.{} := {};").format(Identifier(column.name), local))
        else:
            assigned.append(sql.SQL("NEW.{} := {};").format(Identifier(column.name), expression(masked)))
    lines = [
        sql.SQL("DECLARE"),
        *declared,
        sql.SQL("BEGIN"),
        *assigned,
        sql.SQL("RETURN NEW;"),
        sql.SQL("END"),
    ]
    return sql.SQL("\n").join(lines)


def own_name(number: int, index: int) -> str:
    """Return the name of the function of an ``sql`` rule."""
    return f"expression_{number}_{index}"


def _from_row(number: int, index: int, masked: Masked) -> sql.Composable:
    column, rule = masked.column, masked.rule
    if rule.method == "sql":
        return sql.SQL("{}.{}(NEW)").format(_SCHEMA, sql.Identifier(own_name(number, index)))
    value = sql.SQL("NEW.{}").format(Identifier(column.name))
    by = sql.SQL("coalesce(NEW.{}::text, {})").format(Identifier(rule.by), moment(column, value))
    return sql.SQL("({})::{}").format(shifted(column, value, shift_days(rule, by)), RawSql(column.type))


def trigger(number: int, table: Table, body: sql.Composable) -> Iterator[sql.Composed]:
    """Yield the statements that create a table's trigger.

    :param body: :func:`trigger_body` as a literal.
    """
    function, name = sql.Identifier(f"mask_{number}"), Identifier(table.schema, table.name)
    yield sql.SQL("CREATE FUNCTION {}.{}() RETURNS trigger LANGUAGE plpgsql AS {}").format(_SCHEMA, function, body)
    yield sql.SQL("CREATE TRIGGER {} BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION {}.{}()").format(
        _SCHEMA, name, _SCHEMA, function
    )
    # Also where session_replication_role is replica.
    yield sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(name, _SCHEMA)
