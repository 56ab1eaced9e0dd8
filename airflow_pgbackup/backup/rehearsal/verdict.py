"""What an error during the restore of a rehearsal says about the backup: that it fails, or nothing.

A backup *fails* only by its own bytes: statements that are wrong, data that its own constraints refuse. All else
(memory, disk, connections, libraries and locales of the server, other servers, what nobody has thought of) is *not
proven*. SQLSTATE tells: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from airflow_pgbackup.errors import NotProven, PgBackupError, ToolError, VerificationFailed
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.tools.stderr import errors_of

SqlState = Callable[[str], str | None]
"""The SQLSTATE of an error by its message; None where it is not known."""

# Cardinality, data, constraints, SQL routines, syntax and names, WITH CHECK OPTION, program limits, PL/pgSQL.
_OF_THE_DUMP = ("21", "22", "23", "2F", "42", "44", "54", "P0")

_MESSAGE = re.compile(r"\b(?:ERROR|FATAL|PANIC): +(?:[0-9A-Z]{5}: +)?(.*)")
_ENTRY = re.compile(r"from TOC entry \d+; \d+ \d+ (?P<kind>[A-Z][A-Z ]*[A-Z]) (?P<name>.*) \S+$")

# In those classes, but about the server: what it lacks, and the way out.
_SCRATCH = "name a scratch server that has it (scratch_conn_id, --scratch)"
_LACKING: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in [
        (
            r"extension \"[^\"]*\" is not available|could not open extension control file|has no installation script"
            r"|could not access file \"\$libdir|could not load library",
            f"install the extension's package for this PostgreSQL on the worker, or {_SCRATCH}",
        ),
        (
            r"shared_preload_libraries|unrecognized configuration parameter|can only (?:be )?(?:create|load|install)"
            r"|must be preloaded",
            "the database needs a server that preloads a library of an extension: install its package on the worker, "
            f"or {_SCRATCH}",
        ),
        (
            r"invalid (?:LC_\w+ )?locale name|locale .* not (?:found|available)|could not create locale"
            r"|ICU is not supported|collation \"?.* (?:for encoding .* )?does not exist|could not open collator",
            f"rehearse with a PostgreSQL that has the locale (the distribution's has ICU), or {_SCRATCH}",
        ),
        (
            r"unsupported XML feature|compression method \w+ not supported",
            f"use the distribution's PostgreSQL, or {_SCRATCH}",
        ),
        (
            r"could not open (?:dictionary|affix|stop-?word|thesaurus|synonym|configuration) file",
            f"copy the file into share/tsearch_data of the worker's PostgreSQL, or {_SCRATCH}",
        ),
        (
            r"permission denied|must be (?:a )?superuser|must be owner",
            "rehearse in a throwaway server, or as a superuser",
        ),
        (r"stack depth limit exceeded", "raise max_stack_depth and the stack size (ulimit -s) of the server"),
    ]
]

# For servers whose log we do not see: what PostgreSQL says, in English, where the data or a statement is wrong.
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
        (r"backslash commands are restricted|error: \\unrestrict: ", "42601"),  # psql's own; no dump has others
    ]
]

_RESCUE = "The data is in the backup: see 'Rescue' in the documentation"
_CORRUPT_SOURCE = (
    "the source holds rows that its own constraint does not allow, so its index or the constraint is corrupt or was "
    f"bypassed: {{how}}. {_RESCUE}"
)
_BY_STATE = {
    "23505": _CORRUPT_SOURCE.format(
        how="check the index with amcheck (bt_index_check(…, heapallindexed => true)), find the rows with "
        "SELECT key, count(*) FROM ONLY table GROUP BY 1 HAVING count(*) > 1 under enable_indexscan = off"
    ),
    "23503": _CORRUPT_SOURCE.format(
        how="find the rows with SELECT … FROM child LEFT JOIN parent ON … WHERE parent.key IS NULL"
    ),
    "23P01": _CORRUPT_SOURCE.format(how="find the rows with a self-join on the constraint's operators"),
    "23514": "rows of the dump do not satisfy a CHECK constraint, which reads other tables or the clock, or was "
    f"bypassed. Make it NOT VALID, or a trigger, in the source. {_RESCUE}",
    "23502": f"a column that is NOT NULL has no value in some row of the dump. {_RESCUE}",
}
_SEARCH_PATH = (
    "{what} uses a function that relies on search_path, which a restore empties: run ALTER FUNCTION … SET search_path "
    f"= … in the source, and dump again. {_RESCUE}"
)
_UNQUALIFIED = re.compile(r'^(?:relation|function|type|operator|procedure|aggregate) "?[^".(]+"?(?:\(| does)')
_COPY = re.compile(r'COPY failed for table ("(?:[^"]|"")+")')
_UNDEFINED = ("42883", "42P01", "42704")  # function, relation, object
_NAMES = ("42P01", "42883", "42703", "42704", "3F000")


def judge(error: ToolError, label: str, sqlstate: SqlState, other_versions: Sequence[str] = ()) -> PgBackupError:
    """The error to raise instead.

    :param error: of pg_restore or psql.
    :param label: names the server.
    :param sqlstate: where known; else what the message says counts.
    :param other_versions: a line for each extension that the server has in another version than the source: what is
        not defined may have been that one's.
    :return: :class:`VerificationFailed`, or :class:`NotProven` with what is missing and the way out.
    """
    lines = errors_of(error.stderr) or list(error.stderr[-1:])
    for line in lines:
        for pattern, hint in _LACKING:
            if pattern.search(line):
                return NotProven(f"{label} lacks what this database needs: {_text(line)}", hint=hint)
    for line in lines:
        message = _text(line)
        state = sqlstate(message) or _guess(message)
        if state in _UNDEFINED and other_versions:
            return NotProven(
                f"{label} has other versions of extensions, and may lack what the dump uses of them: "
                f"{'; '.join(other_versions)}: {error.message}",
                hint=f"install the backup's version of the extension on the worker, or {_SCRATCH}",
            )
        if state is not None and state.startswith((*_OF_THE_DUMP, "3F")):
            return VerificationFailed(f"it does not restore: {error.message}", hint=_hint(state, error.stderr, line))
    return NotProven(
        f"the restore stopped for a reason that need not be the backup's: {error.message}",
        hint=hint_for("\n".join(lines)) or f"look at the reason; then rehearse again, or {_SCRATCH}",
    )


def _text(line: str) -> str:
    match = _MESSAGE.search(line)
    return (match[1] if match else line).strip()


def _guess(message: str) -> str | None:
    return next((state for pattern, state in _KNOWN if pattern.search(message)), None)


def _hint(state: str, stderr: Sequence[str], line: str) -> str | None:
    # A dump qualifies all names that it writes itself.
    if state in _NAMES and _UNQUALIFIED.search(_text(line)):
        entry = next((match for match in map(_ENTRY.search, reversed(stderr)) if match), None)
        table = _COPY.search(line)
        what = f"{entry['kind'].lower()} {entry['name']}" if entry else table and f"table {table[1]}"
        return _SEARCH_PATH.format(what=what or "something in the dump")
    return _BY_STATE.get(state) or hint_for(line)
