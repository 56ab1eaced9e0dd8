"""A plain dump's header, trailer and psql commands: whether the script is complete, and a dump at all.

psql restores what is left of a truncated script and succeeds. Only the trailer shows the truncation. It is not
always the last line: recent releases of pg_dump write ``\\unrestrict`` after it.
"""

from __future__ import annotations

import re
from typing import NoReturn

from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.postgres.sql.lexer import Comment, Event, MetaCommand
from airflow_pgbackup.postgres.sql.names import connected_name

_RESTRICT_KEY = re.compile(rb"[A-Za-z0-9]+")

_DATABASE_HEAD = b"-- PostgreSQL database dump"
_DATABASE_END = b"-- PostgreSQL database dump complete"
_CLUSTER_HEAD = b"-- PostgreSQL database cluster dump"
_CLUSTER_END = b"-- PostgreSQL database cluster dump complete"


class ScriptContinues(VerificationFailed):
    """The script has a complete dump, and something else after it."""


class ScriptTrailerCheck:
    """Check headers, trailers and psql commands of a script by pg_dump, pg_dumpall or pg_restore.

    Pass every event of the script to :meth:`event`, then call :meth:`finish`.

    :ivar cluster: the script is pg_dumpall's.
    """

    def __init__(self) -> None:
        self.cluster = False
        self._seen: set[bytes] = set()
        self._expected: list[bytes] = []  # the trailers still to come, innermost last
        self._key: bytes | None = None  # of the \restrict in force
        self._last: Event | None = None

    def event(self, event: Event) -> None:
        """Check the next event.

        :raises VerificationFailed: the script does not begin like a dump, or has a psql command that pg_dump never
            writes; as :class:`ScriptContinues`, it continues after its trailer.
        :raises NotProven: it has Windows line ends, as pg_dump's output has when it is redirected there.
        """
        self._last = event
        if isinstance(event, Comment):
            self._comment(event)
        elif not self._expected and not (isinstance(event, MetaCommand) and event.name == b"unrestrict"):
            if self._seen:
                raise ScriptContinues(f"the script continues after the trailer of the dump, at byte {event.offset}")
            raise VerificationFailed("the script does not begin with the header of a dump")
        if isinstance(event, MetaCommand):
            self._meta_command(event)

    def _comment(self, event: Comment) -> None:
        text = event.text
        if not self._seen and text in (_DATABASE_HEAD + b"\r", _CLUSTER_HEAD + b"\r"):
            raise NotProven(
                "the script has Windows line ends (CR LF), with which its rows cannot be compared",
                hint="psql restores it as it is. Convert it to line ends of LF, as dos2unix does, to verify it.",
            )
        if text in (_DATABASE_HEAD, _CLUSTER_HEAD):
            # Only a cluster's dump contains others, one after another.
            if self._seen and (text == _CLUSTER_HEAD or self._expected != [_CLUSTER_END]):
                kind = VerificationFailed if self._expected else ScriptContinues
                raise kind(f"a second dump begins at byte {event.offset}")
            self.cluster = self.cluster or text == _CLUSTER_HEAD
            self._expected.append(_CLUSTER_END if text == _CLUSTER_HEAD else _DATABASE_END)
            self._seen.add(text)
        elif text in (_DATABASE_END, _CLUSTER_END):
            if self._expected[-1:] != [text]:
                raise VerificationFailed(f"unexpected '{text.decode()}' at byte {event.offset}")
            self._expected.pop()

    def _meta_command(self, event: MetaCommand) -> None:
        """Allow the four that pg_dump and pg_dumpall write, with arguments as they write them."""
        if event.name == b"restrict":
            if self._key is not None:
                raise VerificationFailed(f"a second \\restrict at byte {event.offset}")
            if not _RESTRICT_KEY.fullmatch(event.argument):
                raise VerificationFailed(f"\\restrict at byte {event.offset} has a key that pg_dump never writes")
            self._key = event.argument
        elif event.name == b"unrestrict":
            if event.argument != self._key:
                raise VerificationFailed(
                    f"the key of \\unrestrict at byte {event.offset} differs from that of the \\restrict before it"
                )
            self._key = None
        elif event.name == b"connect":
            connected_name(event.argument)
        elif (event.name, event.argument) != (b"encoding", b"SQL_ASCII"):  # before \connect
            name = event.name.decode("ascii", "backslashreplace")
            raise VerificationFailed(f"\\{name[:20]} at byte {event.offset}, which pg_dump never writes")

    def finish(self, trailing: bytes, size: int) -> None:
        """Check that the script is complete.

        :param trailing: the white space after the last event.
        :param size: of the script, bytes.
        :raises VerificationFailed: the trailer is missing or incomplete.
        """
        if not self._seen:
            found = "does not begin with the header of a dump" if size else "is empty"
            raise VerificationFailed(f"the script {found}")
        if self._expected:
            self._truncated(size, f"'{self._expected[-1].decode()}' is missing")
        if self._key is not None:
            self._truncated(size, "the last \\unrestrict is missing")
        # The trailer comment has a line of two dashes below it, and a blank line ends the script.
        if (isinstance(self._last, Comment) and self._last.text != b"--") or not trailing:
            self._truncated(size, "its last line is missing")

    @staticmethod
    def _truncated(size: int, detail: str) -> NoReturn:
        raise VerificationFailed(f"the dump is truncated after {size} bytes: {detail}")
