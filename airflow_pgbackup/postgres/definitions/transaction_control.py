"""Find statements that begin or end a transaction, which would end the single transaction of a restore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.sql.encodings import is_ambiguous, without_ambiguous_bytes
from airflow_pgbackup.postgres.sql.names import NameDecoder
from airflow_pgbackup.postgres.sql.server_statements import ServerStatement, server_statements
from airflow_pgbackup.postgres.sql.statement import Statement

_WORDS = ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE")
_ANY_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)}|PREPARE)\b", re.IGNORECASE | re.ASCII)
_OIDS = re.compile(r"[0-9\s]*\Z", re.ASCII)


def controls_transaction(statement: Statement) -> bool:
    """Return whether a statement of a script begins or ends a transaction or a savepoint."""
    return _is_control([word.decode("ascii", "replace") for word in statement.words[:2]])


def _is_control(first: list[str]) -> bool:
    return (first[:1] != [] and first[0] in _WORDS) or first[:2] == ["PREPARE", "TRANSACTION"]


def _ends_body(statement: ServerStatement) -> bool:
    return statement.in_body and statement.first == ["END"]


def check_entries(entries: Iterable[TocEntry], *, standard_strings: bool, encoding: str = "UTF8") -> None:
    """Check that pg_restore can restore entries in a single transaction.

    :param standard_strings: ``standard_conforming_strings`` of the archive.
    :param encoding: of the archive, in which all its text was decoded.
    :raises VerificationFailed: an entry would end the transaction, or its SQL cannot be read.
    """
    decoder = NameDecoder()
    decoder.use(encoding)

    def as_psql_reads(text: str) -> str:
        # Python's decoders know fewer characters than PostgreSQL, and can take the end of one for a backslash.
        return without_ambiguous_bytes(decoder.bytes(text), encoding).decode("latin-1")

    ambiguous = is_ambiguous(encoding)
    for entry in entries:
        if entry.kind == "BLOB METADATA" and not _OIDS.match(entry.definition):
            raise VerificationFailed(f"{entry.label} contains more than OIDs, which pg_dump never writes")
        texts = map(as_psql_reads, _texts(entry)) if ambiguous else _texts(entry)
        for text in filter(_ANY_WORD.search, texts):
            try:
                _check(text, standard_strings)
            except VerificationFailed as error:
                raise VerificationFailed(f"{entry.label} {error.message}") from None


def check_statements(statements: Iterable[str]) -> None:
    """Check that statements can run in a transaction that they do not begin or end.

    :param statements: as the server gets them, with ``standard_conforming_strings`` on.
    :raises VerificationFailed: one would end the transaction, or its SQL cannot be read.
    """
    for text in filter(_ANY_WORD.search, statements):
        try:
            _check(text, standard_strings=True)
        except VerificationFailed as error:
            raise VerificationFailed(f"the script of the roles {error.message}") from None


def _check(text: str, standard_strings: bool) -> None:
    for each in server_statements(text, standard_strings=standard_strings):
        if _is_control(each.first) and not _ends_body(each):
            found = text[each.start : min(each.end, each.start + 100)]
            raise VerificationFailed(f"contains {found!r}, which pg_dump never writes")


def _texts(entry: TocEntry) -> Iterator[str]:
    """Yield the SQL of an entry, each as pg_restore sends it.

    pg_restore runs parts of the DROP statement also without ``--clean``: ``ALTER`` with what follows ``DROP``, to set
    the owner of a function.
    """
    yield entry.definition
    yield entry.drop_statement
    yield f"ALTER {entry.drop_statement[5:]}"
    yield entry.copy_statement or ""
