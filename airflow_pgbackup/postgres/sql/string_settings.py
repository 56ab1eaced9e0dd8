"""The settings of a session on which the end of a string depends, as a dump sets them.

A function, a trigger or a view of a dump can change them, and no parser sees that. psql learns of each setting from the
server, and uses it from the next line on. So the settings are repeated before each statement whose end depends on them;
of all others psql and the server find the same end in any case.
"""

from __future__ import annotations

import re
from typing import NoReturn

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.sql.encodings import escapes_in, without_ambiguous_bytes
from airflow_pgbackup.postgres.sql.names import client_encoding
from airflow_pgbackup.postgres.sql.server_statements import server_statements
from airflow_pgbackup.postgres.sql.statement import Statement, excerpt

_STRING_MODE = re.compile(rb"(?i)SET\s+standard_conforming_strings\s*(?:=|\sTO\s)\s*('?)(on|off)\1\s*;\Z")
_STRINGS_DEPEND_ON = frozenset({b"STANDARD_CONFORMING_STRINGS", b"CLIENT_ENCODING", b"NAMES", b"ALL"})
_QUOTED_SETTING = re.compile(rb'(?i)"(?:standard_conforming_strings|client_encoding)"|U&"')
_SETTING = re.compile(rb"(?i)standard_conforming_strings|client_encoding")
_ENCODING = re.compile(r"[A-Za-z0-9_ -]+")


class StringSettings:
    """The settings at a place of a dump.

    :ivar standard: ``standard_conforming_strings``.
    :ivar encoding: ``client_encoding``; '' until the dump sets it.
    """

    def __init__(self) -> None:
        self.standard = True
        self.encoding = ""
        self._going_on = ""  # the first statement that psql does not end

    @property
    def escapes(self) -> re.Pattern[bytes]:
        return escapes_in(self.encoding)

    def before(self, statement: Statement) -> bytes:
        """Return the lines that must come before a statement; empty for nearly every one.

        :raises VerificationFailed: the dump has not set the client's encoding, which pg_dump does first.
        """
        if not (statement.by_settings or statement.goes_on):
            return b""
        if not self.encoding:
            raise VerificationFailed(
                f"no SET client_encoding before the statement at byte {statement.offset}, which pg_dump always writes: "
                f"{excerpt(statement.text)}"
            )
        mode = "on" if self.standard else "off"
        text = f"\nSET standard_conforming_strings = {mode};\nSET client_encoding = '{self.encoding}';\n"
        return text.encode("ascii")

    def check(self, statement: Statement) -> None:
        """Check that psql and the server read a statement as one.

        :raises VerificationFailed: one of them does not, or it is too long to be checked.
        """
        if statement.copies and self._going_on:
            self._refuse_after_begin(statement)
        if statement.body:
            self._check_body(statement)

    def note(self, statement: Statement) -> None:
        """Note the settings that a statement changes.

        :raises VerificationFailed: it does so in words that pg_dump never writes.
        """
        before = self.encoding, self.standard
        encoding = client_encoding(statement.text)
        if encoding and _ENCODING.fullmatch(encoding):
            self.encoding = encoding
        elif mode := _STRING_MODE.match(statement.text):
            self.standard = mode[2].lower() == b"on"
        elif encoding is not None or _changes_strings(statement):
            raise VerificationFailed(
                f"{excerpt(statement.text)!r} at byte {statement.offset}, which pg_dump never writes"
            )
        if self._going_on and (self.encoding, self.standard) != before:
            self._refuse_after_begin(statement)

    def end(self, statement: Statement) -> None:
        """Note that a statement has ended here, and perhaps not for psql.

        psql then sends what follows together with it, and the server parses all of that with the same settings.
        """
        if statement.goes_on and not self._going_on:
            self._going_on = excerpt(statement.text)

    def _check_body(self, statement: Statement) -> None:
        # psql takes each word CASE in a body for the beginning of a block that END ends.
        if statement.size > len(statement.text):
            raise VerificationFailed(
                f"the function at byte {statement.offset} is too long to be read: {excerpt(statement.text)}"
            )
        text = without_ambiguous_bytes(statement.text, self.encoding).decode("latin-1")
        try:
            found = sum(not each.in_body for each in server_statements(text, standard_strings=self.standard))
        except VerificationFailed as error:
            raise VerificationFailed(f"the function at byte {statement.offset} {error.message}") from None
        if found > 1:
            raise VerificationFailed(
                f"a function whose body ends earlier for the server than for psql at byte {statement.offset}, which "
                f"pg_dump never writes: {excerpt(statement.text)}"
            )

    def _refuse_after_begin(self, statement: Statement) -> NoReturn:
        raise VerificationFailed(
            f"psql cannot run {excerpt(statement.text)!r} at byte {statement.offset}, because it does not find the end "
            f"of {self._going_on!r}",
            hint="psql takes a name begin without quotes for the beginning of a function body. Rename it, or dump in "
            "custom format.",
        )


def _changes_strings(statement: Statement) -> bool:
    """Return whether a statement may change a setting on which the end of a string depends."""
    words = statement.words
    if words[:1] in ((b"SET",), (b"RESET",)):
        names = words[2:3] if words[1:2] in ((b"SESSION",), (b"LOCAL",)) else words[1:2]
        return (
            not _STRINGS_DEPEND_ON.isdisjoint(names)
            or _QUOTED_SETTING.search(statement.text) is not None
            or statement.size > len(statement.text)
        )
    if words[:1] == (b"DO",):
        return _SETTING.search(statement.text) is not None
    # pg_dump's statistics have values of columns, which may be anything.
    selects = words[:1] == (b"SELECT",) and not statement.text.startswith(b"SELECT * FROM pg_catalog.pg_restore_")
    return selects and b"set_config" in statement.text.lower() and _SETTING.search(statement.text) is not None
