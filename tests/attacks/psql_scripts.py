"""Attacks by a plain dump: psql's commands, and places in a script where psql sees them and other parsers may not."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

SECRET = "the canary in a file of the worker"

# Every command that runs a program, reads, writes, prompts or connects, with arguments that make it do so, and others
# that a dump should not contain. {marker} must not appear, {canary} must not be read, nobody may connect to {port}.
COMMANDS = [
    r"\! touch {marker}",
    r"\unrestrict `touch {marker}`",
    r"\unrestrict `touch {marker}` \! touch {marker}",
    r"\unrestrict :PASSWORD",
    r"\restrict `touch {marker}`",
    r"\encoding `touch {marker}`",
    r"\encoding UTF8 \! touch {marker}",
    r"\connect `touch {marker}`",
    r'\connect "host=127.0.0.1 port={port} dbname=postgres"',
    r"\connect postgresql://127.0.0.1:{port}/postgres",
    r"\c - - 127.0.0.1 {port}",
    r"""\connect -reuse-previous=on "dbname='postgres' host='127.0.0.1' port='{port}'\"""",
    r"\copy t (line) from program 'touch {marker}'",
    r"\copy (select 1) to program 'touch {marker}'",
    r"\copy (select 1) to '{marker}'",
    r"\copy t (line) from '{canary}'",
    r"\copy t (line) from stdin",
    r"\copy t (line) from pstdin",
    r"\g |touch {marker}",
    r"\g {marker}",
    r"\g (format=unaligned) |touch {marker}",
    r"\gx |touch {marker}",
    r"\gx {marker}",
    r"\gexec",
    r"\gset",
    r"\gdesc",
    r"\crosstabview",
    r"\o |touch {marker}",
    r"\o {marker}",
    r"\out {marker}",
    r"\w |touch {marker}",
    r"\w {marker}",
    r"\write {marker}",
    r"\i {canary}",
    r"\i |touch {marker}",
    r"\ir {canary}",
    r"\include {canary}",
    r"\include_relative {canary}",
    r"\lo_import {canary}",
    r"\lo_export 4711 {marker}",
    r"\lo_list",
    r"\lo_unlink 4711",
    r"\setenv EDITOR 'touch {marker};:' \e",
    r"\setenv PSQL_EDITOR 'touch {marker};:' \ef",
    r"\setenv VISUAL 'touch {marker};:' \ev",
    r"\setenv PAGER 'touch {marker}' \pset pager always \?",
    r"\setenv SHELL {marker} \!",
    r"\e {marker}",
    r"\edit {marker}",
    r"\ef",
    r"\ev",
    r"\s {marker}",
    r"\cd {directory}",
    r"\set x `touch {marker}`",
    r"\set PROMPT1 '%`touch {marker}`'",
    r"\set x `cat {canary}` \\ insert into t (line) values (:'x');",
    r"\unset ON_ERROR_STOP",
    r"\getenv x PGPASSFILE",
    r"\if `touch {marker}`",
    r"\elif `touch {marker}`",
    r"\else",
    r"\endif",
    r"\echo `touch {marker}`",
    r"\qecho `touch {marker}`",
    r"\warn `touch {marker}`",
    r"\prompt `touch {marker}` x",
    r"\password",
    r"\q",
    r"\quit",
    r"\watch 0.1",
    r"\bind 1 \g |touch {marker}",
    r"\parse `touch {marker}`",
    r"\bind_named x \g |touch {marker}",
    r"\close_prepared x",
    r"\startpipeline",
    r"\sendpipeline",
    r"\endpipeline",
    r"\errverbose",
    r"\conninfo",
    r"\copyright",
    r"\d `touch {marker}`",
    r"\df+ `touch {marker}`",
    r"\sf `touch {marker}`",
    r"\sv `touch {marker}`",
    r"\z `touch {marker}`",
    r"\l `touch {marker}`",
    r"\h `touch {marker}`",
    r"\? `touch {marker}`",
    r"\C `touch {marker}`",
    r"\T `touch {marker}`",
    r"\f `touch {marker}`",
    r"\pset title `touch {marker}`",
    r"\timing `touch {marker}`",
    r"\x `touch {marker}`",
    r"\a",
    r"\H",
    r"\t",
    r"\p",
    r"\r",
    r"\drop_everything `touch {marker}`",
]

# Places where psql sees the command, and our lexer a part of a string, unless the settings are repeated before it.
HIDDEN = {
    "after a string, by a function": (
        b"SET standard_conforming_strings = off;\n"
        b"CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS $$\n"
        b"SELECT pg_catalog.set_config('standard_' || 'conforming_strings', 'on', false) $$;\n"
        b"SELECT pg_temp.f();\n"
        b"SELECT 'a\\';\nCOMMAND\n--';\n"
    ),
}

# Places where both see it, or where our lexer finds that psql reads something else.
SEEN = {
    "after a NUL": b"SELECT 'a' \0'\nCOMMAND\n';\n",
    "after a comment that CR ends": b"-- text\rCOMMAND\n",
    "after a comment that CR ends, in a statement": b"SELECT 1 -- text\rCOMMAND\n;\n",
    "after COPY data that a CR LF ends": b"COPY public.t (line) FROM stdin;\n1\r\n\\.\r\nCOMMAND\n\\.\n",
    "after a COPY that takes no data": (
        b"COPY public.t (line) FROM '/dev/null' WHERE line IS DISTINCT FROM stdin;\nCOMMAND\n\\.\n"
    ),
    "after a string, by SET SESSION": (
        b"SET standard_conforming_strings = off;\nSET SESSION standard_conforming_strings = on;\n"
        b"SELECT 'a\\';\nCOMMAND\n--';\n"
    ),
    "after a string, by SET LOCAL": (
        b"BEGIN;\nSET standard_conforming_strings = off;\nSET LOCAL standard_conforming_strings TO on;\n"
        b"SELECT 'a\\';\nCOMMAND\n--';\n"
    ),
    "after a string, by set_config": (
        b"SET standard_conforming_strings = off;\n"
        b"SELECT pg_catalog.set_config('standard_conforming_strings', 'on', false);\n"
        b"SELECT 'a\\';\nCOMMAND\n--';\n"
    ),
    "after a string, by the client's encoding": b"SET client_encoding = 'SJIS';\nSELECT E'\x95\\';\nCOMMAND\n--';\n",
    "on a line": b"COMMAND\n",
    "after a statement": b"SELECT 1; COMMAND\n",
    "at the end of a statement": b"SELECT 1 COMMAND\n",
    "in a statement": b"SELECT (1 +\n  COMMAND\n  1);\n",
    "after the end of a comment": b"SELECT 1 /* text */ COMMAND\n",
    "after a dollar quote": b"SELECT $$text$$ COMMAND\n",
    "after an empty statement": b";;COMMAND\n",
    "after COPY data": b"COPY public.t (line) FROM stdin;\n1\n\\.\nCOMMAND\n",
}

TABLE = "create table public.t (line text, stdin text)"


@dataclass
class Target:
    """The files and the port that an attack tries to reach.

    :ivar directory: a private directory with the canary.
    """

    directory: Path
    listener: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.canary.write_text(f"{SECRET}\n")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)

    def close(self) -> None:
        self.listener.close()

    @property
    def marker(self) -> Path:
        return self.directory / "marker"

    @property
    def canary(self) -> Path:
        return self.directory / "canary.sql"

    def attack(self, place: bytes, command: str = r"\! touch {marker}") -> bytes:
        """Return a piece of a script with the command in a place of :data:`HIDDEN` or :data:`SEEN`."""
        port = self.listener.getsockname()[1]
        text = command.format(marker=self.marker, canary=self.canary, port=port, directory=self.directory)
        return place.replace(b"COMMAND", text.encode())

    def assert_untouched(self, what: object) -> None:
        written = [path.name for path in self.directory.iterdir() if path != self.canary]
        assert not written, f"{written} written by {what}"
        assert self.canary.exists(), f"canary removed by {what}"
        try:
            with closing(self.listener.accept()[0]):
                raise AssertionError(f"a connection was made: {what}")
        except BlockingIOError:
            pass


def database_dump(body: bytes, major: int = 15) -> bytes:
    """Return a dump with this body, without the \\restrict by which pg_dump would guard psql."""
    return (
        b"--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version %d.1\n"
        b"-- Dumped by pg_dump version %d.1\n\nSET client_encoding = 'UTF8';\n"
        % (major, major)
        + b"CREATE TABLE public.t (line text, stdin text);\n\n"
        + body
        + b"\n--\n-- PostgreSQL database dump complete\n--\n\n"
    )


def cluster_dump(major: int = 15, *, roles: bytes = b"", template1: bytes = b"", app: bytes = b"") -> bytes:
    """Return a dump of a cluster with pieces among the roles, in template1 and in a database app."""
    created = (
        b"CREATE DATABASE app WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C';\n"
        b"\n\\connect app\n\n"
    )
    sections = database_dump(template1, major), database_dump(app, major)
    second = sections[1].replace(b"CREATE TABLE", created + b"CREATE TABLE", 1)
    return (
        b"--\n-- PostgreSQL database cluster dump\n--\n\nSET client_encoding = 'UTF8';\n\n"
        + b"CREATE ROLE attacker;\n"
        + roles
        + b"\n--\n-- Databases\n--\n\n\\connect template1\n\n"
        + sections[0]
        + b'--\n-- Database "app" dump\n--\n\n'
        + second
        + b"--\n-- PostgreSQL database cluster dump complete\n--\n\n"
    )
