"""PostgreSQL's programs as oracles: archives to start from, what pg_restore makes of one, what psql sends of a script.

psql talks to a server of our own that answers every statement with success and takes the data of every COPY. So nothing
runs, no database is needed, and what psql takes for a statement and for data is known to the byte.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from builds import BUILDS, Build

from airflow_pgbackup.byte_streams import PieceReader
from airflow_pgbackup.errors import NotProven, ToolError
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.psql.guarded import guarded
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from airflow_pgbackup.postgres.tools.process import ToolProcess

DEADLINE = 120.0
"""Seconds for one program: only a hang takes as long."""
_STATEMENTS = (
    "create table empty (a int)",
    "create table none ()",
    "insert into none select from generate_series(1, 3)",
    "create table rows as select n as a, md5(n::text) as b from generate_series(1, 40) n",
    r"create table odd as select e'\\.\n\\.\nCOPY x FROM stdin;\n\\.\t\r' as a from generate_series(1, 3)",
    """create table "o.d'd \\ ""n" ("c,ol)" int, "ä" text)""",
    """insert into "o.d'd \\ ""n" values (1, 'é'), (2, null)""",
    "create sequence counter",
    "select setval('counter', 42)",
    "select lo_from_bytea(0, '\\x00010200')",
    "select lo_from_bytea(0, 'second')",
    "create function f() returns int language sql begin atomic select case when true then 1 end; end",
    "comment on function f is 'a; -- /* $$ COPY x FROM stdin;'",
)


def client_of(build: Build) -> Client:
    return next(client for client in find_clients([str(build.bin_dir)]) if client.bin_dir == build.bin_dir)


@cache
def newest() -> Build:
    """The build that can read the archives of all others: the newest with all compressions."""
    return max(BUILDS, key=lambda build: (build.major, len(client_of(build).compression_methods), build.version))


used: list[Build] = [*BUILDS]
"""The builds that make dumps. Beside those there are some that PostgreSQL 18 made, which never change."""
_STORED = Path(__file__).parents[2] / "golden" / "dumps"


def dumps(kind: str) -> list[bytes]:
    """Return the stored dumps, then small ones by each build, with each compression that it has.

    Directories are :func:`packed`.

    :param kind: a format, or ``inserts`` for the custom format with them.
    """
    stored = [file.read_bytes() for file in sorted(_STORED.glob(f"{kind}-*"))]
    return stored + [data for build in used for data in made_by(build)[kind]]


@cache
def made_by(build: Build) -> dict[str, list[bytes]]:
    try:
        return _made_by(build)
    except NotProven:  # a machine so busy that the server did not start in time
        return _made_by(build)


def _made_by(build: Build) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    with PostgresServer(build.bin_dir) as server, TemporaryDirectory(prefix="fuzz-") as scratch:
        database = server.params.with_database("postgres")
        with database.connect() as session:
            for statement in _STATEMENTS:
                session.execute(statement)
        levels = {"none": "0", "gzip": "1"}
        compressions = [levels.get(method, method) for method in ("none", *client_of(build).compression_methods)]
        with client_environment(database) as env:

            def dump(*options: str) -> bytes:
                argv = [build.bin_dir / "pg_dump", *options]
                return subprocess.run(argv, env=env, stdout=subprocess.PIPE, check=True).stdout

            for kind in ("plain", "tar"):
                found[kind] = [dump(f"--format={kind}")]
            found["inserts"] = [dump("--format=custom", "--compress=0", "--inserts")]
            found["custom"] = [dump("--format=custom", f"--compress={each}") for each in dict.fromkeys(compressions)]
            for each in dict.fromkeys(compressions):
                dump("--format=directory", f"--compress={each}", f"--file={scratch}/{each}")
            found["directory"] = [
                packed({file.name: file.read_bytes() for file in sorted(Path(scratch, each).iterdir())})
                for each in dict.fromkeys(compressions)
            ]
    return found


def packed(files: dict[str, bytes]) -> bytes:
    """Return the files of a directory as one input."""
    return b"".join(
        struct.pack("<II", len(name.encode()), len(data)) + name.encode() + data for name, data in files.items()
    )


def unpacked(data: bytes) -> dict[str, bytes]:
    """Return the files of an input; what is cut or has no name is left out."""
    files, at = {}, 0
    while at + 8 <= len(data):
        name_size, size = struct.unpack_from("<II", data, at)
        name = data[at + 8 : at + 8 + name_size].decode("utf-8", "replace")
        if name and "/" not in name and "\0" not in name and name not in (".", "..") and name_size < 200:
            files[name] = data[at + 8 + name_size : at + 8 + name_size + size]
        at += 8 + name_size + size
    return files


@dataclass(frozen=True)
class Restored:
    """What pg_restore made of an archive.

    :ivar script: None if it refused the archive.
    """

    script: bytes | None

    @property
    def copies(self) -> tuple[int, int]:
        """Rows and bytes of all COPY data."""
        data = re.findall(rb"^COPY .*? FROM stdin;\n(.*?)^\\\.\n", self.script or b"", re.DOTALL | re.MULTILINE)
        return sum(each.count(b"\n") for each in data), sum(map(len, data))


def pg_restore(build: Build, archive: Path, format: str, *options: str) -> Restored:
    """Return what pg_restore makes of an archive.

    :raises TimeoutExpired: it did not end.
    """
    argv = [build.bin_dir / "pg_restore", f"--format={format}", "--file=-", *options, archive]
    done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=DEADLINE, env={"LC_ALL": "C"})
    script = re.sub(rb"(?m)^\\(un)?restrict .*$", b"", done.stdout)
    return Restored(script if done.returncode == 0 else None)


@dataclass
class Sent:
    """What psql sent of a script.

    :ivar statements: each with the COPY data that followed it, or None.
    :ivar refused: psql stopped at an error.
    """

    statements: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    refused: bool = False


def sent_by_psql(build: Build, script: bytes) -> Sent:
    """Run a script in psql, in restricted mode, and return what arrives at the server."""
    sent = Sent()
    with _Server(sent) as port:
        psql = guarded(client_of(build), PieceReader(iter([script])))
        env = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "nobody", "PGSSLMODE": "disable", "LC_ALL": "C"}
        env |= {"PGDATABASE": "nothing", "PGGSSENCMODE": "disable", "PGCONNECT_TIMEOUT": "100"}
        try:
            with ToolProcess(
                psql.argv, env=env, stdin=psql.stdin, stdout="devnull", deadline=DEADLINE, may_start_processes=False
            ) as process:
                process.wait()
        except ToolError as error:
            if error.exit_code != 3:  # of ON_ERROR_STOP
                raise
            sent.refused = True
    return sent


class _Server:
    """A server for one session: https://www.postgresql.org/docs/current/protocol-message-formats.html"""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._socket.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(DEADLINE)

    def _serve(self) -> None:
        try:
            session, _ = self._socket.accept()
        except OSError:  # closed before psql came
            return
        with closing(session), session.makefile("rwb") as stream:
            try:
                self._talk(stream)
            except (OSError, struct.error, ValueError):  # psql ended
                return

    def _talk(self, stream: object) -> None:
        read, write, flush = stream.read, stream.write, stream.flush  # type: ignore[attr-defined]

        def message(kind: bytes, body: bytes) -> None:
            write(kind + struct.pack("!I", len(body) + 4) + body)

        def ready() -> None:
            message(b"Z", b"I")
            flush()

        (size,) = struct.unpack("!I", read(4))
        read(size - 4)
        message(b"R", struct.pack("!I", 0))
        for name in (b"client_encoding\0SQL_ASCII", b"server_version\x0018.4", b"standard_conforming_strings\0on"):
            message(b"S", name + b"\0")
        ready()
        while kind := read(1):
            (size,) = struct.unpack("!I", read(4))
            body = read(size - 4)
            if kind == b"X":
                return
            if kind == b"Q":
                statement = body[:-1]
                copies = takes_data(statement)
                self._sent.statements.append((statement, b"" if copies else None))
                if copies:
                    message(b"G", struct.pack("!bH", 0, 0))
                    flush()
                    continue
                if mode := re.fullmatch(
                    rb"(?is)SET\s+standard_conforming_strings\s*(?:=|to)\s*'?(on|off)'?\s*;", bare(statement)
                ):
                    message(b"S", b"standard_conforming_strings\0" + mode[1].lower() + b"\0")
                message(b"C", b"SET\0")
                ready()
            elif kind == b"d":
                last, data = self._sent.statements[-1]
                self._sent.statements[-1] = (last, (data or b"") + body)
            elif kind in (b"c", b"f"):
                message(b"C", b"COPY 0\0")
                ready()


def takes_data(statement: bytes) -> bool:
    """Return whether the server would ask for data."""
    return bool(re.fullmatch(rb"(?is)COPY\s.*\sFROM\s+stdin\s*;", bare(statement)))


def bare(statement: bytes) -> bytes:
    """Return a statement without the white space and the ``--`` comments before it, which psql may send too."""
    while True:
        stripped = statement.lstrip(b" \t\r\n\f\v")
        if not stripped.startswith(b"--"):
            return stripped.rstrip()
        statement = stripped.partition(b"\n")[2]


def statements_of(sent: Sequence[tuple[bytes, bytes | None]]) -> Iterator[tuple[bytes, bytes | None]]:
    for statement, data in sent:
        if text := bare(statement):
            yield text, data
