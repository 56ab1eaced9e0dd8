"""Decide whether an error in the restore of a rehearsal means that the backup failed, or that it is not proven.

A backup *fails* only because of its own contents: invalid statements, or rows that its own constraints reject. For any
other error (memory, disk, connections, libraries and locales of the server, other servers, unknown ones) it is *not
proven*. The SQLSTATE decides: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from airflow_pgbackup.errors import NotProven, PgBackupError, ToolError, VerificationFailed
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.tools.stderr import errors_of
from airflow_pgbackup.wording import parameter

SqlState = Callable[[str], str | None]
"""Returns the SQLSTATE of an error by its message, None if unknown."""

# Cardinality, data, constraints, SQL routines, syntax and names, WITH CHECK OPTION, program limits, PL/pgSQL.
_FAULTS_OF_DUMP = ("21", "22", "23", "2F", "42", "44", "54", "P0")

# Up to 13 an operator can follow its operand: (x !)
_WITHOUT_POSTFIX = 14
_POSTFIX = re.compile(r'syntax error at or near "\)"')
_MESSAGE = re.compile(r"\b(?:ERROR|FATAL|PANIC): +(?:[0-9A-Z]{5}: +)?(.*)")
_ENTRY = re.compile(r"from TOC entry \d+; \d+ \d+ (?P<kind>[A-Z][A-Z ]*[A-Z]) (?P<name>.*) \S+$")

# Errors of those classes that are about the server: what it lacks, and what to do.
_SCRATCH = "use a scratch server that has it (scratch_conn_id, --scratch)"
_SAME_MONEY = (
    "Values of type money are written as the source's lc_monetary says: rehearse on a server with the same lc_monetary "
    "(scratch_conn_id, --scratch)."
)
_LACKING: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in [
        (
            r"extension \"[^\"]*\" is not available|could not open extension control file|has no installation script"
            r"|could not access file \"\$libdir|could not load library|could not find function \".*\" in file",
            f"Install the extension's package for this PostgreSQL on the worker, or {_SCRATCH}.",
        ),
        (
            r"unrecognized configuration parameter \"[^\"]*\.",
            "A function, a constraint or a view reads this setting. If the source sets it for the database (ALTER "
            "DATABASE ... SET), dump in another format than plain or with the option create, and rehearse in the "
            f"throwaway server. If it belongs to an extension, install its package on the worker, or {_SCRATCH}.",
        ),
        (
            r"security label providers? .*loaded|shared_preload_libraries"
            r"|unrecognized configuration parameter|can only (?:be )?(?:create|load|install)"
            r"|must be preloaded",
            "The database needs a server that preloads the library of an extension: install its package on the worker, "
            f"or {_SCRATCH}.",
        ),
        (
            r'tablespace ".*" does not exist',
            f"Report this together with the dump's log, or {_SCRATCH}.",
        ),
        (
            r"invalid (?:LC_\w+ )?locale name|locale .* not (?:found|available)|could not create locale"
            r"|ICU is not supported|collation \"?.* (?:for encoding .* )?does not exist|could not open collator",
            f"Rehearse with a PostgreSQL that has the locale (the distribution's has ICU), or {_SCRATCH}.",
        ),
        (
            r"invalid value for parameter|outside the valid range for parameter|time zone \".*\" not recognized",
            "Rehearse with a PostgreSQL that accepts the setting, of the source's version, locales and time zones, "
            f"or {_SCRATCH}.",
        ),
        (
            r"unsupported XML feature|compression method \w+ not supported",
            f"Use the distribution's PostgreSQL, or {_SCRATCH}.",
        ),
        (
            r"could not open (?:dictionary|affix|stop-?word|thesaurus|synonym|configuration) file",
            f"Copy the file into share/tsearch_data of the worker's PostgreSQL, or {_SCRATCH}.",
        ),
        (
            r"permission denied|must be (?:a )?superuser|must be owner",
            "Rehearse in a throwaway server, or connect to the scratch server as a superuser.",
        ),
        (
            r"(?:invalid input syntax|value \".*\" is out of range) for type money",
            _SAME_MONEY,
        ),
        (r"stack depth limit exceeded", "Raise max_stack_depth and the stack size (ulimit -s) of the server."),
    ]
]

# For servers whose log we cannot read: PostgreSQL's messages, in English, about wrong rows and statements.
_KNOWN: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), state)
    for pattern, state in [
        (r"^syntax error (?:at or near|at end of input)", "42601"),
        (r"^relation .* does not exist", "42P01"),
        (r"^(?:function|operator|procedure|aggregate) .* does not exist", "42883"),
        (r"^column .* does not exist", "42703"),
        (r"^schema .* does not exist", "3F000"),
        (r"^(?:type|index|constraint|trigger|text search \w+|operator (?:class|family)) .* does not exist", "42704"),
        (r"already exists$", "42710"),
        (r"violates unique constraint|^could not create unique index", "23505"),
        (r"violates foreign key constraint", "23503"),
        (r"violates check constraint|is violated by some row", "23514"),
        (r"violates not-null constraint|contains null values", "23502"),
        (r"violates exclusion constraint|^could not create exclusion constraint", "23P01"),
        (r"^invalid (?:input syntax|input value|byte sequence)|^malformed \w+ literal", "22P02"),
        (
            r"^(?:missing data for column|extra data after last expected column|unquoted|literal .* found in data)",
            "22P04",
        ),
        (r"out of range|value too long for type|^division by zero", "22003"),
        (r"backslash commands are restricted|error: \\unrestrict: ", "42601"),  # psql's own messages
    ]
]

_RESCUE = "The data is in the backup: see 'Rescue' in the documentation."
_CORRUPT_SOURCE = (
    "The source has rows that violate its own constraint: the index is corrupt, or the constraint was bypassed. {how}. "
    f"{_RESCUE}"
)
_TWICE = (
    "The dump creates the object twice, or one of its extensions creates it too: if the object was removed from an "
    "extension, add it again (ALTER EXTENSION ... ADD) in the source, and dump again. Until then, restore without it "
    "(pg_restore --use-list)."
)
_BY_STATE = {
    "42723": _TWICE,
    "42P07": _TWICE,
    "23505": _CORRUPT_SOURCE.format(
        how="Check the index with amcheck (bt_index_check(..., heapallindexed => true)), and find the rows with SET "
        "enable_indexscan = off and SELECT key, count(*) FROM ONLY table GROUP BY 1 HAVING count(*) > 1"
    ),
    "23503": _CORRUPT_SOURCE.format(
        how="Find the rows with SELECT ... FROM child LEFT JOIN parent ON ... WHERE parent.key IS NULL"
    ),
    "23P01": _CORRUPT_SOURCE.format(how="Find the rows with a self-join on the constraint's operators"),
    "23514": "Rows of the dump violate a CHECK constraint that depends on other tables or the time, or was bypassed. "
    f"Make it NOT VALID, or replace it with a trigger, in the source. {_RESCUE}",
    "23502": f"Rows of the dump have nulls in a NOT NULL column: correct them in the source. {_RESCUE}",
}
_SEARCH_PATH = (
    "In {what}, a function depends on search_path, which is empty in a restore: run ALTER FUNCTION ... SET search_path "
    f"= ... in the source, and dump again. {_RESCUE}"
)
_UNQUALIFIED = re.compile(r'^(?:relation|function|type|operator|procedure|aggregate) "?[^".(]+"?(?:\(| does)')
_OF_CATALOG = re.compile(r'(?:relation|function|type) "?pg_catalog"?\.')
_IN_FUNCTION = re.compile(r"^CONTEXT: .*\bfunction |^(?:SQL|PL/\w+) function ")
_COPY = re.compile(r'COPY failed for table ("(?:[^"]|"")+")')
_UNDEFINED = ("42883", "42P01", "42704")  # function, relation, object
_NAMES = ("42P01", "42883", "42703", "42704", "3F000")
# Names without a schema that PostgreSQL uses for its own objects, and functions of polymorphic types.
_OF_SYSTEM = re.compile(
    r'^(?:relation|function|type|operator) "?pg_|\bany(?:element|array|nonarray|enum|range|multirange|compatible\w*)\b'
)
# The locale decides how text compares, as in CHECK and exclusion constraints and the bounds of ranges and partitions,
# and which characters are letters.
_TEXT_ORDER = ("22000", "23514", "23P01", "42P17")
# CHECK and exclusion constraints and the bounds of partitions, which can depend on the day or hour of a time.
_BY_ZONE = ("23514", "23P01", "42P17")
# CHECK constraints and the bounds of partitions, which a value that was read wrongly can violate.
_BY_VALUE = ("23514", "42P17")
# CHECK constraints, the bounds of partitions, and functions that reject what they find in a wrong database.
_BY_NAME = ("23514", "42P17", "P0001")
_TABLE = re.compile(r'\b(?:relation|partition) "(.+?)"')
# Texts that are equal in one locale are so in each, but not what functions such as lower() make of them.
_UNIQUE, _OF_EXPRESSION = "23505", re.compile(r"DETAIL: +Key \((?:(?!\)=\().)*?\(.*\)=\(")


_LACKS_PRIVILEGE = re.compile(
    r"permission denied (?:for|to) |must be (?:a )?superuser|must be owner|must be able to SET ROLE"
    r"|query would be affected by row-level security"
)
_PRIVILEGE_STATES = ("42501", "P0001")  # insufficient_privilege; raise_exception, as of a function that checks its user


def lacking_privilege(error: ToolError, sqlstate: SqlState) -> str | None:
    """Return the message of an error that may come from a role without the privileges of the source's role, or None."""
    for line in errors_of(error.stderr) or list(error.stderr[-1:]):
        message = _text(line)
        if _LACKS_PRIVILEGE.search(message) or sqlstate(message) in _PRIVILEGE_STATES:
            return message
    return None


def judge(
    error: ToolError,
    label: str,
    sqlstate: SqlState,
    other_versions: Sequence[str] = (),
    *,
    is_part: bool = False,
    other_locale: str = "",
    other_zone: str = "",
    other_source: str = "",
    service: str = "",
    money: Collection[str] = (),
    generated: bool = False,
    renamed: bool = False,
) -> PgBackupError:
    """Return the error to raise instead of a program's error.

    :param error: of pg_restore or psql.
    :param label: names the server.
    :param sqlstate: looks up the SQLSTATE; if it is unknown, the message decides.
    :param other_versions: a line for each extension whose version on the server differs from the source's. An object
        that does not exist may then belong to the source's version.
    :param is_part: the dump may lack what its objects use, because its options left that out.
    :param other_locale: why the copy may compare text by another locale than the source; '' if it does not.
    :param other_source: the major version of the source if that of the server differs. System catalogs and functions
        may then differ too.
    :param service: the managed service of the source, '' if none is known. It may have functions of its own.
    :param other_zone: why functions may use another time zone than in the source; '' if they do not.
    :param money: tables with values of type money, as :attr:`.DumpStyle.money`.
    :param generated: the dump has generated columns, whose values the server computes.
    :param renamed: the copy's database has another name than the dumped one, and a definition uses that.
    :return: :class:`VerificationFailed`; or :class:`NotProven`, with what is missing and what to do.
    """
    lines = errors_of(error.stderr) or list(error.stderr[-1:])
    for line in lines:
        for pattern, hint in _LACKING:
            if pattern.search(line):
                return NotProven(f"{label} lacks what this database needs: {_text(line)}", hint=hint)
    for line in lines:
        message = _text(line)
        state = sqlstate(message) or _guess(message)
        fault = _hint(state or "", error.stderr, line)
        if state in (*_UNDEFINED, "42703") and other_versions:
            return NotProven(
                f"{label} has other versions of extensions, which may lack what the dump uses: "
                f"{'; '.join(other_versions)}; {error.message}",
                hint=f"Install the backup's version of the extension on the worker, or {_SCRATCH}.",
            )
        if service and state in _UNDEFINED and _may_be_of_service(message, error.stderr):
            return NotProven(
                f"{label} may lack what exists only on {service}, the source's service: {error.message}",
                hint="Restore into a database of that service to prove the backup, or do not dump the object.",
            )
        if other_source and (
            state == "42703"
            or (state in _UNDEFINED and _OF_SYSTEM.search(message))
            or (int(other_source) < _WITHOUT_POSTFIX and _POSTFIX.match(message))
        ):
            return NotProven(
                f"{label} may lack what PostgreSQL {other_source}, the source's version, has: {error.message}",
                hint=f"Rehearse with PostgreSQL {other_source}: install it on the worker, or {_SCRATCH}. Change what "
                "depends on the system catalogs before an upgrade.",
            )
        of_expression = state == _UNIQUE and any(map(_OF_EXPRESSION.search, error.stderr))
        if other_locale and state is not None and (state in _TEXT_ORDER or of_expression):
            return NotProven(
                f"{other_locale}, so text may compare differently than in the source: {error.message}",
                hint=_or_else(
                    "Rehearse on a server that has the locale of the source. A plain dump names it if dumped with "
                    f"{parameter('create', True)}.",
                    fault,
                ),
            )
        if state and state in _BY_VALUE and (table := _TABLE.search(message)) and not {"", table[1]}.isdisjoint(money):
            return NotProven(
                "the server may read values of type money differently from the source, as its lc_monetary differs: "
                f"{error.message}",
                hint=_or_else(_SAME_MONEY, fault),
            )
        if other_zone and (state in _BY_ZONE or of_expression or (generated and state == _UNIQUE)):
            return NotProven(
                f"{other_zone}, so a function may return another day or hour than in the source: {error.message}",
                hint=_or_else(
                    "Rehearse on a scratch server with the time zone of the source (scratch_conn_id, --scratch).", fault
                ),
            )
        if renamed and state in _BY_NAME:
            return NotProven(
                f"the dump uses the name of its database, which is another one on a scratch server: {error.message}",
                hint=_or_else("Rehearse in a throwaway server, where the copy has its own name.", fault),
            )
        if is_part and state in _NAMES and not _UNQUALIFIED.search(message):
            return NotProven(
                f"the dump is a part of a database and lacks what it uses: {error.message}",
                hint="Dump that too, or restore into a database that has it (mode into_existing).",
            )
        if state is not None and state.startswith((*_FAULTS_OF_DUMP, "3F")):
            return VerificationFailed(f"it cannot be restored: {error.message}", hint=fault)
    return NotProven(
        f"the restore failed, perhaps not because of the backup: {error.message}",
        hint=hint_for("\n".join(lines)) or f"Resolve the cause and rehearse again, or {_SCRATCH}.",
    )


def _or_else(hint: str, fault: str | None) -> str:
    """Return a hint, with that for a fault of the dump if there is one."""
    return f"{hint} If it fails there too: {fault}" if fault else hint


def _may_be_of_service(message: str, stderr: Sequence[str]) -> bool:
    """Return whether an undefined object may belong to pg_catalog of the source.

    pg_dump omits only this schema from a name. A function can omit others too, but then the CONTEXT names the function.
    """
    return bool(_OF_CATALOG.match(message)) or (
        _UNQUALIFIED.match(message) is not None and not any(map(_IN_FUNCTION.search, stderr))
    )


def _text(line: str) -> str:
    match = _MESSAGE.search(line)
    return (match[1] if match else line).strip()


def _guess(message: str) -> str | None:
    return next((state for pattern, state in _KNOWN if pattern.search(message)), None)


def _hint(state: str, stderr: Sequence[str], line: str) -> str | None:
    # pg_dump qualifies all names that it writes itself, so an unqualified one is a function's.
    if state in _NAMES and _UNQUALIFIED.search(_text(line)):
        entry = next((match for match in map(_ENTRY.search, reversed(stderr)) if match), None)
        table = _COPY.search(line)
        what = f"{entry['kind'].lower()} {entry['name']}" if entry else table and f"table {table[1]}"
        return _SEARCH_PATH.format(what=what or "the dump")
    return _BY_STATE.get(state) or hint_for(line)
