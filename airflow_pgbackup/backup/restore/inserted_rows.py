"""Rows that an archive has as INSERT statements: pg_restore runs them as SQL, so they could end a transaction."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.pg_restore_output import PgRestoreOutput
from airflow_pgbackup.postgres.archive.toc import Toc, TocEntry, encoding_set_by
from airflow_pgbackup.postgres.sql.insert_rows import check_inserts
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.postgres.tools.shared_libraries import library_path
from airflow_pgbackup.wording import parameter

# A backslash can be the second byte of a character in all others, such as SJIS.
_SAFE_ENCODINGS = re.compile(
    r"UTF8|SQL_ASCII|LATIN\d+|ISO_8859_\d|KOI8[RU]|WIN(?:866|874|125\d)|EUC_\w+|MULE_INTERNAL"
    r"|UNICODE|KOI8|WIN|ALT|TCVN",  # as pg_dump before 8.4 calls some of them
    re.ASCII,
)


def inserted_rows(entries: Iterable[TocEntry]) -> list[TocEntry]:
    """Return the entries whose data pg_restore runs as SQL: those without a COPY statement, and BLOB COMMENTS even with
    one."""
    return [
        entry
        for entry in entries
        if entry.has_data and entry.kind != "BLOBS" and (entry.kind == "BLOB COMMENTS" or not entry.copy_statement)
    ]


def has_standard_strings(toc: Toc) -> bool:
    """Return the archive's ``standard_conforming_strings``, as pg_restore reads and sets it.

    :raises VerificationFailed: the archive has both values.
    """
    found = {_quoted(entry).startswith("on'") for entry in toc.entries if entry.kind == "STDSTRINGS"}
    if len(found) > 1:
        raise VerificationFailed(
            "the archive sets standard_conforming_strings to on and to off, which pg_dump never does"
        )
    return found == {True}


def encoding_of(toc: Toc) -> str:
    """Return the archive's encoding.

    :raises VerificationFailed: the archive sets it after other entries, which were decoded without it, or twice, or in
        other words than pg_dump.
    """
    found = [number for number, entry in enumerate(toc.entries) if entry.kind == "ENCODING"]
    if not found:
        return "UTF8"
    if found != [0]:
        raise VerificationFailed("the archive sets client_encoding after other entries, which pg_dump never does")
    encoding = encoding_set_by(toc.entries[0].definition)
    if encoding is None:
        raise VerificationFailed(
            f"the archive sets its encoding by {toc.entries[0].definition!r}, which pg_dump never writes"
        )
    return encoding


def check_inserted_rows(
    run: RestoreContext, client: Client, argv: Sequence[str], toc: Toc, *, stdin: Readable | None
) -> None:
    """Check that data consists of INSERT statements that pg_dump writes, and of nothing else.

    :param argv: arguments for pg_restore; they select the :func:`inserted_rows`.
    :param stdin: the archive, unless `argv` names it.
    :raises VerificationFailed: there is something else.
    """
    standard_strings = has_standard_strings(toc)
    encodings = [_quoted(entry).partition("'")[0] for entry in toc.entries if entry.kind == "ENCODING"]
    unsafe = [name for name in encodings or ["unknown"] if not _SAFE_ENCODINGS.fullmatch(name)]
    if unsafe and not standard_strings:
        raise VerificationFailed(
            "cannot tell where strings end in INSERT statements with standard_conforming_strings off and encoding "
            f"{unsafe[0]}",
            hint=f"Restore with {parameter('mode', 'create')}, into a database of its own.",
        )
    with ToolProcess(
        [str(client.tool("pg_restore")), "--file=-", *argv],
        env={"LC_ALL": "C", "TZ": "UTC", **library_path()},
        cancel=run.cancel,
        deadline=run.remaining(),
        stdin=stdin,
    ) as process:
        check_inserts(PgRestoreOutput(process, client=client), standard_strings=standard_strings)


def _quoted(entry: TocEntry) -> str:
    """Return what follows the first quote: ``on';`` in ``SET standard_conforming_strings = 'on';``."""
    return entry.definition.partition("'")[2]
