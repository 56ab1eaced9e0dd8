"""The comments before the objects of a plain dump, and whether the data that they announce follows.

Each object has one: ``-- Name: film; Type: TABLE; Schema: public; Owner: app``.
"""

from __future__ import annotations

import re

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.sql.lexer import Comment, CopyData, Event, MetaCommand
from airflow_pgbackup.postgres.sql.names import NameDecoder
from airflow_pgbackup.postgres.sql.statement import Statement

_HEADER = re.compile(r"-- (?:Data for )?Name: ")
_BEGINS = (b"-- Name: ", b"-- Data for Name: ")
_DUMP_ENDS = b"-- PostgreSQL database dump complete"
_ROWS = "TABLE DATA"
_DATA = {"SEQUENCE SET": b"SELECT", "MATERIALIZED VIEW DATA": b"REFRESH", _ROWS: b"COPY"}
"""The first word of the statement that each kind of data has."""


def object_header(line: str) -> tuple[str, str, str | None, str] | None:
    """Return name, kind, schema and owner from the comment before an object; None for any other comment.

    The name may contain any text. This takes linear time, which a regular expression would not.
    """
    match = _HEADER.match(line)
    end = line.rfind("; Schema: ", 0, max(line.rfind("; Owner: "), 0))
    middle = line.rfind("; Type: ", 0, max(end, 0))
    if match is None or middle < match.end():
        return None
    kind, _, rest = line[middle + len("; Type: ") :].partition("; Schema: ")
    schema, _, owner = rest.partition("; Owner: ")
    return line[match.end() : middle], kind, None if schema == "-" else schema, owner.partition("; Tablespace: ")[0]


class ScriptHeaderCheck:
    """Check that each header of data in a script has its statement.

    Pass every event of the script to :meth:`event`, then call :meth:`finish`.

    :param decoder: of the names, in the encoding at each event.
    """

    def __init__(self, decoder: NameDecoder) -> None:
        self._decoder = decoder
        self._awaited: tuple[str, str] | None = None  # the kind, and what is said if its statement is missing
        self._without_copy: str | None = None
        self._copies = False
        self._inserts = False

    def event(self, event: Event) -> None:
        """Check the next event.

        :raises VerificationFailed: the statement of the last header is missing.
        """
        if isinstance(event, Comment):
            if event.text == _DUMP_ENDS:
                self._end_object()
            elif event.text.startswith(_BEGINS) and (header := object_header(self._decoder.text(event.text))):
                self._end_object()
                self._begin_object(event, *header[:3])
        elif isinstance(event, MetaCommand):
            if event.name == b"connect":
                self._end_object()
        elif isinstance(event, CopyData):
            self._copies = True
            self._found(b"COPY")
        elif isinstance(event, Statement) and event.words:
            self._inserts = self._inserts or event.words[0] == b"INSERT"
            self._found(event.words[0])

    def _begin_object(self, event: Comment, name: str, kind: str, schema: str | None) -> None:
        if kind in _DATA:
            label = f"{schema}.{name}" if schema else name
            self._awaited = (kind, f"the data is missing after the header {kind} {label} at byte {event.offset}")

    def _found(self, word: bytes) -> None:
        if self._awaited and _DATA[self._awaited[0]] == word:
            self._awaited = None

    def _end_object(self) -> None:
        if self._awaited is None:
            return
        kind, problem = self._awaited
        self._awaited = None
        if kind != _ROWS:
            raise VerificationFailed(problem)
        self._without_copy = self._without_copy or problem

    def finish(self) -> None:
        """Check the headers of rows: with COPY each table has a statement, with INSERT an empty one has none.

        :raises VerificationFailed: the statement of a header is missing.
        """
        self._end_object()
        if self._without_copy and self._copies and not self._inserts:
            raise VerificationFailed(self._without_copy)
